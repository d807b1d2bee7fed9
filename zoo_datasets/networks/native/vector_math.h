// exp, log, tanh, erf and what is made of them, eight at a time, within a few ulp.
//
// Own polynomials, because libm and compilers differ in last bits. NaN stays NaN.
#pragma once

#include "simd.h"

namespace {

// x = n·ln 2 + r with |r| ≤ ½ ln 2; gives expm1(r) and n (Cephes expf's polynomial).
WZ_INLINE v8 reduced_expm1(v8 x, v8i& n) {
  const v8 magic = splat(12582912.0f);  // 1.5·2²³: adding it rounds to a whole number
  // exp(89) overflows and exp(−104) is 0 in float32; comparisons let NaN through.
  x = select(x > splat(89.0f), splat(89.0f), x);
  x = select(x < splat(-104.0f), splat(-104.0f), x);
  v8 t = fma(x, splat(1.44269504088896341f), magic);
  n = (v8i)t - (v8i)magic;
  v8 whole = t - magic;
  v8 r = fma(whole, splat(-0.693359375f), x);
  r = fma(whole, splat(2.12194440e-4f), r);
  v8 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  return fma(p, r * r, r);
}

WZ_INLINE v8 power_of_two(v8i n) { return (v8)((n + 127) << 23); }

WZ_INLINE v8 exp(v8 x) {
  v8i n;
  v8 p = reduced_expm1(x, n) + splat(1.0f);
  v8i half = n >> 1;  // in two factors, since 2ⁿ alone leaves float32 at both ends
  return (p * power_of_two(half)) * power_of_two(n - half);
}

WZ_INLINE v8 expm1_negative(v8 x) {  // for x ≤ 0
  x = select(x < splat(-80.0f), splat(-80.0f), x);  // −1 long before; keeps 2ⁿ normal
  v8i n;
  v8 p = reduced_expm1(x, n), scale = power_of_two(n);
  return fma(p, scale, scale - splat(1.0f));
}

WZ_INLINE v8 log(v8 x) {  // x normal and positive (Cephes logf)
  v8i bits = (v8i)x;
  v8i e = ((bits >> 23) & 255) - 126;
  v8 m = (v8)((bits & 0x007fffff) | 0x3f000000);  // [½, 1)
  v8i small = m < splat(0.707106781186547524f);
  e = e + small;  // a set mask is −1
  m = select(small, m + m, m) - splat(1.0f);
  v8 z = m * m, p = splat(7.0376836292e-2f);
  p = fma(p, m, splat(-1.1514610310e-1f));
  p = fma(p, m, splat(1.1676998740e-1f));
  p = fma(p, m, splat(-1.2420140846e-1f));
  p = fma(p, m, splat(1.4249322787e-1f));
  p = fma(p, m, splat(-1.6668057665e-1f));
  p = fma(p, m, splat(2.0000714765e-1f));
  p = fma(p, m, splat(-2.4999993993e-1f));
  p = fma(p, m, splat(3.3333331174e-1f));
  v8 ef = __builtin_convertvector(e, v8);
  v8 y = fma(ef, splat(-2.12194440e-4f), (m * z) * p);
  y = fma(splat(-0.5f), z, y);
  v8 r = fma(ef, splat(0.693359375f), m + y);
  return select(x != x, x, r);
}

// Rational minimax of degree 13/6 on |x| ≤ 7.9053, ±1 beyond (the coefficients of Eigen's ptanh).
WZ_INLINE v8 tanh(v8 x) {
  const float bound = 7.90531110763549805f;
  v8 c = select(x > splat(bound), splat(bound), x);
  c = select(c < splat(-bound), splat(-bound), c);
  v8 z = c * c, p = splat(-2.76076847742355e-16f);
  p = fma(p, z, splat(2.00018790482477e-13f));
  p = fma(p, z, splat(-8.60467152213735e-11f));
  p = fma(p, z, splat(5.12229709037114e-08f));
  p = fma(p, z, splat(1.48572235717979e-05f));
  p = fma(p, z, splat(6.37261928875436e-04f));
  p = fma(p, z, splat(4.89352455891786e-03f));
  v8 q = splat(1.19825839466702e-06f);
  q = fma(q, z, splat(1.18534705686654e-04f));
  q = fma(q, z, splat(2.26843463243900e-03f));
  q = fma(q, z, splat(4.89352518554385e-03f));
  return (c * p) / q;
}

WZ_INLINE v8 sigmoid(v8 x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

// Two minimax polynomials that meet at |x| = 475/512, about 1 ulp each.
WZ_INLINE v8 erf(v8 x) {
  v8 t = (v8)((v8i)x & 0x7fffffff), s = x * x;
  v8 r = fma(splat(-1.72853470e-5f), t, splat(3.83197126e-4f));
  v8 u = fma(splat(-3.88396438e-3f), t, splat(2.42546219e-2f));
  r = fma(r, s, u);
  r = fma(r, t, splat(-1.06777877e-1f));
  r = fma(r, t, splat(-6.34846687e-1f));
  r = fma(r, t, splat(-1.28717512e-1f));
  r = fma(r, t, -t);
  // Beyond |x| = 4 the result is 1 in float32, and the polynomial was not fitted there.
  v8 far = select(t > splat(4.0f), splat(1.0f), splat(1.0f) - exp(r));
  far = (v8)((v8i)far | ((v8i)x & splat_int(INT32_MIN)));
  v8 near = splat(-5.96761703e-4f);
  near = fma(near, s, splat(4.99119423e-3f));
  near = fma(near, s, splat(-2.67681349e-2f));
  near = fma(near, s, splat(1.12819925e-1f));
  near = fma(near, s, splat(-3.76125336e-1f));
  near = fma(near, s, splat(1.28379166e-1f));
  near = fma(near, x, x);
  return select(t > splat(0.927734375f), far, near);
}

WZ_INLINE v8 normal_cdf(v8 x) { return splat(0.5f) * (splat(1.0f) + erf(x * splat(0.70710678118654752f))); }
WZ_INLINE v8 normal_pdf(v8 x) { return splat(0.39894228040143268f) * exp(splat(-0.5f) * (x * x)); }

}  // namespace
