// Recurrent layers and what gives sequences another shape, for one block: eight samples, one per lane.
//
// A sequence lies as [feature][step]: a shape of as many channels as features, one row, and a column a step. So a linear
// layer at each step is a convolution of one place, and so is what the inputs add to the gates of a recurrent layer.
// Only what the state adds goes step by step: gates[o] = b[o] + Σ_i w[o][i] · state[i], by `contract` on a dense state.
#pragma once

#include "buffer.h"
#include "weight_gradient.h"

namespace {

inline bool recurrent(Op op) { return op == Op::Gru || op == Op::Lstm; }

// ── recurrent layers ─────────────────────────────────────────────────────────────────

// Tensors in the flat vector: weights of the inputs [gates · units][features], of the state [gates · units][units], and two
// biases. Gates are PyTorch's: reset, update, new; input, forget, cell, output.
struct Recurrent {
  int gates = 0, units = 0, steps = 0, features = 0;
  Geometry planes;      // [gates · units][step]
  Contraction into, step, step_back;
  std::vector<Contraction> into_back;
  WeightGradient by_inputs, by_state;
  ptrdiff_t plane() const { return (ptrdiff_t)units * steps; }  // of one gate
  // What a block keeps from its way forward: the gates, the state before each step, and two planes more.
  ptrdiff_t saved_size() const { return (gates + 3) * plane(); }
  int rows() const { return gates * units; }
  int64_t state_at() const { return (int64_t)rows() * features; }
  int64_t bias_at() const { return state_at() + (int64_t)rows() * units; }
  int64_t size() const { return bias_at() + 2 * rows(); }

