// Pooling forward and backward for one block of eight samples.
#pragma once

#include "layers.h"

namespace {

// The largest of a window, NaN where it holds one, then ReLU if asked. K = 0: size and stride at run time.
template <int K, bool RELU>
void max_pool(int kernel, int stride, const Geometry& gx, const v8* x, const Geometry& gy, v8* y) {
  if (K) kernel = stride = K;
  for (int c = 0; c < gy.c; ++c)
    for (int h = 0; h < gy.h; ++h) {
      const v8* from = x + gx.origin + c * gx.plane + (ptrdiff_t)h * stride * gx.row;
      v8* to = y + gy.origin + c * gy.plane + h * gy.row;
      for (int w = 0; w < gy.w; ++w, from += stride) {
        v8 best = from[0];
        v8i none = splat_int(0);
        for (int a = 0; a < kernel; ++a)
          for (int b = !a; b < kernel; ++b) {
            const v8 v = from[a * gx.row + b];
            none = none | unordered(v, from[0]), best = larger(v, best);
          }
        best = (v8)((v8i)best | none);  // all ones are a NaN
        to[w] = RELU ? relu(best) : best;
      }
    }
}

// Pooling two by two, when neither the values nor their gradient are kept: `taken` says where the gradient
// of a window goes back to, in four bits of each lane. A v8i holds four windows of a row.
constexpr int32_t RIGHT_ABOVE = 1, RIGHT_BELOW = 2, BELOW = 4, ANY = 8;
inline int taken_size(int windows) { return (windows + 3) / 4; }

// One row of windows of each channel.
template <bool RELU>
void pool_pairs(const Geometry& gx, const v8* x, const Geometry& gy, v8* y, v8i* taken) {
  for (int c = 0; c < gy.c; ++c) {
    const v8* from = x + gx.origin + c * gx.plane;
    v8* to = y + gy.origin + c * gy.plane;
    v8i four = splat_int(0);
    for (int w = 0; w < gy.w; ++w, from += 2) {
      const v8 a = from[0], b = from[1], d = from[gx.row], e = from[gx.row + 1];
      const v8 above = larger(b, a), below = larger(e, d);
      const v8i none = unordered(a, b) | unordered(d, e);
      const v8 best = larger(below, above);
      const v8i any = RELU ? (best > splat(0.0f)) & ~none : ~none;
      to[w] = (v8)((v8i)(RELU ? keep(any, best) : best) | none);  // all ones are a NaN
      const v8i bits = ((b > a) & RIGHT_ABOVE) | ((e > d) & RIGHT_BELOW) | ((below > above) & BELOW) | (any & ANY);
      four = (v8i)((v8ui)four >> 8) | (bits << 24);
      if (w % 4 == 3) *taken++ = four;
    }
    if (gy.w % 4) *taken++ = (v8i)((v8ui)four >> (8 * (4 - gy.w % 4)));
  }
}

template <int32_t BIT>
WZ_INLINE v8i has(v8i bits) { return (bits & BIT) == BIT; }

inline void unpool_pairs(const v8i* taken, const Geometry& gd, const v8* dy, const Geometry& gdx, v8* dx) {
  const v8 zero = splat(0.0f);
  for (int c = 0; c < gd.c; ++c) {
    const v8* d = dy + gd.origin + c * gd.plane;
    v8* to = dx + gdx.origin + c * gdx.plane;
    v8i bits = splat_int(0);
    for (int w = 0; w < gd.w; ++w, to += 2) {
      bits = w % 4 ? bits >> 8 : *taken++;
      const v8i below = has<BELOW>(bits), right_above = has<RIGHT_ABOVE>(bits), right_below = has<RIGHT_BELOW>(bits);
      const v8 all = keep(has<ANY>(bits), d[w]), top = keep(~below, all), bottom = keep(below, all);
      to[0] = keep(~right_above, top), to[1] = keep(right_above, top);
      to[gdx.row] = keep(~right_below, bottom), to[gdx.row + 1] = keep(right_below, bottom);
    }
    if (gdx.w % 2) to[0] = to[gdx.row] = zero;  // the column that no window reaches
  }
}

// dx = dy at the first maximum of the window in row-major order (as PyTorch), 0 elsewhere.
// Where windows do not overlap, dx may be x itself. With RELU, y went through it: where that changed the
// maximum no gradient comes back, so the comparison with y decides only where it did not.
template <int K, bool RELU>
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
        const v8 rest = RELU ? gated(top, d[w]) : d[w];
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

}  // namespace
