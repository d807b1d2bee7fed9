// Eight floats at a time, and the few operations that must give the same bits everywhere.
//
// One lane is one sample. Every multiply-add is an explicit fused one, no expression may be
// contracted by the compiler (-ffp-contract=off), and lanes are summed by one fixed tree:
// so a build for AVX2, for AVX-512 and a plain one (std::fma lane by lane) agree bit for bit.
//
// Included only from engine.cpp and scoring.cpp, which are compiled once per instruction set; everything
// here is in an unnamed namespace so that no code of one build reaches another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__FMA__) && defined(__AVX2__)
#include <immintrin.h>
#define WZ_AVX2 1
#endif

// Accumulators a kernel keeps in registers: 16 registers hold 12 and their operands, 32 hold 24.
#if defined(__AVX512VL__)
#define WZ_ACCUMULATORS 24
#else
#define WZ_ACCUMULATORS 12
#endif

#define WZ_INLINE inline __attribute__((always_inline))

namespace {

constexpr int LANES = 8;

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8ui __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4), may_alias));  // anywhere in an array of float

WZ_INLINE v8 splat(float x) { return v8{x, x, x, x, x, x, x, x}; }
WZ_INLINE v8i splat_int(int32_t x) { return v8i{x, x, x, x, x, x, x, x}; }
WZ_INLINE v8 load(const float* p) { return *reinterpret_cast<const v8u*>(p); }
WZ_INLINE void store(float* p, v8 x) { *reinterpret_cast<v8u*>(p) = x; }

WZ_INLINE v8 fma(v8 a, v8 b, v8 c) {
#if defined(WZ_AVX2)
  return (v8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  v8 r;
  for (int k = 0; k < LANES; ++k) r[k] = std::fma(a[k], b[k], c[k]);
  return r;
#endif
}

// acc + a · b. Written out, because compilers that pick the form of the instruction move
// accumulators from register to register, and then to the stack.
WZ_INLINE v8 fma_into(v8 acc, v8 a, v8 b) {
#if defined(__AVX512VL__)
  __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#elif defined(WZ_AVX2)
  __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
#else
  acc = fma(a, b, acc);
#endif
  return acc;
}

WZ_INLINE v8 square_root(v8 a) {
#if defined(WZ_AVX2)
  return (v8)_mm256_sqrt_ps((__m256)a);
#else
  v8 r;
  for (int k = 0; k < LANES; ++k) r[k] = std::sqrt(a[k]);
  return r;
#endif
}

// Makes the compiler load a value once, into a register: folded into two multiply-adds it
// would be loaded twice, and loads are what these kernels run out of.
WZ_INLINE v8 in_register(v8 a) {
#if defined(WZ_AVX2)
  __asm__ volatile("" : "+x"(a));
#endif
  return a;
}

// The same address, but the compiler cannot tell: values loaded for one tap are then not
// held for the next, where they would push accumulators out of the registers.
WZ_INLINE const char* opaque(const char* p) {
#if defined(WZ_AVX2)
  __asm__ volatile("" : "+r"(p));
#endif
  return p;
}

WZ_INLINE v8 keep(v8i mask, v8 a) { return (v8)(mask & (v8i)a); }  // a where the mask is set, else 0
// Lane k where bit k is set.
WZ_INLINE v8i lane_mask(uint8_t bits) {
  const v8i lane = {1, 2, 4, 8, 16, 32, 64, 128};
  return (splat_int(bits) & lane) != 0;
}
WZ_INLINE v8 select(v8i mask, v8 a, v8 b) { return mask ? a : b; }

// a where it is greater, else b: b if either is NaN.
WZ_INLINE v8 larger(v8 a, v8 b) {
#if defined(WZ_AVX2)
  return (v8)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return select(a > b, a, b);
#endif
}

WZ_INLINE v8i unordered(v8 a, v8 b) {  // where either is NaN
#if defined(WZ_AVX2)
  return (v8i)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q);
#else
  return (a != a) | (b != b);
#endif
}

WZ_INLINE v8 relu(v8 a) {  // NaN stays NaN
  return keep(~(a <= splat(0.0f)), a);
}
WZ_INLINE v8 gated(v8 y, v8 dy) { return keep(y > splat(0.0f), dy); }  // back through a ReLU with output y

// The one order in which lanes are added: neighbours at distance 4, then 2, then 1.
WZ_INLINE float lane_sum(v8 a) {
  float s0 = a[0] + a[4], s1 = a[1] + a[5], s2 = a[2] + a[6], s3 = a[3] + a[7];
  return (s0 + s2) + (s1 + s3);
}

// Rows become columns: out[i][j] = in[j][i].
WZ_INLINE void transpose(v8 r[8]) {
#if defined(WZ_AVX2)
  __m256 t[8], u[8];
  for (int k = 0; k < 4; ++k) {
    t[2 * k] = _mm256_unpacklo_ps((__m256)r[2 * k], (__m256)r[2 * k + 1]);
    t[2 * k + 1] = _mm256_unpackhi_ps((__m256)r[2 * k], (__m256)r[2 * k + 1]);
  }
  for (int k = 0; k < 2; ++k) {
    u[4 * k] = _mm256_shuffle_ps(t[4 * k], t[4 * k + 2], 0x44);
    u[4 * k + 1] = _mm256_shuffle_ps(t[4 * k], t[4 * k + 2], 0xEE);
    u[4 * k + 2] = _mm256_shuffle_ps(t[4 * k + 1], t[4 * k + 3], 0x44);
    u[4 * k + 3] = _mm256_shuffle_ps(t[4 * k + 1], t[4 * k + 3], 0xEE);
  }
  for (int k = 0; k < 4; ++k) {
    r[k] = (v8)_mm256_permute2f128_ps(u[k], u[k + 4], 0x20);
    r[k + 4] = (v8)_mm256_permute2f128_ps(u[k], u[k + 4], 0x31);
  }
#else
  v8 t[8];
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) t[i][j] = r[j][i];
  for (int i = 0; i < 8; ++i) r[i] = t[i];
#endif
}

}  // namespace
