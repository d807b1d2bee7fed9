// Standard normals of raw words, many at once: the bits of `normal` in random.cpp (AS 241).
//
// Words come in blocks, and every loop runs along them, so that the compiler can take several at once. The middle
// of the distribution is computed of all, then the seventh that lies outside is gathered and done again.
#pragma once

#include <cmath>
#include <cstdint>

#include "../gpu/as241.inc"
#include "bits.h"

namespace {

constexpr int NORMALS_AT_ONCE = 512;
constexpr double MIDDLE_REACH = 0.425, MIDDLE_REACH_SQUARED = 0.180625;

constexpr double CENTRAL[2][8] = AS241_CENTRAL;
constexpr double MIDDLE[2][8] = AS241_MIDDLE;
constexpr double FAR[2][8] = AS241_FAR;
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
