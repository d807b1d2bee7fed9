// Activations, dropout, convolutions and linear layers for one block: eight samples, one per lane.
//
// Activations lie as [channel][row][column] of v8. A buffer may carry a halo of zeros that
// a padded convolution (or the gradient of one) reads; nobody writes there.
#pragma once

#include "kernels.h"
#include "vector_math.h"
#include "plan.h"

namespace {

using wz::Op;
using wz::Shape;

struct Geometry {
  int c = 0, h = 0, w = 0, halo = 0, halo_rows = 0;
  ptrdiff_t row = 0, plane = 0, origin = 0, size = 0;  // in v8; origin: the first value inside the halo
  Geometry() = default;
  Geometry(Shape s, int halo_) : Geometry(s, halo_, halo_) {}
  Geometry(Shape s, int halo_, int halo_rows_) : c(s.c), h(s.h), w(s.w), halo(halo_), halo_rows(halo_rows_) {
    row = w + 2 * halo, plane = (h + 2 * halo_rows) * row, origin = halo_rows * row + halo, size = c * plane;
  }
  bool contiguous() const { return !halo && !halo_rows; }
  Geometry one_row(int r) const {
    Geometry g = *this;
    g.origin += r * row, g.h = 1;
    return g;
  }
};

// f(offset in a, offset in b, values) for every run that is contiguous in both.
template <class F>
void over_runs(const Geometry& a, const Geometry& b, F f) {
  if (a.contiguous() && b.contiguous()) return f((ptrdiff_t)0, (ptrdiff_t)0, (int)a.size);
  for (int c = 0; c < a.c; ++c)
    for (int h = 0; h < a.h; ++h) f(a.origin + c * a.plane + h * a.row, b.origin + c * b.plane + h * b.row, a.w);
}

// ── activations ──────────────────────────────────────────────────────────────────────

template <class F>
void map_runs(const Geometry& from, const v8* x, const Geometry& to, v8* y, F f) {
  over_runs(from, to, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) y[b + i] = f(x[a + i]);
  });
}

// Over the channels of each place.
inline void softmax(const Geometry& from, const v8* x, const Geometry& to, v8* y) {
  for (int h = 0; h < from.h; ++h)
    for (int w = 0; w < from.w; ++w) {
      const v8* a = x + from.origin + h * from.row + w;
      v8* b = y + to.origin + h * to.row + w;
      v8 top = a[0], sum = splat(0.0f);
      for (int c = 1; c < from.c; ++c) top = select((a[c * from.plane] > top) | (a[c * from.plane] != a[c * from.plane]), a[c * from.plane], top);
      for (int c = 0; c < from.c; ++c) {
        const v8 e = exp(a[c * from.plane] - top);
        sum = sum + e, b[c * to.plane] = e;
      }
      for (int c = 0; c < from.c; ++c) b[c * to.plane] = b[c * to.plane] / sum;
    }
}

inline void softmax_backward(const Geometry& gy, const v8* y, const Geometry& gd, const v8* dy, v8* dx) {
  for (int h = 0; h < gy.h; ++h)
    for (int w = 0; w < gy.w; ++w) {
      const v8* a = y + gy.origin + h * gy.row + w;
      const ptrdiff_t at = gd.origin + h * gd.row + w;
      v8 dot = splat(0.0f);
      for (int c = 0; c < gy.c; ++c) dot = fma(a[c * gy.plane], dy[at + c * gd.plane], dot);
      for (int c = 0; c < gy.c; ++c) dx[at + c * gd.plane] = a[c * gy.plane] * (dy[at + c * gd.plane] - dot);
    }
}

inline void activate(Op op, float slope, const Geometry& from, const v8* x, const Geometry& to, v8* y) {
  const v8 zero = splat(0.0f), leak = splat(slope);
  switch (op) {
    case Op::Relu: return map_runs(from, x, to, y, [](v8 a) { return relu(a); });
    case Op::LeakyRelu: return map_runs(from, x, to, y, [=](v8 a) { return select(a > zero, a, leak * a); });
    case Op::Softmax: return softmax(from, x, to, y);
    case Op::Tanh: return map_runs(from, x, to, y, [](v8 a) { return tanh(a); });
    case Op::Sigmoid: return map_runs(from, x, to, y, [](v8 a) { return sigmoid(a); });
    case Op::Silu: return map_runs(from, x, to, y, [](v8 a) { return a * sigmoid(a); });
    case Op::Elu: return map_runs(from, x, to, y, [=](v8 a) { return select(a > zero, a, expm1_negative(select(a > zero, zero, a))); });
    default: return map_runs(from, x, to, y, [](v8 a) { return a * normal_cdf(a); });
  }
}

