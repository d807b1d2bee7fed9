// Losses and right answers, with the bits of zoo_datasets/networks/scoring.py.
//
// Float64 + − × ÷ and bit operations in the order of zoo_datasets/core/exact.py, nothing fused:
// every build and the NumPy version agree. Sixty-four examples at a time, classes outside, so that
// each loop runs along examples and the compiler can take several at once.

#include "scoring.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t BLOCK = 64;
constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
constexpr double PER_LN2 = 1.0 / 0.6931471805599453;  // as Python divides: 1 / math.log(2)
constexpr double ROUND = 6755399441055744.0;          // 1.5 · 2⁵²: adding it rounds to a whole number, halves to even

inline double of_bits(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, 8);
  return x;
}

inline uint64_t bits_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  return bits;
}

// exact.exp: e^x for x ≤ 0; NaN stays NaN.
inline double exp_of(double x) {
  const double clipped = x < -700.0 ? -700.0 : x;
  const double rounded = clipped * PER_LN2 + ROUND, n = rounded - ROUND;
  const double r = (clipped - n * LN2_HIGH) - n * LN2_LOW;
  double series = 1.0;
#pragma GCC unroll 13
  for (int k = 13; k > 0; --k) {
    series *= r;
    series *= 1.0 / k;
    series += 1.0;
  }
  // The low bits of `rounded` are n; what they are for NaN does not matter, the series is NaN then.
  const double power = of_bits((bits_of(rounded) - bits_of(ROUND) + 1023) << 52);
  return x < -700.0 ? 0.0 : series * power;
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
  explicit Scorer(const wz::Scoring& s) : s_(s), z_((size_t)(s.classes * BLOCK)), sum_(BLOCK), most_(BLOCK), best_(BLOCK) {}

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
        total += s_.mse ? sum_[b] : sum_[b] - z_[labels[b] * BLOCK + b];
        correct[labels[b]] += best_[b] == labels[b];
      }
      s_.losses[k * s_.models + m] = total;
    }
  }

  // The block as float64 by class, the largest of each example, and its place: the first of equals, −1 where one is
  // not finite.
  void load(const float* from, int64_t count) {
    for (int64_t c = 0; c < s_.classes; ++c)
      for (int64_t b = 0; b < BLOCK; ++b) z_[c * BLOCK + b] = b < count ? (double)from[b * s_.classes + c] : 0.0;
    double finite[BLOCK];
    for (int64_t b = 0; b < BLOCK; ++b) most_[b] = z_[b], best_[b] = 0, finite[b] = z_[b] - z_[b];
    for (int64_t c = 1; c < s_.classes; ++c)
      for (int64_t b = 0; b < BLOCK; ++b) {
        const double x = z_[c * BLOCK + b];
        best_[b] = x > most_[b] ? (double)c : best_[b];
        most_[b] = x > most_[b] || x != x ? x : most_[b];
        finite[b] += x - x;
      }
    for (int64_t b = 0; b < BLOCK; ++b) best_[b] = finite[b] == 0.0 ? best_[b] : -1.0;
  }

  // log Σ exp(z − max) into sum_, z − max into z_.
  void log_sum_exp() {
    double* z = z_.data();
    for (int64_t b = 0; b < BLOCK; ++b) sum_[b] = 0.0;
    for (int64_t c = 0; c < s_.classes; ++c)
      for (int64_t b = 0; b < BLOCK; ++b) {
        const double x = z[c * BLOCK + b] - most_[b];
        z[c * BLOCK + b] = x;
        sum_[b] += exp_of(x);
      }
    for (int64_t b = 0; b < BLOCK; ++b) sum_[b] = log_of(sum_[b]);
  }

  // Mean over classes of (logit − one-hot)² into sum_.
  void squares(const int64_t* labels, int64_t count) {
    double right[BLOCK];
    for (int64_t b = 0; b < BLOCK; ++b) right[b] = b < count ? (double)labels[b] : -1.0, sum_[b] = 0.0;
    for (int64_t c = 0; c < s_.classes; ++c)
      for (int64_t b = 0; b < BLOCK; ++b) {
        const double x = right[b] == (double)c ? z_[c * BLOCK + b] - 1.0 : z_[c * BLOCK + b];
        sum_[b] += x * x;
      }
    for (int64_t b = 0; b < BLOCK; ++b) sum_[b] /= (double)s_.classes;
  }

  const wz::Scoring s_;
  std::vector<double> z_, sum_, most_, best_;  // (classes, BLOCK), and one each an example
};

}  // namespace

namespace wz {
#define WZ_NAME2(path) score_##path
#define WZ_NAME(path) WZ_NAME2(path)
void WZ_NAME(WZ_PATH)(const Scoring& scoring) { Scorer(scoring).run(); }
}  // namespace wz
