// The four register-blocked kernels that take nearly all the time, and how work is cut for them.
//
// Sizes are runtime values; only the register block is a template parameter. Which block is
// used never changes a bit: each result is one chain of fused multiply-adds in a fixed order.
//
//   contract  out[o][x] = b[o] + Σ_tap w[tap][o] · src[tap][x]         lanes are samples
//   correlate G[o][tap] += Σ_position dY[o][position] · X[tap][position]   lanes are samples
//   rows      y[s][o] = b[o] + Σ_i x[s][i] · w[i][o]                    lanes are outputs
//   outer     G[o][i] = Σ_s dy[s][o] · x[s][i]                          lanes are inputs
//
// Convolution forward and towards its input, and a linear layer on samples in lanes, are all
// `contract` with different lists of taps. `rows` and `outer` read samples where they lie.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "simd.h"

namespace {

constexpr int MAX_O = 12, MAX_X = 6;  // the largest register block in each direction

// ── contract ─────────────────────────────────────────────────────────────────────────

struct Contract {
  const int32_t* taps;  // offsets into src, in v8
  int n_taps;
  ptrdiff_t src_x, dst_o, dst_x;  // steps in v8
};

template <int O, int X>
void contract_block(const Contract& c, const v8* src, const float* w, const float* bias, v8* dst) {
  v8 acc[O][X];
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) acc[o][x] = splat(bias ? bias[o] : 0.0f);
  const int32_t* tap = c.taps;
  const int32_t* const end = tap + c.n_taps;
  const ptrdiff_t step = c.src_x;
  for (; tap != end; ++tap, w += O) {
    const v8* s = src + *tap;
    v8 in[X];
    for (int x = 0; x < X; ++x) in[x] = s[x * step];
    for (int o = 0; o < O; ++o) {
      v8 weight = splat(w[o]);
      for (int x = 0; x < X; ++x) acc[o][x] = fma(weight, in[x], acc[o][x]);
    }
  }
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) dst[o * c.dst_o + x * c.dst_x] = acc[o][x];
}

// ── correlate ────────────────────────────────────────────────────────────────────────

struct Correlate {
  const int32_t* taps;  // offsets into x, in v8, one per tap of the block's whole list
  ptrdiff_t y_plane, y_row, x_row, x_step;  // steps in v8; along a row dY goes by 1
  int columns;
  int n_taps;  // row length of the gradient
};

template <int O, int T>
void correlate_block(const Correlate& c, const v8* y, const v8* x, int rows, int tap0, v8* gradient) {
  v8 acc[O][T];
  for (int o = 0; o < O; ++o)
    for (int t = 0; t < T; ++t) acc[o][t] = gradient[(ptrdiff_t)o * c.n_taps + t];
  const v8* at[T];
  for (int t = 0; t < T; ++t) at[t] = x + c.taps[tap0 + t];
  for (int r = 0; r < rows; ++r) {
    const v8* yr = y + r * c.y_row;
    const ptrdiff_t xr = r * c.x_row;
    ptrdiff_t xi = xr;
    for (int i = 0; i < c.columns; ++i, xi += c.x_step) {
      v8 in[T];
      for (int t = 0; t < T; ++t) in[t] = at[t][xi];
      for (int o = 0; o < O; ++o) {
        v8 dy = yr[o * c.y_plane + i];
        for (int t = 0; t < T; ++t) acc[o][t] = fma(dy, in[t], acc[o][t]);
      }
    }
  }
  for (int o = 0; o < O; ++o)
    for (int t = 0; t < T; ++t) gradient[(ptrdiff_t)o * c.n_taps + t] = acc[o][t];
}

// ── rows ─────────────────────────────────────────────────────────────────────────────

// S samples × 8X outputs. w is [i][o] with rows of `w_row` floats, so is bias; y is [s][o].
template <int S, int X>
void rows_block(const float* const* samples, int64_t n, const float* w, ptrdiff_t w_row, const float* bias, float* y,
                ptrdiff_t y_row) {
  v8 acc[S][X];
  const float* p[S];
  for (int s = 0; s < S; ++s) {
    p[s] = samples[s];
    for (int x = 0; x < X; ++x) acc[s][x] = load(bias + 8 * x);
  }
  for (int64_t i = 0; i < n; ++i, w += w_row) {
    v8 in[X];
    for (int x = 0; x < X; ++x) in[x] = load(w + 8 * x);
    for (int s = 0; s < S; ++s) {
      v8 value = splat(p[s][i]);
      for (int x = 0; x < X; ++x) acc[s][x] = fma(value, in[x], acc[s][x]);
    }
  }
  for (int s = 0; s < S; ++s)
    for (int x = 0; x < X; ++x) store(y + s * y_row + 8 * x, acc[s][x]);
}