// dx = dy · f'(x) from the input x or the output y, whichever is cheaper. dx may be dy itself.
template <class F>
void slope_runs(const Geometry& values, const v8* v, const Geometry& gradient, const v8* dy, v8* dx, F f) {
  over_runs(values, gradient, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) dx[b + i] = f(v[a + i], dy[b + i]);
  });
}

// The way back through a ReLU whose output y is replaced by the gradient.
inline void gate(const Geometry& gy, v8* y, const Geometry& gd, const v8* dy) {
  over_runs(gy, gd, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) y[a + i] = gated(y[a + i], dy[b + i]);
  });
}

inline void activate_backward(Op op, float slope, const Geometry& gx, const v8* x, const Geometry& gy, const v8* y,
                              const Geometry& gd, const v8* dy, v8* dx) {
  const v8 zero = splat(0.0f), one = splat(1.0f), leak = splat(slope);
  switch (op) {
    case Op::Relu: return slope_runs(gy, y, gd, dy, dx, [](v8 a, v8 d) { return gated(a, d); });
    case Op::LeakyRelu: return slope_runs(gy, y, gd, dy, dx, [=](v8 a, v8 d) { return select(a > zero, d, leak * d); });
    case Op::Softmax: return softmax_backward(gy, y, gd, dy, dx);
    case Op::Tanh: return slope_runs(gy, y, gd, dy, dx, [=](v8 a, v8 d) { return d * fma(-a, a, one); });
    case Op::Sigmoid: return slope_runs(gy, y, gd, dy, dx, [=](v8 a, v8 d) { return d * (a * (one - a)); });
    case Op::Elu: return slope_runs(gy, y, gd, dy, dx, [=](v8 a, v8 d) { return select(a > zero, d, d * (a + one)); });
    case Op::Silu:
      return slope_runs(gx, x, gd, dy, dx, [=](v8 a, v8 d) {
        v8 s = sigmoid(a);
        return d * (s * fma(a, one - s, one));
      });
    default:
      return slope_runs(gx, x, gd, dy, dx, [=](v8 a, v8 d) { return d * fma(a, normal_pdf(a), normal_cdf(a)); });
  }
}

// ── residual adds ────────────────────────────────────────────────────────────────────

// y = x + z.
inline void add(const Geometry& gx, const v8* x, const Geometry& gz, const v8* z, const Geometry& gy, v8* y) {
  const auto run = [](const v8* a, const v8* b, v8* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = a[i] + b[i];
  };
  if (gx.contiguous() && gz.contiguous() && gy.contiguous()) return run(x, z, y, gy.size);
  for (int c = 0; c < gy.c; ++c)
    for (int h = 0; h < gy.h; ++h)
      run(x + gx.origin + c * gx.plane + h * gx.row, z + gz.origin + c * gz.plane + h * gz.row,
          y + gy.origin + c * gy.plane + h * gy.row, gy.w);
}

// to += from.
inline void accumulate(const Geometry& gf, const v8* from, const Geometry& gt, v8* to) {
  over_runs(gf, gt, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) to[b + i] = to[b + i] + from[a + i];
  });
}

// ── dropout ──────────────────────────────────────────────────────────────────────────

// y = x · scale where the unit's bit for the lane is set, else 0; bits run without halo.
inline void apply_dropout(const Geometry& from, const v8* x, const Geometry& to, v8* y, const uint8_t* bits, float scale) {
  const v8 factor = splat(scale);
  over_runs(from, to, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) y[b + i] = keep(lane_mask(*bits++), factor) * x[a + i];
  });
}

// ── contractions: convolution and linear layers ──────────────────────────────────────

// From `first` on, `count` of them.
struct Range {
  int first = 0, count = 0;
};

// Which of `n` taps, tap k of position x reading place `start + k + step · x` of `size`, meet a
// place for some position in `x`.
inline Range met(int n, int start, int step, Span x, int size) {
  const int first = std::max(0, -(start + step * (x.start + x.size - 1)));
  const int end = std::min(n, size - (start + step * x.start));
  return {std::min(first, n), std::max(0, end - first)};
}

struct Group {
  int cells, width;
};

// One use of the `contract` kernel over a grid of rows, with its weights packed block by block.
// Taps go by kernel row, channel, kernel column. Those that meet only the halo are left out:
// whole kernel rows for a row of the output, kernel columns for a span of it.
struct Contraction {
  std::vector<int32_t> taps, weight_at;  // offset in the source (bytes) of each run; of w[o = 0] (floats) of each tap
  std::vector<Range> row_taps;           // runs for each row of the output
  std::vector<Cell> cells;               // of each span of x that any tap meets
  std::vector<Group> groups;             // of neighbouring cells as wide as each other
  std::vector<Span> untouched;           // spans of x that no tap meets
  ptrdiff_t weight_o = 0;                // from one output's weight to the next's
  int n_o = 0, n_x = 0, rows = 1, run_taps = 1;
  int reach = 0;  // columns of the halo that are read, on either side
  ptrdiff_t src_origin = 0, src_row = 0, src_x = 0, dst_origin = 0, dst_row = 0, dst_x = 0, dst_o = 0;
  Finish finish = Finish::Store;
  Cut blocks;

