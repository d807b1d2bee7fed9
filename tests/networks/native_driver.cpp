// Trains three models without Python and prints a digest of their weights and losses: run on
// another architecture (or its emulator), it must print the same.
#include <cstdio>
#include <cstring>
#include <memory>

#include "dispatch.h"

namespace {

uint64_t state = 88172645463325252u;
float uniform() {  // in [−½, ½), by xorshift: 24 bits, so exact
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (float)((double)(state >> 40) / 16777216.0 - 0.5);
}

uint64_t digest(uint64_t h, const std::vector<float>& values) {  // FNV-1a of the bytes
  for (float v : values) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    for (int k = 0; k < 4; ++k) h = (h ^ (bits >> (8 * k) & 255)) * 1099511628211u;
  }
  return h;
}

bool go_on(void*) { return false; }

}  // namespace

int main(int argc, char** argv) {
  using wz::Op;
  wz::Plan plan;
  int64_t n_params = 0;
  int number = 0;
  wz::Shape shape{2, 12, 12};
  auto add = [&](Op op, wz::Shape out, int64_t size = 0, int kernel = 0, int stride = 1, int pad = 0, double rate = -1) {
    plan.layers.push_back({op, shape, out, kernel, stride, pad, rate, number++, n_params});
    n_params += size, shape = out;
  };
  plan.input = shape;
  add(Op::Conv, {5, 12, 12}, 5 * (2 * 9 + 1), 3, 1, 1);
  add(Op::BatchNorm, shape, 4 * 5);
  add(Op::MaxPool, {5, 6, 6}, 0, 2, 2);
  add(Op::Gelu, shape);
  add(Op::Dropout, shape, 0, 0, 1, 0, 0.3);
  add(Op::Conv, {4, 3, 3}, 4 * (5 * 4 + 1), 2, 2);
  add(Op::Tanh, shape);
  add(Op::Flatten, {36, 1, 1});
  add(Op::Linear, {9, 1, 1}, 9 * 37);
  add(Op::Softmax, shape);
  add(Op::Linear, {6, 1, 1}, 6 * 10);
  add(Op::Silu, shape);
  add(Op::Linear, {5, 1, 1}, 5 * 7);
  plan.flat = false, plan.n_params = n_params, plan.loss = wz::Loss::CrossEntropy;
  plan.norm_eps = 1e-5f, plan.norm_momentum = 0.1f, plan.leaky_slope = 0.01f;
  plan.augmentation.shift = 2, plan.augmentation.flip = true;
  plan.augmentation.n_noise = 1, plan.augmentation.noise[0] = 0.05;
  plan.augmentation.n_fill = 1, plan.augmentation.fill[0] = -0.5f;

  constexpr int64_t M = 3, T = 12, B = 19, N = 50;
  std::vector<float> pool(N * 2 * 144), weights(M * n_params), slot1(M * n_params), slot2(M * n_params), losses(M * T);
  for (float& v : pool) v = uniform();
  for (float& v : weights) v = uniform();
  for (int64_t m = 0; m < M; ++m)
    for (int k = 0; k < 5; ++k) weights[m * n_params + plan.layers[1].weight + 15 + k] = 1.0f;  // running variance
  std::vector<int64_t> sizes(T, B);
  std::vector<int32_t> rows(M * T * B), targets(M * T * B), kind = {0, 1, 3};
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = (int32_t)(i * 7 % N), targets[i] = (int32_t)(i * 3 % 5);
  std::vector<double> lr(M * T, 0.01), bias1(M * T), bias2(M * T), momentum = {0.9, 0, 0}, beta1(M, 0.9), beta2(M, 0.999),
                      eps(M, 1e-8), alpha(M, 0.99), decay = {1e-3, 0, 1e-3}, clip = {0.5, 1e300, 1e300}, dropout(M, 0.2);
  double b1 = 1, b2 = 1;
  for (int64_t t = 0; t < T; ++t) {
    b1 *= 0.9, b2 *= 0.999;
    for (int64_t m = 0; m < M; ++m) bias1[m * T + t] = 1 - b1, bias2[m * T + t] = 1 - b2;
  }
  std::vector<uint8_t> active(M, 1), nesterov = {1, 0, 0};
  std::vector<wz::Key> keys = {{{1, 2}}, {{3, 4}}, {{5, 6}}};
  wz::Window w{};
  w.n_models = M, w.n_steps = T, w.n_examples = T * B, w.pool = pool.data();
  w.weights = weights.data(), w.slot1 = slot1.data(), w.slot2 = slot2.data();
  w.batch_sizes = sizes.data(), w.rows = rows.data(), w.targets = targets.data();
  w.lr = lr.data(), w.bias1 = bias1.data(), w.bias2 = bias2.data(), w.active = active.data();
  w.dropout_rate = dropout.data(), w.dropout_key = keys.data(), w.augment_key = keys.data(), w.losses = losses.data();
  w.optimizers = {kind.data(), momentum.data(), beta1.data(), beta2.data(), eps.data(), alpha.data(), decay.data(), clip.data(), nesterov.data()};

  const wz::Make make = wz::factory(argc > 1 ? argv[1] : "plain");
  if (!make || !std::unique_ptr<wz::Engine>(make(plan))->advance(w, go_on, nullptr)) return 1;
  std::printf("%016llx %a\n", (unsigned long long)digest(digest(14695981039346656037u, weights), losses), (double)losses.back());
}