  void pack(const float* w, float* packed) const {
    into.pack(w, packed);
    step.pack(w + state_at(), packed + into.packed_size());
  }
  size_t packed_size() const { return into.packed_size() + step.packed_size(); }
};

inline int gates_of(Op op) { return op == Op::Gru ? 3 : 4; }
inline int64_t recurrent_params(const wz::Layer& l) {
  return (int64_t)gates_of(l.op) * l.out.c * ((int64_t)l.in.c + l.out.c + 2);
}

inline Recurrent recurrent_of(const wz::Layer& l, const Geometry& in) {
  Recurrent r;
  r.gates = gates_of(l.op), r.units = l.out.c, r.steps = l.out.w, r.features = l.in.c;
  const Shape all{r.rows(), 1, r.steps};
  wz::Layer inputs = l, state = l, one = l;
  inputs.op = state.op = Op::Conv, one.op = Op::Linear;
  inputs.kernel = state.kernel = inputs.stride = state.stride = 1, inputs.pad = state.pad = 0;
  inputs.out = state.out = all;
  state.in = {r.units, 1, r.steps};
  one.in = {r.units, 1, 1}, one.out = {r.rows(), 1, 1};
  r.planes = Geometry(all, 0);
  r.into = convolution(inputs, in, r.planes);
  r.step = linear(one, false, Geometry(one.in, 0), Geometry(one.out, 0), 1);
  r.step_back = linear(one, true, Geometry(one.out, 0), Geometry(one.in, 0), 1);
  r.by_inputs = weight_gradient(inputs, in, false);
  r.by_state = weight_gradient(state, Geometry(state.in, 0), false);
  // Both have their biases right behind their weights; here they stand behind all weights.
  const int32_t weights = (int32_t)r.state_at(), rows = (int32_t)r.rows();
  for (int32_t& to : r.by_inputs.unpacked)
    if (to >= weights) to += rows * r.units;
  for (int32_t& to : r.by_state.unpacked) to += weights + (to >= rows * r.units ? rows : 0);
  return r;
}

// Room for one block that nobody keeps.
struct Scratch {
  Buffer<v8> state, cell, sums, inputs, carried;
  void reserve(const Recurrent& r) {
    state.reserve((size_t)r.units), cell.reserve((size_t)r.units), sums.reserve((size_t)r.rows());
    carried.reserve((size_t)r.units);
    inputs.reserve(2 * (size_t)(r.rows() * r.steps));
  }
};

// x → y [units][step], and what the way back needs → saved.
inline void recurrent_forward(const Recurrent& r, Op op, const float* packed, const float* weights, const v8* x, v8* y, v8* saved,
                              Scratch& s) {
  const int n = r.units, T = r.steps;
  v8 *gate = saved, *before = saved + r.gates * r.plane(), *more = before + r.plane(), *last = more + r.plane();
  r.into.run(x, packed, weights + r.bias_at(), gate);
  const float *w = packed + r.into.packed_size(), *bias = weights + r.bias_at() + r.rows();
  v8 *state = s.state.data, *cell = s.cell.data, *sum = s.sums.data;
  for (int u = 0; u < n; ++u) state[u] = cell[u] = splat(0.0f);
  for (int t = 0; t < T; ++t) {
    r.step.run(state, w, bias, sum);
    for (int u = 0; u < n; ++u) {
      v8* g = gate + (ptrdiff_t)u * T + t;
      const ptrdiff_t at = (ptrdiff_t)u * T + t, p = r.plane();
      before[at] = state[u];
      if (op == Op::Gru) {
        const v8 reset = sigmoid(g[0] + sum[u]), update = sigmoid(g[p] + sum[n + u]), old = sum[2 * n + u];
        const v8 fresh = tanh(fma(reset, old, g[2 * p]));
        g[0] = reset, g[p] = update, g[2 * p] = fresh, more[at] = old;
        state[u] = fma(update, state[u] - fresh, fresh);
      } else {
        const v8 enter = sigmoid(g[0] + sum[u]), stay = sigmoid(g[p] + sum[n + u]);
        const v8 fresh = tanh(g[2 * p] + sum[2 * n + u]), out = sigmoid(g[3 * p] + sum[3 * n + u]);
        g[0] = enter, g[p] = stay, g[2 * p] = fresh, g[3 * p] = out, more[at] = cell[u];
        cell[u] = fma(enter, fresh, stay * cell[u]);
        last[at] = tanh(cell[u]);
        state[u] = out * last[at];
      }
      y[at] = state[u];
    }
  }
}

// dy → dx, where somebody wants it, and sums of the gradient by the weights.
inline void recurrent_backward(const Recurrent& r, Op op, const float* back, const v8* saved, const v8* x, const Geometry& gd,
                               const v8* dy, v8* dx, v8* part, v8* lanes_inputs, v8* lanes_state, Scratch& s) {
  const int n = r.units, T = r.steps;
  const ptrdiff_t p = r.plane();
  const v8 *gate = saved, *before = saved + r.gates * p, *more = before + p, *last = more + p;
  const v8 one = splat(1.0f);
  v8 *by_gate = s.inputs.data, *by_sum = op == Op::Gru ? by_gate + r.gates * p : by_gate;  // the same of an LSTM
  v8 *d_state = s.state.data, *d_cell = s.cell.data, *d_sum = s.sums.data, *carried = s.carried.data;
  for (int u = 0; u < n; ++u) d_state[u] = d_cell[u] = splat(0.0f);
  for (int t = T - 1; t >= 0; --t) {
    for (int u = 0; u < n; ++u) {
      const ptrdiff_t at = (ptrdiff_t)u * T + t;
      const v8* g = gate + at;
      v8 *to = by_gate + at, *to_sum = by_sum + at;
      const v8 d = dy[gd.origin + u * gd.plane + t] + d_state[u];
      if (op == Op::Gru) {
        const v8 reset = g[0], update = g[p], fresh = g[2 * p], old = more[at];
        const v8 d_fresh = (d * (one - update)) * fma(-fresh, fresh, one);
        const v8 d_update = (d * (before[at] - fresh)) * (update * (one - update));
        const v8 d_reset = (d_fresh * old) * (reset * (one - reset)), d_old = d_fresh * reset;
        to[0] = to_sum[0] = d_sum[u] = d_reset, to[p] = to_sum[p] = d_sum[n + u] = d_update;
        to[2 * p] = d_fresh, to_sum[2 * p] = d_sum[2 * n + u] = d_old;
        carried[u] = d * update;
      } else {
        const v8 enter = g[0], stay = g[p], fresh = g[2 * p], out = g[3 * p], shown = last[at];
        const v8 by_cell = fma(d * out, fma(-shown, shown, one), d_cell[u]);
        to[0] = d_sum[u] = (by_cell * fresh) * (enter * (one - enter));
        to[p] = d_sum[n + u] = (by_cell * more[at]) * (stay * (one - stay));
        to[2 * p] = d_sum[2 * n + u] = (by_cell * enter) * fma(-fresh, fresh, one);
        to[3 * p] = d_sum[3 * n + u] = (d * shown) * (out * (one - out));
        d_cell[u] = by_cell * stay;
      }
    }
    if (!t) break;
    r.step_back.run(d_sum, back, nullptr, d_state);
    if (op == Op::Gru)
      for (int u = 0; u < n; ++u) d_state[u] = d_state[u] + carried[u];
  }
  for (const Span& strip : r.by_inputs.strips) r.by_inputs.add(strip, by_gate + strip.start * T, x, part, lanes_inputs);
  for (const Span& strip : r.by_state.strips) r.by_state.add(strip, by_sum + strip.start * T, before, part, lanes_state);
  size_t at = r.step_back.packed_size();
  if (dx)
    for (const Contraction& c : r.into_back) c.run(by_gate, back + at, nullptr, dx), at += c.packed_size();
}

// ── shapes ───────────────────────────────────────────────────────────────────────────

// f(place in the image, place in the sequence) for each value: rows of an image, or its tiles of `side`, are steps.
template <class F>
void over_steps(const wz::Layer& l, const Geometry& image, F f) {
  const int side = l.op == Op::Tiles ? l.kernel : 0, T = l.out.w;
  for (int c = 0; c < l.in.c; ++c)
    for (int h = 0; h < l.in.h; ++h)
      for (int w = 0; w < l.in.w; ++w) {
        const ptrdiff_t from = image.origin + c * image.plane + h * image.row + w;
        const int feature = side ? (c * side + h % side) * side + w % side : c * l.in.w + w;
        const int step = side ? h / side * (l.in.w / side) + w / side : h;
        f(from, (ptrdiff_t)feature * T + step);
      }
}

}  // namespace
