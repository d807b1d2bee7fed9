// Losses and right answers, with the bits of zoo_datasets/networks/scoring.py.
//
// Float64 + − × ÷ and bit operations in the order of zoo_datasets/core/exact.py, nothing fused: every build and the NumPy
// version agree. Examples stand side by side, a block of them at a time and classes outside.

#include "scoring.h"

#include <cmath>
#include <vector>

#include "bits.h"
#include "simd.h"

namespace {

constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
constexpr double PER_LN2 = 1.0 / 0.6931471805599453;  // as Python divides: 1 / math.log(2)
constexpr double ROUND = 6755399441055744.0;          // 1.5 · 2⁵²: adding it rounds to a whole number, halves to even

// Float64 of neighboring examples: as many as a register holds, for compilers cut what is wider into single numbers.
#if defined(WZ_AVX2)
constexpr int64_t WIDE = 4;
#else
constexpr int64_t WIDE = 2;
#endif
typedef double wide __attribute__((vector_size(8 * WIDE)));
typedef int64_t wide_mask __attribute__((vector_size(8 * WIDE)));
typedef uint64_t wide_bits __attribute__((vector_size(8 * WIDE)));

constexpr int64_t AT_ONCE = 6;                         // vectors whose series run abreast
constexpr int64_t BLOCK = 48, VECTORS = BLOCK / WIDE;  // examples: whole transposes, and vectors by sixes

WZ_INLINE wide all(double x) { return x - wide{}; }

WZ_INLINE void widen(v8 from, wide* to) {
#if defined(WZ_AVX2)
  to[0] = (wide)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)from));
  to[1] = (wide)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)from, 1));
#else
  for (int k = 0; k < LANES; ++k) to[k / WIDE][k % WIDE] = (double)from[k];
#endif
}

// The values are ready before what follows: else the compiler writes one series behind the other, and each waits for
// itself at every step.
WZ_INLINE void abreast(wide (&x)[AT_ONCE]) {
#if defined(WZ_AVX2)
#pragma GCC unroll 6
  for (int v = 0; v < AT_ONCE; ++v) __asm__ volatile("" : "+x"(x[v]));
#else
  (void)x;
#endif
}

// exact.exp: e^x for x ≤ 0, added to the sums; NaN stays NaN.
WZ_INLINE void add_exp(const wide* x, wide* sums) {
  wide r[AT_ONCE], series[AT_ONCE], power[AT_ONCE];
#pragma GCC unroll 6
  for (int v = 0; v < AT_ONCE; ++v) {
    const wide clipped = x[v] < all(-700.0) ? all(-700.0) : x[v];
    const wide rounded = clipped * PER_LN2 + ROUND, n = rounded - ROUND;
    r[v] = (clipped - n * LN2_HIGH) - n * LN2_LOW;
    // The low bits of `rounded` are n; what they are for NaN does not matter, the series is NaN then.
    power[v] = (wide)(((wide_bits)rounded - bits_of(ROUND) + 1023) << 52);
    series[v] = all(1.0);
  }
#pragma GCC unroll 13
  for (int k = 13; k > 0; --k) {
#pragma GCC unroll 6
    for (int v = 0; v < AT_ONCE; ++v) series[v] *= r[v];
    abreast(series);
#pragma GCC unroll 6
    for (int v = 0; v < AT_ONCE; ++v) series[v] *= 1.0 / k;
    abreast(series);
#pragma GCC unroll 6
    for (int v = 0; v < AT_ONCE; ++v) series[v] += 1.0;
    abreast(series);
  }
#pragma GCC unroll 6
  for (int v = 0; v < AT_ONCE; ++v) sums[v] += x[v] < all(-700.0) ? all(0.0) : series[v] * power[v];
}

// exact.log of a normal x > 0; NaN stays NaN.
inline double log_of(double x) {
  const uint64_t bits = bits_of(x);
  double m = of_bits((bits & 0x000fffffffffffffull) | 0x3fe0000000000000ull);  // in [½, 1)
  // A whole number of at most 11 bits as a double, by its bits: conversions of 64-bit integers are not vectorized.
  double e = of_bits(((bits >> 52) & 0x7ff) | 0x4330000000000000ull) - (4503599627370496.0 + 1022.0);
  const bool small = m < 0.7071067811865476;
  m = small ? m * 2.0 : m;
  e = small ? e - 1.0 : e;
  const double t = (m - 1.0) / (m + 1.0), t2 = t * t;
  double series = 0.0;
#pragma GCC unroll 11
  for (int k = 21; k > 0; k -= 2) series = series * t2 + 1.0 / k;
  const double value = 2.0 * t * series + e * (LN2_HIGH + LN2_LOW);
  return x == x ? value : x;
}

class Scorer {
 public:
  explicit Scorer(const wz::Scoring& s) : s_(s), z_((size_t)(s.classes * VECTORS)) {}

