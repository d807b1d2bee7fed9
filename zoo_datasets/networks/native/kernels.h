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

// What becomes of a sum: it is stored, or its ReLU is, or it goes back through a ReLU whose output it replaces.
enum class Finish { Store, Relu, Gate };

struct Contract {
  const int32_t *taps, *end;      // offsets into src of the first taps of runs, in bytes; at least one
  ptrdiff_t src_x, dst_o, dst_x;  // steps in bytes
};

// Some neighbouring x: where they read and write (bytes), how long a run of taps is there (bytes, at
// least one v8), and which weights meet them: the first tap's, and how many are left out between runs.
struct Cell {
  ptrdiff_t src, dst, run, first, skip;
};

// acc[o][x] += a(o) · b(x): the fewer operands stay in registers, the others pass through one.
template <int O, int X, class A, class B>
WZ_INLINE void accumulate(v8 (&acc)[O][X], A a, B b) {
  if constexpr (O >= X) {
    v8 in[X];
    for (int x = 0; x < X; ++x) in[x] = in_register(b(x));
    for (int o = 0; o < O; ++o) {
      const v8 one = in_register(a(o));
      for (int x = 0; x < X; ++x) acc[o][x] = fma_into(acc[o][x], one, in[x]);
    }
  } else {
    v8 in[O];
    for (int o = 0; o < O; ++o) in[o] = in_register(a(o));
    for (int x = 0; x < X; ++x) {
      const v8 one = in_register(b(x));
      for (int o = 0; o < O; ++o) acc[o][x] = fma_into(acc[o][x], in[o], one);
    }
  }
}

// Taps come in runs that lie one v8 after another, as in a row of a convolution's kernel.
template <int O, int X, bool DENSE, Finish FINISH>
void contract_block(const Contract& c, const Cell* cell, const Cell* last_cell, const v8* src, const float* weights,
                    const float* bias, v8* target) {
  const ptrdiff_t step = DENSE ? (ptrdiff_t)sizeof(v8) : c.src_x;
  do {  // at least one, here and below: no test before a loop, so nothing is spilled around it
    v8 acc[O][X];
    for (int o = 0; o < O; ++o)
      for (int x = 0; x < X; ++x) acc[o][x] = splat(bias[o]);
    const char* const from = reinterpret_cast<const char*>(src) + cell->src;
    const float* w = weights + cell->first * O;
    const ptrdiff_t run = cell->run, skip = cell->skip * O;
    const int32_t *tap = c.taps, *const end = c.end;
    do {
      const char* s = from + *tap;
      const char* const last = s + run;
      do {
        accumulate<O, X>(acc, [&](int o) { return splat(w[o]); },
                         [&](int x) { return *reinterpret_cast<const v8*>(s + x * step); });
        w += O, s = opaque(s + sizeof(v8));
      } while (s != last);
      w += skip;
    } while (++tap != end);
    char* dst = reinterpret_cast<char*>(target) + cell->dst;
    const ptrdiff_t dst_o = c.dst_o, dst_x = c.dst_x;
    for (int o = 0; o < O; ++o, dst += dst_o) {
      char* to = dst;
      for (int x = 0; x < X; ++x, to += dst_x) {
        v8& t = *reinterpret_cast<v8*>(to);
        t = FINISH == Finish::Store ? acc[o][x] : FINISH == Finish::Relu ? relu(acc[o][x]) : gated(t, acc[o][x]);
      }
    }
  } while (++cell != last_cell);
}

// ── correlate ────────────────────────────────────────────────────────────────────────

struct Place {
  int32_t y, x;  // where one position of the output is in dY, and its window in X, in bytes
};

struct Correlate {
  const int32_t* taps;  // offsets into x, in bytes, of the first block's taps
  ptrdiff_t y_plane;    // in bytes
  const Place *place, *end;  // at least one position
  bool first, last;     // whether no positions came before, and none come after
};

// Positions come as a list, so that short rows cost no inner loop. A block's sums lie together, and
// `n` blocks after one another: the same outputs, the next taps. Until the last position they are
// kept in `part`; then they are added to `sums`: short chains of additions round less than one long one.
template <int O, int T>
void correlate_block(const Correlate& c, const v8* y, const v8* x, v8* part, v8* sums, int n) {
  const char* const plane = reinterpret_cast<const char*>(y);
  const int32_t* taps = c.taps;
  const ptrdiff_t y_plane = c.y_plane;
  do {
    v8 acc[O][T];
    for (int o = 0; o < O; ++o)
      for (int t = 0; t < T; ++t) acc[o][t] = c.first ? splat(0.0f) : part[o * T + t];
    const char* at[T];
    for (int t = 0; t < T; ++t) at[t] = reinterpret_cast<const char*>(x) + taps[t];
    const Place *place = c.place, *const end = c.end;
    do {
      const char* from = plane + place->y;
      const ptrdiff_t window = place->x;
      accumulate<O, T>(acc, [&](int o) { return *reinterpret_cast<const v8*>(from + o * y_plane); },
                       [&](int t) { return *reinterpret_cast<const v8*>(at[t] + window); });
    } while (++place != end);
    if (c.last)
      for (int o = 0; o < O; ++o)
        for (int t = 0; t < T; ++t) sums[o * T + t] = sums[o * T + t] + acc[o][t];
    else
      for (int o = 0; o < O; ++o)
        for (int t = 0; t < T; ++t) part[o * T + t] = acc[o][t];
    taps += T, part += O * T, sums += O * T;
  } while (--n);
}

// ── rows ─────────────────────────────────────────────────────────────────────────────