  size_t packed_size() const { return weight_at.size() * (size_t)n_o; }

  void pack(const float* w, float* packed) const {
    for (const Span& o : blocks.o)
      for (int32_t at : weight_at) {
        const float* from = w + at + o.start * weight_o;
        for (int k = 0; k < o.size; ++k) *packed++ = from[k * weight_o];
      }
  }

  void run(const v8* src, const float* packed, const float* bias, v8* dst) const {
    for (int r = 0; r < rows; ++r) row(r, src, packed, bias, dst + r * dst_row);
  }

  // Row r, written where row 0 would be in `dst`.
  void row(int r, const v8* src, const float* packed, const float* bias, v8* dst) const {
    constexpr ptrdiff_t B = sizeof(v8);
    const ContractTable& table = CONTRACT[src_x == 1][(int)finish];
    static const float zeros[MAX_O] = {};
    const v8* s = src + src_origin + r * src_row;
    v8* d = dst + dst_origin;
    const Range of_row = row_taps[(size_t)r];
    // Where a stride exceeds the kernel there are values no tap meets: their gradient is 0.
    if (!of_row.count) return fill_values(d, n_x, bias);
    for (const Span& x : untouched) fill_values(d + x.start * dst_x, x.size, bias);
    const Contract c{taps.data() + of_row.first, taps.data() + of_row.first + of_row.count, src_x * B, dst_o * B, dst_x * B};
    for (const Span& o : blocks.o) {
      const float* weights = packed + (size_t)o.start * weight_at.size() + (size_t)of_row.first * (size_t)run_taps * (size_t)o.size;
      const Cell* cell = cells.data();
      for (const Group& g : groups) {
        table[o.size - 1][g.width - 1](c, cell, cell + g.cells, s, weights, bias ? bias + o.start : zeros, d + o.start * dst_o);
        cell += g.cells;
      }
    }
  }

  void fill_values(v8* d, int n, const float* bias) const {
    for (int o = 0; o < n_o; ++o)
      for (int i = 0; i < n; ++i) {
        const v8 value = splat(bias ? bias[o] : 0.0f);
        d[o * dst_o + i * dst_x] = finish == Finish::Relu ? relu(value) : value;
      }
  }

  // Cells of the spans of x, taps `meets(span)` of each run.
  template <class Meets>
  void set_cells(Meets meets) {
    constexpr ptrdiff_t B = sizeof(v8);
    cells.clear(), groups.clear(), untouched.clear();
    for (const Span& x : blocks.x) {
      const Range taps_met = meets(x);
      if (!taps_met.count) {
        untouched.push_back(x);
        continue;
      }
      cells.push_back({(x.start * src_x + taps_met.first) * B, x.start * dst_x * B, taps_met.count * B, taps_met.first, run_taps - taps_met.count});
      if (groups.empty() || groups.back().width != x.size) groups.push_back({0, x.size});
      ++groups.back().cells;
    }
  }
};

// The cut, and with it which taps a span meets: tap k of position x reads column `start + k + src_x · x` of `width`.
inline void cut_columns(Contraction& c, int start, int width) {
  const auto meets = [&](const Span& x) { return met(c.run_taps, start, (int)c.src_x, x, width); };
  double runs = 0;
  for (const Range& r : c.row_taps) runs += r.count;
  runs /= std::max(1, c.rows);
  c.blocks = cut(c.n_o, c.n_x, [&](const Span& x) { return runs * meets(x).count; });
  c.set_cells(meets);
  for (const Span& x : c.blocks.x) {
    const Range taps_met = meets(x);
    const int low = start + x.start * (int)c.src_x + taps_met.first, high = low + taps_met.count - 1 + (x.size - 1) * (int)c.src_x;
    if (taps_met.count) c.reach = std::max({c.reach, -low, high - (width - 1)});
  }
}

