// Batch norm over a whole batch: statistics, their running averages, and the way back.
//
// Sums leave out lanes without a sample and run in one fixed order: four chains by column,
// block after block, then the tree over lanes.
#pragma once

#include "node.h"

namespace {

// Σ f(value) over a channel of the batch, lanes without a sample left out: four chains by
// column, then the fixed tree.
template <class F>
float channel_sum(const Geometry& g, int c, int n, F f) {
  v8 sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int b = 0; b < blocks_of(n); ++b) {
    const v8i alive = live(n, b);
    v8 part[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    for (int h = 0; h < g.h; ++h) {
      int w = 0;
      for (; w + 4 <= g.w; w += 4)
        for (int k = 0; k < 4; ++k) part[k] = part[k] + f(b, c, h, w + k);
      for (; w < g.w; ++w) part[0] = part[0] + f(b, c, h, w);
    }
    for (int k = 0; k < 4; ++k) sum[k] = sum[k] + keep(alive, part[k]);
  }
  return lane_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline void batch_norm_forward(const wz::Plan& plan, Node& node, const float* w, float* running, const v8* x, int n) {
  const Geometry &in = node.in, &out = node.out;
  const int C = in.c;
  const float count = (float)n * (float)(in.h * in.w);
  auto at = [&](int b, int c, int h, int col) { return x[b * in.size + in.origin + c * in.plane + h * in.row + col]; };
  for (int c = 0; c < C; ++c) {
    const float mean = channel_sum(in, c, n, at) / count;
    const v8 m = splat(mean);
    const float square = channel_sum(in, c, n, [&](int b, int ch, int h, int col) {
      v8 d = at(b, ch, h, col) - m;
      return d * d;
    });
    const float variance = square / count;
    const float inverse = 1.0f / std::sqrt(variance + plan.norm_eps);
    node.mean.data[c] = mean, node.inverse_std.data[c] = inverse;
    const float rate = plan.norm_momentum, rest = 1.0f - rate;
    running[2 * C + c] = rest * running[2 * C + c] + rate * mean;
    // A single value has no unbiased variance: the running one stays.
    if (count > 1.0f) running[3 * C + c] = rest * running[3 * C + c] + rate * (square / (count - 1.0f));
    const v8 scale = splat(inverse * w[c]), shift = splat(w[C + c]);
    for (int b = 0; b < blocks_of(n); ++b)
      for (int h = 0; h < in.h; ++h) {
        const v8* from = x + b * in.size + in.origin + c * in.plane + h * in.row;
        v8* to = node.y + b * out.size + out.origin + c * out.plane + h * out.row;
        for (int i = 0; i < in.w; ++i) to[i] = fma(from[i] - m, scale, shift);
      }
  }
}

inline void batch_norm_evaluate(const wz::Plan& plan, Node& node, const float* w, const v8* x, int nb) {
  const Geometry &in = node.in, &out = node.out;
  const int C = in.c;
  for (int c = 0; c < C; ++c) {
    const v8 m = splat(w[2 * C + c]), shift = splat(w[C + c]);
    const v8 scale = splat(w[c] / std::sqrt(w[3 * C + c] + plan.norm_eps));
    for (int b = 0; b < nb; ++b)
      for (int h = 0; h < in.h; ++h) {
        const v8* from = x + b * in.size + in.origin + c * in.plane + h * in.row;
        v8* to = node.y + b * out.size + out.origin + c * out.plane + h * out.row;
        for (int i = 0; i < in.w; ++i) to[i] = fma(from[i] - m, scale, shift);
      }
  }
}

// dx = scale · (dy − mean(dy) − x̂ · mean(dy · x̂)), 0 in lanes without a sample.
inline void batch_norm_backward(const Node& node, const float* w, float* gradient, const v8* x, const Geometry& gdx, v8* dx, int n) {
  const Geometry &in = node.in, &gd = node.grad;
  const int C = in.c;
  const float count = (float)n * (float)(in.h * in.w);
  const v8* dy = node.g;
  auto at = [&](int b, int c, int h, int col) { return x[b * in.size + in.origin + c * in.plane + h * in.row + col]; };
  auto d = [&](int b, int c, int h, int col) { return dy[b * gd.size + gd.origin + c * gd.plane + h * gd.row + col]; };
  for (int c = 0; c < C; ++c) {
    const v8 m = splat(node.mean.data[c]);
    const float inverse = node.inverse_std.data[c];
    const float shift = channel_sum(in, c, n, d);
    const float scale =
        channel_sum(in, c, n, [&](int b, int ch, int h, int col) { return d(b, ch, h, col) * (at(b, ch, h, col) - m); }) *
        inverse;
    gradient[c] = scale, gradient[C + c] = shift;
    if (!dx) continue;
    const v8 k = splat(w[c] * inverse), mean_dy = splat(shift / count), slope = splat(-(scale * inverse) / count);
    for (int b = 0; b < blocks_of(n); ++b) {
      const v8i alive = live(n, b);
      for (int h = 0; h < in.h; ++h) {
        const v8* from = x + b * in.size + in.origin + c * in.plane + h * in.row;
        const v8* g = dy + b * gd.size + gd.origin + c * gd.plane + h * gd.row;
        v8* to = dx + b * gdx.size + gdx.origin + c * gdx.plane + h * gdx.row;
        for (int i = 0; i < in.w; ++i) to[i] = keep(alive, k * fma(from[i] - m, slope, g[i] - mean_dy));
      }
    }
  }
}

}  // namespace
