// Every layer forward and backward for one block: eight samples, one per lane.
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
  int c = 0, h = 0, w = 0, halo = 0;
  ptrdiff_t row = 0, plane = 0, origin = 0, size = 0;  // in v8; origin: the first value inside the halo
  Geometry() = default;
  Geometry(Shape s, int halo_) : c(s.c), h(s.h), w(s.w), halo(halo_) {
    row = w + 2 * halo, plane = (h + 2 * halo) * row, origin = halo * (row + 1), size = c * plane;
  }
};

// f(offset in a, offset in b, values) for every run that is contiguous in both.
template <class F>
void over_runs(const Geometry& a, const Geometry& b, F f) {
  if (!a.halo && !b.halo) return f((ptrdiff_t)0, (ptrdiff_t)0, (int)a.size);
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
    case Op::Relu: return map_runs(from, x, to, y, [=](v8 a) { return select(a <= zero, zero, a); });
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

inline void activate_backward(Op op, float slope, const Geometry& gx, const v8* x, const Geometry& gy, const v8* y,
                              const Geometry& gd, const v8* dy, v8* dx) {
  const v8 zero = splat(0.0f), one = splat(1.0f), leak = splat(slope);
  switch (op) {
    case Op::Relu: return slope_runs(gy, y, gd, dy, dx, [=](v8 a, v8 d) { return keep(a > zero, d); });
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

// ── dropout ──────────────────────────────────────────────────────────────────────────

// y = x · scale where the unit's bit for the lane is set, else 0; bits run without halo.
inline void apply_dropout(const Geometry& from, const v8* x, const Geometry& to, v8* y, const uint8_t* bits, float scale) {
  const v8i lane = {1, 2, 4, 8, 16, 32, 64, 128};
  const v8 factor = splat(scale);
  over_runs(from, to, [&](ptrdiff_t a, ptrdiff_t b, int n) {
    for (int i = 0; i < n; ++i) {
      v8i stays = (splat_int(*bits++) & lane) != 0;
      y[b + i] = keep(stays, factor) * x[a + i];
    }
  });
}

// ── pooling ──────────────────────────────────────────────────────────────────────────

// The largest of a window, NaN where it holds one. K = 0: size and stride at run time.
template <int K>
void max_pool(int kernel, int stride, const Geometry& gx, const v8* x, const Geometry& gy, v8* y) {
  if (K) kernel = stride = K;
  for (int c = 0; c < gy.c; ++c)
    for (int h = 0; h < gy.h; ++h) {
      const v8* from = x + gx.origin + c * gx.plane + (ptrdiff_t)h * stride * gx.row;
      v8* to = y + gy.origin + c * gy.plane + h * gy.row;
      for (int w = 0; w < gy.w; ++w, from += stride) {
        v8 best = from[0];
        for (int a = 0; a < kernel; ++a)
          for (int b = 0; b < kernel; ++b) {
            v8 v = from[a * gx.row + b];
            best = select((v > best) | (v != v), v, best);
          }
        to[w] = best;
      }
    }
}

// dx = dy at the first maximum of the window in row-major order (as PyTorch), 0 elsewhere.
// Where windows do not overlap, dx may be x itself.
template <int K>
void max_pool_backward(int kernel, int stride, const Geometry& gx, const v8* x, const Geometry& gy, const v8* y,
                       const Geometry& gd, const v8* dy, const Geometry& gdx, v8* dx) {
  if (K) kernel = stride = K;
  const bool apart = stride == kernel;
  if (!apart) over_runs(gdx, gdx, [&](ptrdiff_t a, ptrdiff_t, int n) { std::fill(dx + a, dx + a + n, splat(0.0f)); });
  for (int c = 0; c < gy.c; ++c)
    for (int h = 0; h < gy.h; ++h) {
      const v8* from = x + gx.origin + c * gx.plane + (ptrdiff_t)h * stride * gx.row;
      v8* to = dx + gdx.origin + c * gdx.plane + (ptrdiff_t)h * stride * gdx.row;
      const v8* best = y + gy.origin + c * gy.plane + h * gy.row;
      const v8* d = dy + gd.origin + c * gd.plane + h * gd.row;
      for (int w = 0; w < gy.w; ++w, from += stride, to += stride) {
        const v8 top = best[w];
        v8 rest = d[w];
        v8i open = splat_int(-1);
        for (int a = 0; a < kernel; ++a)
          for (int b = 0; b < kernel; ++b) {
            v8i here = (from[a * gx.row + b] == top) & open;
            open = open & ~here;
            v8* at = to + a * gdx.row + b;
            *at = apart ? keep(here, rest) : *at + keep(here, rest);
          }
      }
    }
  if (!apart) return;
  for (int c = 0; c < gdx.c; ++c)  // rows and columns that no window reaches
    for (int h = 0; h < gdx.h; ++h) {
      v8* row = dx + gdx.origin + c * gdx.plane + h * gdx.row;
      std::fill(row + (h < gy.h * stride ? gy.w * stride : 0), row + gdx.w, splat(0.0f));
    }
}

inline void average_pool(int kernel, int stride, const Geometry& gx, const v8* x, const Geometry& gy, v8* y) {
  const v8 share = splat(1.0f / (float)(kernel * kernel));
  for (int c = 0; c < gy.c; ++c)
    for (int h = 0; h < gy.h; ++h)
      for (int w = 0; w < gy.w; ++w) {
        const v8* from = x + gx.origin + c * gx.plane + (ptrdiff_t)h * stride * gx.row + (ptrdiff_t)w * stride;
        v8 sum = splat(0.0f);
        for (int a = 0; a < kernel; ++a)
          for (int b = 0; b < kernel; ++b) sum = sum + from[a * gx.row + b];
        y[gy.origin + c * gy.plane + h * gy.row + w] = sum * share;
      }
}

inline void average_pool_backward(int kernel, int stride, const Geometry& gd, const v8* dy, const Geometry& gdx, v8* dx) {
  const v8 share = splat(1.0f / (float)(kernel * kernel));
  over_runs(gdx, gdx, [&](ptrdiff_t a, ptrdiff_t, int n) { std::fill(dx + a, dx + a + n, splat(0.0f)); });
  for (int c = 0; c < gd.c; ++c)
    for (int h = 0; h < gd.h; ++h)
      for (int w = 0; w < gd.w; ++w) {
        v8 d = dy[gd.origin + c * gd.plane + h * gd.row + w] * share;
        v8* to = dx + gdx.origin + c * gdx.plane + (ptrdiff_t)h * stride * gdx.row + (ptrdiff_t)w * stride;
        for (int a = 0; a < kernel; ++a)
          for (int b = 0; b < kernel; ++b) to[a * gdx.row + b] = to[a * gdx.row + b] + d;
      }
}

inline void global_average(const Geometry& gx, const v8* x, v8* y) {
  const v8 share = splat(1.0f / (float)(gx.h * gx.w));
  for (int c = 0; c < gx.c; ++c) {
    v8 sum = splat(0.0f);
    for (int h = 0; h < gx.h; ++h)
      for (int w = 0; w < gx.w; ++w) sum = sum + x[gx.origin + c * gx.plane + h * gx.row + w];
    y[c] = sum * share;
  }
}

inline void global_average_backward(const v8* dy, const Geometry& gdx, v8* dx) {
  const v8 share = splat(1.0f / (float)(gdx.h * gdx.w));
  for (int c = 0; c < gdx.c; ++c) {
    v8 d = dy[c] * share;
    for (int h = 0; h < gdx.h; ++h)
      for (int w = 0; w < gdx.w; ++w) dx[gdx.origin + c * gdx.plane + h * gdx.row + w] = d;
  }
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

// One use of the `contract` kernel over a grid of rows, with its weights packed block by block.
// Taps go by kernel row, channel, kernel column. Those that meet only the halo are left out:
// whole kernel rows for a row of the output, kernel columns for a span of it.
struct Contraction {
  std::vector<int32_t> taps, weight_at;  // offset in the source (bytes) of each run; of w[o = 0] (floats) of each tap
  std::vector<Range> row_taps;           // runs for each row of the output
  std::vector<Range> span_taps;          // within a run, for each span of x
  ptrdiff_t weight_o = 0;                // from one output's weight to the next's
  int n_o = 0, n_x = 0, rows = 1, run_taps = 1;
  ptrdiff_t src_origin = 0, src_row = 0, src_x = 0, dst_origin = 0, dst_row = 0, dst_x = 0, dst_o = 0;
  Cut blocks;

  size_t packed_size() const { return weight_at.size() * (size_t)n_o; }

  void pack(const float* w, float* packed) const {
    for (const Span& o : blocks.o)
      for (int32_t at : weight_at) {
        const float* from = w + at + o.start * weight_o;
        for (int k = 0; k < o.size; ++k) *packed++ = from[k * weight_o];
      }
  }

  // Where a stride exceeds the kernel there are values no tap meets: their gradient is 0.
  void run(const v8* src, const float* packed, const float* bias, v8* dst) const {
    constexpr ptrdiff_t B = sizeof(v8);
    const auto& table = CONTRACT[src_x == 1];
    static const float zeros[MAX_O] = {};
    for (int r = 0; r < rows; ++r) {
      const v8* s = src + src_origin + r * src_row;
      v8* d = dst + dst_origin + r * dst_row;
      const Range of_row = row_taps[(size_t)r];
      for (size_t k = 0; k < blocks.x.size(); ++k) {
        const Span& x = blocks.x[k];
        const Range in_run = span_taps[k];
        if (!of_row.count || !in_run.count) {
          for (int o = 0; o < n_o; ++o)
            fill_values(d + o * dst_o + x.start * dst_x, x.size, bias ? bias[o] : 0.0f);
          continue;
        }
        const Contract c{taps.data() + of_row.first, of_row.count, in_run.count * B, run_taps - in_run.count,
                         src_x * B, dst_o * B, dst_x * B};
        const size_t first = (size_t)of_row.first * (size_t)run_taps + (size_t)in_run.first;
        for (const Span& o : blocks.o)
          table[o.size - 1][x.size - 1](c, s + x.start * src_x + in_run.first,
                                        packed + (size_t)o.start * weight_at.size() + first * (size_t)o.size,
                                        bias ? bias + o.start : zeros, d + x.start * dst_x + o.start * dst_o);
      }
    }
  }

  void fill_values(v8* d, int n, float value) const {
    for (int i = 0; i < n; ++i) d[i * dst_x] = splat(value);
  }
};

// The cut, and with it which taps a span meets: tap k of position x reads column `start + k + src_x · x` of `width`.
inline void cut_columns(Contraction& c, int start, int width) {
  const auto meets = [&](const Span& x) { return met(c.run_taps, start, (int)c.src_x, x, width); };
  double runs = 0;
  for (const Range& r : c.row_taps) runs += r.count;
  runs /= std::max(1, c.rows);
  c.blocks = cut(c.n_o, c.n_x, [&](const Span& x) { return runs * meets(x).count; });
  for (const Span& x : c.blocks.x) c.span_taps.push_back(meets(x));
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

// The halo that `convolution_backward` reads around dY.
inline int gradient_halo(const wz::Layer& l) {
  auto reach = [&](int in, int out) {
    int low = (l.kernel - 1 - l.pad + l.stride - 1) / l.stride;  // −(smallest index)
    int high = (in - 1 + l.pad) / l.stride - (out - 1);
    return std::max({low, high, 0});
  };
  return std::max(reach(l.in.h, l.out.h), reach(l.in.w, l.out.w));
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
  c.span_taps.assign(c.blocks.x.size(), {0, n_taps});
  return c;
}

// ── convolution: gradient of weights and bias ────────────────────────────────────────

struct WeightGradient {
  std::vector<int32_t> taps;
  std::vector<Place> places;
  std::vector<int32_t> unpacked;  // where each sum belongs in [o][tap], then in the biases
  Cut blocks;
  int n_o;
  ptrdiff_t x_origin, y_origin, y_plane;  // in v8

  // Sums of weights, block after block, and of biases [o] are v8: their lanes are summed once per step.
  void add(const v8* dy, const v8* x, v8* sums, v8* bias) const {
    const Place* const end = places.data() + places.size();
    for (const Span& o : blocks.o)
      for (const Span& t : blocks.x) {
        CORRELATE[o.size - 1][t.size - 1]({taps.data() + t.start, y_plane * (ptrdiff_t)sizeof(v8)},
                                          dy + y_origin + o.start * y_plane, x + x_origin, places.data(), end, sums);
        sums += o.size * t.size;
      }
    for (int o = 0; o < n_o; ++o) {
      const v8* const plane = dy + y_origin + o * y_plane;
      v8 sum[4] = {bias[o], splat(0.0f), splat(0.0f), splat(0.0f)};  // four chains hide the latency of adding
      const Place* p = places.data();
      for (; p + 4 <= end; p += 4)
        for (int k = 0; k < 4; ++k) sum[k] = sum[k] + at_byte(plane, p[k].y);
      for (; p < end; ++p) sum[0] = sum[0] + at_byte(plane, p->y);
      bias[o] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
  }
};

inline WeightGradient weight_gradient(const wz::Layer& l, const Geometry& in, const Geometry& dy) {
  constexpr int B = sizeof(v8);
  WeightGradient g;
  for (int ic = 0; ic < l.in.c; ++ic)
    for (int a = 0; a < l.kernel; ++a)
      for (int b = 0; b < l.kernel; ++b) g.taps.push_back((int32_t)(B * (ic * in.plane + a * in.row + b)));
  for (int h = 0; h < l.out.h; ++h)
    for (int w = 0; w < l.out.w; ++w)
      g.places.push_back({(int32_t)(B * (h * dy.row + w)), (int32_t)(B * l.stride * (h * in.row + w))});
  const int n_taps = (int)g.taps.size();
  g.blocks = cut(l.out.c, n_taps, (int)g.places.size());
  for (const Span& o : g.blocks.o)
    for (const Span& t : g.blocks.x)
      for (int i = 0; i < o.size * t.size; ++i) g.unpacked.push_back((o.start + i / t.size) * n_taps + t.start + i % t.size);
  for (int o = 0; o < l.out.c; ++o) g.unpacked.push_back(l.out.c * n_taps + o);
  g.n_o = l.out.c;
  g.x_origin = in.origin - l.pad * (in.row + 1), g.y_origin = dy.origin, g.y_plane = dy.plane;
  return g;
}

}  // namespace