// ── outer ────────────────────────────────────────────────────────────────────────────

// O outputs × 8X inputs over n samples; dy is [s][o] with rows of `dy_row`; G has rows of `g_row`.
template <int O, int X>
void outer_block(const float* const* samples, int n, ptrdiff_t i0, const float* dy, ptrdiff_t dy_row, float* gradient,
                 ptrdiff_t g_row, bool first) {
  v8 acc[O][X];
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) acc[o][x] = first ? splat(0.0f) : load(gradient + o * g_row + 8 * x);
  for (int s = 0; s < n; ++s, dy += dy_row) {
    const float* p = samples[s] + i0;
    v8 in[X];
    for (int x = 0; x < X; ++x) in[x] = load(p + 8 * x);
    for (int o = 0; o < O; ++o) {
      v8 value = splat(dy[o]);
      for (int x = 0; x < X; ++x) acc[o][x] = fma(value, in[x], acc[o][x]);
    }
  }
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) store(gradient + o * g_row + 8 * x, acc[o][x]);
}

// ── tables of blocks, and the cut into blocks ────────────────────────────────────────

using ContractBlock = void (*)(const Contract&, const v8*, const float*, const float*, v8*);
using CorrelateBlock = void (*)(const Correlate&, const v8*, const v8*, int, int, v8*);
using RowsBlock = void (*)(const float* const*, int64_t, const float*, ptrdiff_t, const float*, float*, ptrdiff_t);
using OuterBlock = void (*)(const float* const*, int, ptrdiff_t, const float*, ptrdiff_t, float*, ptrdiff_t, bool);

constexpr bool fits(int o, int x) { return o * x <= WZ_ACCUMULATORS; }

template <int O, int X> constexpr ContractBlock contract_entry() {
  if constexpr (fits(O, X)) return &contract_block<O, X>;
  return nullptr;
}
template <int O, int X> constexpr CorrelateBlock correlate_entry() {
  if constexpr (fits(O, X)) return &correlate_block<O, X>;
  return nullptr;
}
template <int O, int X> constexpr RowsBlock rows_entry() {
  if constexpr (fits(O, X)) return &rows_block<O, X>;
  return nullptr;
}
template <int O, int X> constexpr OuterBlock outer_entry() {
  if constexpr (fits(O, X)) return &outer_block<O, X>;
  return nullptr;
}

#define WZ_ROW(entry, o) {entry<o, 1>(), entry<o, 2>(), entry<o, 3>(), entry<o, 4>(), entry<o, 5>(), entry<o, 6>()}
#define WZ_TABLE(entry)                                                                                          \
  {WZ_ROW(entry, 1), WZ_ROW(entry, 2), WZ_ROW(entry, 3), WZ_ROW(entry, 4), WZ_ROW(entry, 5), WZ_ROW(entry, 6),   \
   WZ_ROW(entry, 7), WZ_ROW(entry, 8), WZ_ROW(entry, 9), WZ_ROW(entry, 10), WZ_ROW(entry, 11), WZ_ROW(entry, 12)}

const ContractBlock CONTRACT[MAX_O][MAX_X] = WZ_TABLE(contract_entry);
const CorrelateBlock CORRELATE[MAX_O][MAX_X] = WZ_TABLE(correlate_entry);
const RowsBlock ROWS[MAX_O][MAX_X] = WZ_TABLE(rows_entry);
const OuterBlock OUTER[MAX_O][MAX_X] = WZ_TABLE(outer_entry);

struct Span {
  int start, size;
};

inline std::vector<Span> even_spans(int n, int largest) {
  int parts = (n + largest - 1) / largest;
  std::vector<Span> spans;
  for (int k = 0, at = 0; k < parts; ++k) {
    int size = (n - at + parts - k - 1) / (parts - k);
    spans.push_back({at, size});
    at += size;
  }
  return spans;
}

struct Cut {
  std::vector<Span> o, x;
};

// The cheapest even cut of n_o × n_x by a model of two loads and two multiply-adds a cycle,
// with a latency of four cycles where a block is too small to hide it.
inline Cut cut(int n_o, int n_x) {
  Cut best;
  double best_cost = 1e300;
  for (int big_o = 1; big_o <= MAX_O; ++big_o)
    for (int big_x = 1; big_x <= MAX_X; ++big_x) {
      if (!fits(big_o, big_x)) continue;
      Cut c{even_spans(n_o, big_o), even_spans(n_x, big_x)};
      double cost = 0;
      for (const Span& o : c.o)
        for (const Span& x : c.x)
          cost += std::max({o.size * x.size * 0.5, (o.size + x.size + 1) * 0.5, 4.0}) + 0.3;
      if (cost < best_cost) best_cost = cost, best = c;
    }
  return best;
}

}  // namespace
