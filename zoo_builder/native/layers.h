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

inline void activate(Op op, float slope, const Geometry& from, const v8* x, const Geometry& to, v8* y) {
  const v8 zero = splat(0.0f), leak = splat(slope);
  switch (op) {
    case Op::Relu: return map_runs(from, x, to, y, [=](v8 a) { return select(a <= zero, zero, a); });
    case Op::LeakyRelu: return map_runs(from, x, to, y, [=](v8 a) { return select(a > zero, a, leak * a); });
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

// One use of the `contract` kernel over a grid of rows, with its weights packed block by block.
struct Contraction {
  std::vector<int32_t> taps, weight_at;  // offset in the source (bytes) and of w[o = 0] (floats), per tap
  ptrdiff_t weight_o = 0;                // from one output's weight to the next's
  int n_o = 0, n_x = 0, rows = 1;
  int group = 0;                         // which of GROUPS; taps then hold the first of each
  ptrdiff_t src_origin = 0, src_row = 0, src_x = 0, dst_origin = 0, dst_row = 0, dst_x = 0, dst_o = 0;
  Cut blocks;

  size_t packed_size() const { return weight_at.size() * (size_t)n_o; }

  // Taps that come in runs of `size` neighbours: keep the first of each run.
  void group_taps(int size) {
    for (int k = 0; k < 4; ++k)
      if (GROUPS[k] == size) group = k;
    const size_t step = (size_t)GROUPS[group];
    for (size_t t = 0; t * step < taps.size(); ++t) taps[t] = taps[t * step];
    taps.resize(taps.size() / step);
  }

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
    const Contract c{taps.data(), (int)taps.size(), src_x * B, dst_o * B, dst_x * B};
    const auto& table = CONTRACT[src_x == 1][group];
    static const float zeros[MAX_O] = {};
    for (int r = 0; r < rows; ++r) {
      const v8* s = src + src_origin + r * src_row;
      v8* d = dst + dst_origin + r * dst_row;
      if (taps.empty()) {
        for (int o = 0; o < n_o; ++o)
          for (int x = 0; x < n_x; ++x) d[o * dst_o + x * dst_x] = splat(0.0f);
        continue;
      }
      for (const Span& x : blocks.x)
        for (const Span& o : blocks.o)
          table[o.size - 1][x.size - 1](c, s + x.start * src_x, packed + (size_t)o.start * weight_at.size(),
                                        bias ? bias + o.start : zeros, d + x.start * dst_x + o.start * dst_o);
    }
  }
};

inline Contraction convolution(const wz::Layer& l, const Geometry& in, const Geometry& out) {
  Contraction c;
  for (int ic = 0, at = 0; ic < l.in.c; ++ic)
    for (int a = 0; a < l.kernel; ++a)
      for (int b = 0; b < l.kernel; ++b, ++at) {
        c.taps.push_back((int32_t)(sizeof(v8) * (ic * in.plane + a * in.row + b)));
        c.weight_at.push_back(at);
      }
  c.weight_o = (ptrdiff_t)c.taps.size();
  c.n_o = l.out.c, c.n_x = l.out.w, c.rows = l.out.h;
  c.src_origin = in.origin - l.pad * (in.row + 1), c.src_row = l.stride * in.row, c.src_x = l.stride;
  c.dst_origin = out.origin, c.dst_row = out.row, c.dst_x = 1, c.dst_o = out.plane;
  c.blocks = cut(c.n_o, c.n_x, true);
  c.group_taps(l.kernel);
  return c;
}

// The gradient towards the input, one contraction for each residue of row and column by the
// stride: there the taps that meet a value are the same, and dY is read at consecutive places.
inline std::vector<Contraction> convolution_backward(const wz::Layer& l, const Geometry& dy, const Geometry& dx) {
  std::vector<Contraction> phases;
  const int s = l.stride, k = l.kernel;
  for (int a = 0; a < s && a < l.in.h; ++a)
    for (int b = 0; b < s && b < l.in.w; ++b) {
      Contraction c;
      const int first_j = (b + l.pad) % s, run = first_j < k ? (k - 1 - first_j) / s + 1 : 0, last_j = first_j + (run - 1) * s;
      for (int oc = 0; oc < l.out.c; ++oc)
        for (int i = (a + l.pad) % s; i < k; i += s)
          for (int j = last_j; j >= 0; j -= s) {  // downwards, so that dY is read upwards
            c.taps.push_back((int32_t)((ptrdiff_t)sizeof(v8) *
                                       (oc * dy.plane + (a + l.pad - i) / s * dy.row + (b + l.pad - j) / s)));
            c.weight_at.push_back((oc * l.in.c * k + i) * k + j);
          }
      c.weight_o = k * k;
      c.n_o = l.in.c, c.n_x = (l.in.w - b + s - 1) / s, c.rows = (l.in.h - a + s - 1) / s;
      c.src_origin = dy.origin, c.src_row = dy.row, c.src_x = 1;
      c.dst_origin = dx.origin + a * dx.row + b, c.dst_row = s * dx.row, c.dst_x = s, c.dst_o = dx.plane;
      c.blocks = cut(c.n_o, c.n_x, true);
      c.group_taps(run);
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
  for (int t = 0; t < n_taps; ++t) c.taps.push_back((int32_t)sizeof(v8) * t), c.weight_at.push_back(backward ? t * n_in : t);
  c.weight_o = backward ? 1 : n_in;
  c.n_o = backward ? n_in : n_out, c.n_x = blocks;
  c.src_x = src.size, c.dst_x = dst.size, c.dst_o = 1;
  c.blocks = cut(c.n_o, c.n_x);
  return c;
}

// ── convolution: gradient of weights and bias ────────────────────────────────────────

struct WeightGradient {
  std::vector<int32_t> taps;
  std::vector<Place> places;  // row by row
  Correlate c;
  Cut blocks;
  int n_o, rows, columns, places_at_once;
  ptrdiff_t x_origin, y_origin, y_plane, y_row;  // in v8

  // gradient [o][tap] and bias [o] are v8: their lanes are summed once per step.
  void add(const v8* dy, const v8* x, v8* gradient, v8* bias) const {
    Correlate args = c;
    args.taps = taps.data();
    const Place* const last = places.data() + places.size();
    for (const Place* p = places.data(); p != last;) {
      const Place* end = p + std::min<ptrdiff_t>(places_at_once, last - p);
      for (const Span& o : blocks.o)
        for (const Span& t : blocks.x)
          CORRELATE[o.size - 1][t.size - 1](args, dy + y_origin + o.start * y_plane, x + x_origin, p, end, t.start,
                                            gradient + (ptrdiff_t)o.start * c.n_taps + t.start);
      p = end;
    }
    for (int o = 0; o < n_o; ++o) {
      v8 sum[4] = {bias[o], splat(0.0f), splat(0.0f), splat(0.0f)};  // four chains hide the latency of adding
      for (int r = 0; r < rows; ++r) {
        const v8* yr = dy + y_origin + o * y_plane + r * y_row;
        int i = 0;
        for (; i + 4 <= columns; i += 4)
          for (int k = 0; k < 4; ++k) sum[k] = sum[k] + yr[i + k];
        for (; i < columns; ++i) sum[0] = sum[0] + yr[i];
      }
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
  g.c = Correlate{nullptr, B * dy.plane, (int)g.taps.size()};
  g.blocks = cut(l.out.c, g.c.n_taps);
  g.n_o = l.out.c, g.rows = l.out.h, g.columns = l.out.w;
  g.x_origin = in.origin - l.pad * (in.row + 1), g.y_origin = dy.origin, g.y_plane = dy.plane, g.y_row = dy.row;
  // Rows of dY and X that stay in a first-level cache of 32 KB, with room for accumulators.
  const int row_bytes = B * (l.out.c * l.out.w + l.in.c * l.stride * l.in.w);
  g.places_at_once = l.out.w * std::max(1, 20000 / row_bytes);
  return g;
}

}  // namespace
