// Gradient → new weights: the update rules of contract.Optimizers, for one model.
//
// Rates enter as float64 and are rounded once. Only spans of parameters are touched, so
// buffers (running statistics) keep every bit.
#pragma once

#include <cmath>

#include "plan.h"
#include "simd.h"

namespace {

struct Rates {
  wz::Rule rule;
  bool nesterov;
  float lr, momentum, beta1, beta2, rest1, rest2, eps, alpha, rest_alpha, decay, shrink, step_size, inverse_root;
};

inline Rates rates_of(const wz::Window& w, int64_t m, int64_t t, double factor = 1.0) {
  const wz::Optimizers& o = w.optimizers;
  const double whole = w.lr[m * w.n_steps + t], lr = whole * factor;
  double bias1 = w.bias1[m * w.n_steps + t], bias2 = w.bias2[m * w.n_steps + t];
  Rates r{};
  r.rule = (wz::Rule)o.kind[m];
  r.nesterov = o.nesterov[m] != 0;
  r.lr = (float)lr, r.momentum = (float)o.momentum[m];
  r.beta1 = (float)o.beta1[m], r.beta2 = (float)o.beta2[m];
  r.rest1 = (float)(1.0 - o.beta1[m]), r.rest2 = (float)(1.0 - o.beta2[m]);
  r.eps = (float)o.eps[m], r.alpha = (float)o.alpha[m], r.rest_alpha = (float)(1.0 - o.alpha[m]);
  r.decay = r.rule == wz::Rule::AdamW ? 0.0f : (float)(o.weight_decay[m] / factor);
  r.shrink = (float)(1.0 - whole * o.weight_decay[m]);  // lr · factor · (decay / factor)
  r.step_size = (float)(lr / bias1), r.inverse_root = (float)(1.0 / std::sqrt(bias2));
  return r;
}

template <class Update>
void over_span(Update update, int64_t n, float* p, float* a, float* b, const float* g) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    v8 pv = load(p + i), av = load(a + i), bv = load(b + i);
    update(pv, av, bv, load(g + i));
    store(p + i, pv), store(a + i, av), store(b + i, bv);
  }
  if (i < n) {  // the same arithmetic on a padded copy
    float tail[4][LANES] = {};
    size_t bytes = (size_t)(n - i) * sizeof(float);
    std::memcpy(tail[0], p + i, bytes), std::memcpy(tail[1], a + i, bytes);
    std::memcpy(tail[2], b + i, bytes), std::memcpy(tail[3], g + i, bytes);
    v8 pv = load(tail[0]), av = load(tail[1]), bv = load(tail[2]);
    update(pv, av, bv, load(tail[3]));
    store(tail[0], pv), store(tail[1], av), store(tail[2], bv);
    std::memcpy(p + i, tail[0], bytes), std::memcpy(a + i, tail[1], bytes), std::memcpy(b + i, tail[2], bytes);
  }
}

// One update of parameters p with state a (b or m) and b (v), all [n].
inline void update_span(const Rates& r, int64_t n, float* p, float* a, float* b, const float* g) {
  const v8 lr = splat(-r.lr), decay = splat(r.decay), eps = splat(r.eps);
  switch (r.rule) {
    case wz::Rule::Sgd: {
      const v8 momentum = splat(r.momentum);
      const bool nesterov = r.nesterov;
      over_span([=](v8& pv, v8& av, v8&, v8 gv) {
        gv = fma(decay, pv, gv);
        av = fma(momentum, av, gv);
        pv = fma(lr, nesterov ? fma(momentum, av, gv) : av, pv);
      }, n, p, a, b, g);
      break;
    }
    case wz::Rule::Adam:
    case wz::Rule::AdamW: {
      const v8 beta1 = splat(r.beta1), beta2 = splat(r.beta2), rest1 = splat(r.rest1), rest2 = splat(r.rest2);
      const v8 step = splat(-r.step_size), root = splat(r.inverse_root), shrink = splat(r.shrink);
      const bool decoupled = r.rule == wz::Rule::AdamW;
      over_span([=](v8& pv, v8& av, v8& bv, v8 gv) {
        if (decoupled) pv = pv * shrink;
        else gv = fma(decay, pv, gv);
        av = fma(beta1, av, rest1 * gv);
        bv = fma(beta2, bv, rest2 * (gv * gv));
        pv = fma(step, av / fma(square_root(bv), root, eps), pv);
      }, n, p, a, b, g);
      break;
    }
    case wz::Rule::RmsProp: {
      const v8 alpha = splat(r.alpha), rest = splat(r.rest_alpha);
      over_span([=](v8& pv, v8&, v8& bv, v8 gv) {
        gv = fma(decay, pv, gv);
        bv = fma(alpha, bv, rest * (gv * gv));
        pv = fma(lr, gv / (square_root(bv) + eps), pv);
      }, n, p, a, b, g);
      break;
    }
  }
}

// Sum of squares in float64, eight partial sums in a fixed order.
inline double squared_norm(const float* g, int64_t n) {
  double part[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int k = 0; k < LANES; ++k) part[k] += (double)g[i + k] * (double)g[i + k];
  for (int k = 0; i < n; ++i, ++k) part[k] += (double)g[i] * (double)g[i];
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

}  // namespace