  void run() {
    for (int64_t i = 0; i < s_.sets * s_.models; ++i) s_.losses[i] = 0.0;
    for (int64_t i = 0; i < s_.sets * s_.models * s_.classes; ++i) s_.correct[i] = 0;
    for (int64_t m = 0; m < s_.models; ++m)
      for (int64_t first = 0; first < s_.n; first += BLOCK) block(m, first, s_.n - first < BLOCK ? s_.n - first : BLOCK);
  }

 private:
  void block(int64_t m, int64_t first, int64_t count) {
    load(s_.logits + (m * s_.n + first) * s_.classes, count);
    if (!s_.mse) log_sum_exp();
    for (int64_t k = 0; k < s_.sets; ++k) {
      const int64_t row = k * s_.label_rows + (s_.label_rows > 1 ? m : 0);
      const int64_t* labels = s_.labels + row * s_.n + first;
      double total = s_.losses[k * s_.models + m];
      int64_t* correct = s_.correct + (k * s_.models + m) * s_.classes;
      if (s_.mse) squares(labels, count);
      for (int64_t b = 0; b < count; ++b) {
        total += s_.mse ? sums()[b] : sums()[b] - at(labels[b])[b];
        correct[labels[b]] += best()[b] == labels[b];
      }
      s_.losses[k * s_.models + m] = total;
    }
  }

  // The block as float64 by class, zeros beyond the last example; the largest of each, and its place: the first of
  // equals, −1 where one is not finite.
  void load(const float* from, int64_t count) {
    for (int64_t e = 0; e < BLOCK; e += LANES) {
      if (e + LANES > count || s_.classes < LANES) {
        for (int64_t c = 0; c < s_.classes; ++c)
          for (int64_t b = e; b < e + LANES; ++b) at(c)[b] = b < count ? (double)from[b * s_.classes + c] : 0.0;
        continue;
      }
      for (int64_t c = 0; c < s_.classes; c += LANES) {
        const int64_t start = c + LANES > s_.classes ? s_.classes - LANES : c;  // the last eight may be read again
        v8 rows[LANES];
        for (int64_t k = 0; k < LANES; ++k) rows[k] = ::load(from + (e + k) * s_.classes + start);
        transpose(rows);
        for (int64_t k = 0; k < LANES; ++k)
          widen(rows[k], z_.data() + (start + k) * VECTORS + e / WIDE);
      }
    }
    for (int64_t v = 0; v < VECTORS; ++v) {
      wide most = z_[v], best = all(0.0), finite = most - most;
      for (int64_t c = 1; c < s_.classes; ++c) {
        const wide x = z_[c * VECTORS + v];
        const wide_mask larger = x > most;
        best = larger ? all((double)c) : best;
        most = (larger | (x != x)) ? x : most;
        finite += x - x;
      }
      most_[v] = most;
      best_[v] = finite == all(0.0) ? best : all(-1.0);
    }
  }

  // log Σ exp(z − max) into sum_, z − max into z_.
  void log_sum_exp() {
    for (int64_t v = 0; v < VECTORS; ++v) sum_[v] = all(0.0);
    for (int64_t v = 0; v < VECTORS; v += AT_ONCE)
      for (int64_t c = 0; c < s_.classes; ++c) {
        wide* z = z_.data() + c * VECTORS + v;
        for (int64_t u = 0; u < AT_ONCE; ++u) z[u] -= most_[v + u];
        add_exp(z, sum_ + v);
      }
    double* sum = sums();
    for (int64_t b = 0; b < BLOCK; ++b) sum[b] = log_of(sum[b]);
  }

  // Mean over classes of (logit − one-hot)² into sum_.
  void squares(const int64_t* labels, int64_t count) {
    double right[BLOCK], *sum = sums();
    for (int64_t b = 0; b < BLOCK; ++b) right[b] = b < count ? (double)labels[b] : -1.0, sum[b] = 0.0;
    for (int64_t c = 0; c < s_.classes; ++c)
      for (int64_t b = 0; b < BLOCK; ++b) {
        const double x = right[b] == (double)c ? at(c)[b] - 1.0 : at(c)[b];
        sum[b] += x * x;
      }
    for (int64_t b = 0; b < BLOCK; ++b) sum[b] /= (double)s_.classes;
  }

  double* at(int64_t c) { return reinterpret_cast<double*>(z_.data() + c * VECTORS); }  // of each example
  double* sums() { return reinterpret_cast<double*>(sum_); }
  const double* best() { return reinterpret_cast<const double*>(best_); }

  const wz::Scoring s_;
  std::vector<wide> z_;  // (classes, BLOCK)
  wide sum_[VECTORS], most_[VECTORS], best_[VECTORS];
};

}  // namespace

namespace wz {
#define WZ_NAME2(path) score_##path
#define WZ_NAME(path) WZ_NAME2(path)
void WZ_NAME(WZ_PATH)(const Scoring& scoring) { Scorer(scoring).run(); }
}  // namespace wz
