// Standard normals of raw words, many at once: the bits of `normal` in random.cpp (AS 241).
//
// Words come in blocks, and every loop runs along them, so that the compiler can take several at once. The middle
// of the distribution is computed of all, then the seventh that lies outside is gathered and done again.
#pragma once

#include <cmath>
#include <cstdint>

#include "bits.h"

namespace {

constexpr int NORMALS_AT_ONCE = 512;
constexpr double MIDDLE_REACH = 0.425, MIDDLE_REACH_SQUARED = 0.180625;

constexpr double CENTRAL[2][8] = {
    {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
    {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3}};
constexpr double MIDDLE[2][8] = {
    {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
constexpr double FAR[2][8] = {
    {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
constexpr double SQRT_HALF = 0.70710678118654752440;

inline double ratio(double x, const double (&c)[2][8]) {
  double top = 0.0, bottom = 0.0;
#pragma GCC unroll 8
  for (int k = 7; k >= 0; --k) top = top * x + c[0][k], bottom = bottom * x + c[1][k];
  return top / bottom;
}

// A whole number below 2^52 as a double: no build has an instruction for it that the others have.
inline double whole(uint64_t n) { return of_bits(0x4330000000000000ull | n) - 0x1p52; }

// ln p, p > 0 and normal.
inline double log_plain(double p) {
  const uint64_t bits = bits_of(p);
  const double m = of_bits((bits & 0xFFFFFFFFFFFFFull) | 0x3FE0000000000000ull);  // in [½, 1)
  const bool small = m < SQRT_HALF;
  const double e = whole((bits >> 52) - (small ? 1 : 0)) - 1022.0, scaled = small ? m * 2.0 : m;
  const double t = (scaled - 1.0) / (scaled + 1.0), t2 = t * t;
  double series = 0.0;
#pragma GCC unroll 11
  for (int k = 21; k > 0; k -= 2) series = series * t2 + 1.0 / k;
  return 2.0 * t * series + e * 0.6931471805599453;
}

// z[i] of words[i], i < n ≤ NORMALS_AT_ONCE.
inline void normals_of_block(const uint64_t* __restrict words, int n, double* __restrict z) {
  double q[NORMALS_AT_ONCE], r[NORMALS_AT_ONCE], tail[NORMALS_AT_ONCE];
  int32_t place[NORMALS_AT_ONCE];
  // (2 (word >> 11) − 2^53 + 1) / 2^54, exact: a 53-bit number from its upper 52 bits and the last.
  for (int i = 0; i < n; ++i) {
    const double k = 2.0 * whole(words[i] >> 12) + whole((words[i] >> 11) & 1);
    q[i] = (2.0 * (k - 0x1p52) + 1.0) * 0x1p-54;
  }
  for (int i = 0; i < n; ++i) z[i] = q[i] * ratio(MIDDLE_REACH_SQUARED - q[i] * q[i], CENTRAL);
  int m = 0;
  for (int i = 0; i < n; ++i) {
    place[m] = i;
    r[m] = 0.5 - std::fabs(q[i]);
    m += std::fabs(q[i]) > MIDDLE_REACH;
  }
  for (int j = 0; j < m; ++j) {
    r[j] = std::sqrt(-log_plain(r[j]));
    tail[j] = ratio(r[j] - 1.6, MIDDLE);
  }
  for (int j = 0; j < m; ++j) {
    const double far = r[j] <= 5.0 ? tail[j] : ratio(r[j] - 5.0, FAR);
    z[place[j]] = q[place[j]] < 0 ? -far : far;
  }
}

}  // namespace