// One chain of additions this long, then into the sum: over 784 inputs at once the distance of an
// MLP to float64 after 200 steps is 1.3 times that of PyTorch, in parts of 64 it is 1.05 times.
constexpr int64_t INPUTS_AT_ONCE = 64;

// S samples × 8X outputs. w is [i][o] with rows of `w_row` floats, so is bias; y is [s][o].
template <int S, int X>
void rows_block(const float* const* samples, int64_t n, const float* w, ptrdiff_t w_row, const float* bias, float* y,
                ptrdiff_t y_row) {
  const float* p[S];
  for (int s = 0; s < S; ++s) {
    p[s] = samples[s];
    for (int x = 0; x < X; ++x) store(y + s * y_row + 8 * x, load(bias + 8 * x));
  }
  for (int64_t i = 0; i < n;) {
    v8 acc[S][X];
    for (int s = 0; s < S; ++s)
      for (int x = 0; x < X; ++x) acc[s][x] = splat(0.0f);
    const int64_t end = std::min(n, i + INPUTS_AT_ONCE);
    for (; i < end; ++i, w += w_row)
      accumulate<S, X>(acc, [&](int s) { return splat(p[s][i]); }, [&](int x) { return load(w + 8 * x); });
    for (int s = 0; s < S; ++s)
      for (int x = 0; x < X; ++x) store(y + s * y_row + 8 * x, load(y + s * y_row + 8 * x) + acc[s][x]);
  }
}

// ── outer ────────────────────────────────────────────────────────────────────────────

// O outputs × 8X inputs over n samples; dy is [s][o] with rows of `dy_row`; G has rows of `g_row`.
template <int O, int X>
void outer_block(const float* const* samples, int n, ptrdiff_t i0, const float* dy, ptrdiff_t dy_row, float* gradient,
                 ptrdiff_t g_row, bool first) {
  v8 acc[O][X];
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) acc[o][x] = splat(0.0f);
  for (int s = 0; s < n; ++s, dy += dy_row) {
    const float* p = samples[s] + i0;
    accumulate<O, X>(acc, [&](int o) { return splat(dy[o]); }, [&](int x) { return load(p + 8 * x); });
  }
  for (int o = 0; o < O; ++o)
    for (int x = 0; x < X; ++x) {
      float* const to = gradient + o * g_row + 8 * x;
      store(to, first ? acc[o][x] : load(to) + acc[o][x]);
    }
}

// ── tables of blocks, and the cut into blocks ────────────────────────────────────────

using ContractBlock = void (*)(const Contract&, const Cell*, const Cell*, const v8*, const float*, const float*, v8*);
using CorrelateBlock = void (*)(const Correlate&, const v8*, const v8*, v8*, v8*, int);
using RowsBlock = void (*)(const float* const*, int64_t, const float*, ptrdiff_t, const float*, float*, ptrdiff_t);
using OuterBlock = void (*)(const float* const*, int, ptrdiff_t, const float*, ptrdiff_t, float*, ptrdiff_t, bool);

constexpr bool fits(int o, int x) { return o * x <= WZ_ACCUMULATORS; }

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

template <int O, int X, bool DENSE, Finish FINISH> constexpr ContractBlock contract_entry() {
  if constexpr (fits(O, X)) return &contract_block<O, X, DENSE, FINISH>;
  return nullptr;
}
template <int O, int X> constexpr ContractBlock spread_store() { return contract_entry<O, X, false, Finish::Store>(); }
template <int O, int X> constexpr ContractBlock spread_relu() { return contract_entry<O, X, false, Finish::Relu>(); }
template <int O, int X> constexpr ContractBlock dense_store() { return contract_entry<O, X, true, Finish::Store>(); }
template <int O, int X> constexpr ContractBlock dense_relu() { return contract_entry<O, X, true, Finish::Relu>(); }
template <int O, int X> constexpr ContractBlock dense_gate() { return contract_entry<O, X, true, Finish::Gate>(); }

// By [src_x is one v8] and what becomes of the sums; a gradient reads neighbours, so none is spread and gated.
using ContractTable = ContractBlock[MAX_O][MAX_X];
const ContractTable CONTRACT[2][3] = {{WZ_TABLE(spread_store), WZ_TABLE(spread_relu)},
                                      {WZ_TABLE(dense_store), WZ_TABLE(dense_relu), WZ_TABLE(dense_gate)}};
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

constexpr double CALL_CYCLES = 15;

struct Cut {
  std::vector<Span> o, x;
};

// The cheapest even cut of n_o × n_x, where a block's loop takes `steps(span of x)` rounds: by a
// model of two loads and two multiply-adds a cycle, a latency of four cycles where a block is
// too small to hide it, and what a call costs beside its loop.
template <class Steps>
Cut cut(int n_o, int n_x, Steps steps) {
  Cut best;
  double best_cost = 1e300;
  for (int big_o = 1; big_o <= MAX_O; ++big_o)
    for (int big_x = 1; big_x <= MAX_X; ++big_x) {
      if (!fits(big_o, big_x)) continue;
      Cut c{even_spans(n_o, big_o), even_spans(n_x, big_x)};
      double cost = 0;
      for (const Span& o : c.o)
        for (const Span& x : c.x)
          cost += steps(x) * (std::max({o.size * x.size * 0.5, (o.size + x.size + 1) * 0.5, 4.0}) + 0.05 * (o.size + x.size) + 0.3) +
                  CALL_CYCLES + o.size * x.size;
      if (cost < best_cost) best_cost = cost, best = c;
    }
  return best;
}
inline Cut cut(int n_o, int n_x, int steps) {
  return cut(n_o, n_x, [=](const Span&) { return (double)steps; });
}

}  // namespace