inline Contraction convolution(const wz::Layer& l, const Geometry& in, const Geometry& out) {
  Contraction c;
  const int k = l.kernel;
  for (int a = 0; a < k; ++a)
    for (int ic = 0; ic < l.in.c; ++ic) {
      c.taps.push_back((int32_t)(sizeof(v8) * (ic * in.plane + a * in.row)));
      for (int b = 0; b < k; ++b) c.weight_at.push_back((ic * k + a) * k + b);
    }
  for (int r = 0; r < l.out.h; ++r) {
    const Range rows = met(k, -l.pad, l.stride, {r, 1}, l.in.h);
    c.row_taps.push_back({rows.first * l.in.c, rows.count * l.in.c});
  }
  c.weight_o = (ptrdiff_t)c.weight_at.size();
  c.n_o = l.out.c, c.n_x = l.out.w, c.rows = l.out.h, c.run_taps = k;
  c.src_origin = in.origin - l.pad * (in.row + 1), c.src_row = l.stride * in.row, c.src_x = l.stride;
  c.dst_origin = out.origin, c.dst_row = out.row, c.dst_x = 1, c.dst_o = out.plane;
  cut_columns(c, -l.pad, l.in.w);
  return c;
}

// The gradient towards the input, one contraction for each residue of row and column by the
// stride: there the taps that meet a value are the same, and dY is read at consecutive places.
inline std::vector<Contraction> convolution_backward(const wz::Layer& l, const Geometry& dy, const Geometry& dx) {
  std::vector<Contraction> phases;
  const int s = l.stride, k = l.kernel;
  // Taps of a residue, in falling order so that dY is read upwards: how many, the last, and what it reads at position 0.
  struct Taps {
    int count, last, start;
  };
  const auto of_residue = [&](int a) {
    const int first = (a + l.pad) % s, count = first < k ? (k - 1 - first) / s + 1 : 0, last = first + (count - 1) * s;
    return Taps{count, last, (a + l.pad - last) / s};
  };
  for (int a = 0; a < s && a < l.in.h; ++a)
    for (int b = 0; b < s && b < l.in.w; ++b) {
      Contraction c;
      const Taps in_rows = of_residue(a), in_columns = of_residue(b);
      if (in_columns.count)
        for (int i = 0; i < in_rows.count; ++i)
          for (int oc = 0; oc < l.out.c; ++oc) {
            c.taps.push_back((int32_t)((ptrdiff_t)sizeof(v8) *
                                       (oc * dy.plane + (in_rows.start + i) * dy.row + in_columns.start)));
            for (int j = 0; j < in_columns.count; ++j)
              c.weight_at.push_back((oc * l.in.c * k + in_rows.last - i * s) * k + in_columns.last - j * s);
          }
      c.n_o = l.in.c, c.n_x = (l.in.w - b + s - 1) / s, c.rows = (l.in.h - a + s - 1) / s, c.run_taps = in_columns.count;
      for (int r = 0; r < c.rows; ++r) {
        const Range rows = met(in_columns.count ? in_rows.count : 0, in_rows.start, 1, {r, 1}, l.out.h);
        c.row_taps.push_back({rows.first * l.out.c, rows.count * l.out.c});
      }
      c.weight_o = k * k;
      c.src_origin = dy.origin, c.src_row = dy.row, c.src_x = 1;
      c.dst_origin = dx.origin + a * dx.row + b, c.dst_row = s * dx.row, c.dst_x = s, c.dst_o = dx.plane;
      cut_columns(c, in_columns.start, l.out.w);
      phases.push_back(c);
    }
  return phases;
}

// The halo in which a gradient has every place that a tap meets.
inline int gradient_halo(const wz::Layer& l) {
  auto reach = [&](int in, int out) {
    int low = (l.kernel - 1 - l.pad + l.stride - 1) / l.stride;  // −(smallest index)
    int high = (in - 1 + l.pad) / l.stride - (out - 1);
    return std::max({low, high, 0});
  };
  return std::max(reach(l.in.h, l.out.h), reach(l.in.w, l.out.w));
}

// The columns of it that `convolution_backward` reads. It reads none of the rows.
inline int gradient_columns(const wz::Layer& l) {
  int reach = 0;
  for (const Contraction& c : convolution_backward(l, Geometry(l.out, 0), Geometry(l.in, 0))) reach = std::max(reach, c.reach);
  return reach;
}

inline Contraction linear(const wz::Layer& l, bool backward, const Geometry& src, const Geometry& dst, int blocks) {
  Contraction c;
  const int n_in = (int)l.in.units(), n_out = l.out.c;
  const int n_taps = backward ? n_out : n_in;
  c.taps = {0};  // one run
  for (int t = 0; t < n_taps; ++t) c.weight_at.push_back(backward ? t * n_in : t);
  c.weight_o = backward ? 1 : n_in;
  c.run_taps = n_taps, c.row_taps = {{0, 1}};
  c.n_o = backward ? n_in : n_out, c.n_x = blocks;
  c.src_x = src.size, c.dst_x = dst.size, c.dst_o = 1;
  c.blocks = cut(c.n_o, c.n_x, n_taps);
  c.set_cells([=](const Span&) { return Range{0, n_taps}; });
  return c;
}

}  // namespace
