// Each convolution of a workload alone, on buffers as the engine lays them out: the fastest of many
// runs, beside the fastest run of a loop that does nothing but multiply and add in registers.
//
// Arguments: channels rows filters kernel stride onward, for each layer. Prints GFLOP/s: first of the
// loop, then of each layer forward, by weights and, if onward, by inputs.
#include <chrono>
#include <cstdio>
#include <random>

#include "node.h"

namespace {

constexpr int RUNS = 40000;

template <class F>
double seconds(F f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Values : Buffer<v8> {
  explicit Values(ptrdiff_t n) {
    reserve((size_t)n + 1);
    std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
    for (ptrdiff_t i = 0; i < n; ++i)
      for (int k = 0; k < LANES; ++k) data[i][k] = uniform(generator);
  }
};

// Ten chains: enough to hide a latency of four or five cycles in two units.
constexpr int CHAINS = 10;
void registers_only(Values& values, int rounds) {
  v8 sums[CHAINS];
  for (v8& sum : sums) sum = splat(0.0f);
  const v8 a = values.data[0], b = values.data[1];
  for (int i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (int k = 0; k < CHAINS; ++k) sums[k] = fma_into(sums[k], a, b);
  }
  for (const v8& sum : sums) values.data[2] = values.data[2] + sum;
}

void layer(const wz::Layer& l, bool onward) {
  const Geometry in(l.in, l.pad), out(l.out, 0), dy(l.out, onward ? gradient_columns(l) : 0, 0), dx(l.in, 0);
  Values x(in.size), y(out.size), gradient(dy.size), compact(out.size), to(dx.size);
  std::vector<float> weights((size_t)(l.out.c * l.in.c * l.kernel * l.kernel), 0.01f), bias((size_t)l.out.c, 0.01f);
  const double flop = 2.0 * LANES * (double)weights.size() * l.out.h * l.out.w;

  const Contraction forward = convolution(l, in, out);
  std::vector<float> packed(forward.packed_size());
  forward.pack(weights.data(), packed.data());
  const WeightGradient by_weights = weight_gradient(l, in, false);
  Values part((ptrdiff_t)by_weights.part_size()), sums((ptrdiff_t)by_weights.unpacked.size());
  const std::vector<Contraction> backward = onward ? convolution_backward(l, dy, dx) : std::vector<Contraction>();
  std::vector<std::vector<float>> packs;
  for (const Contraction& c : backward) packs.emplace_back(c.packed_size(), 0.01f);

  double best[3] = {1, 1, 1};
  for (int run = 0; run < RUNS; ++run) {
    best[0] = std::min(best[0], seconds([&] { forward.run(x.data, packed.data(), bias.data(), y.data); }));
    best[1] = std::min(best[1], seconds([&] {
      for (const Span& strip : by_weights.strips)
        by_weights.add(strip, compact.data + strip.start * l.out.w, x.data, part.data, sums.data);
    }));
    if (onward)
      best[2] = std::min(best[2], seconds([&] {
        for (size_t k = 0; k < backward.size(); ++k) backward[k].run(gradient.data, packs[k].data(), nullptr, to.data);
      }));
  }
  std::printf("%g %g", flop / best[0] * 1e-9, flop / best[1] * 1e-9);
  if (onward) std::printf(" %g", flop / best[2] * 1e-9);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  Values values(3);
  constexpr int ROUNDS = 1000;
  double best = 1;
  for (int run = 0; run < RUNS; ++run) best = std::min(best, seconds([&] { registers_only(values, ROUNDS); }));
  std::printf("%g\n", 2.0 * LANES * CHAINS * ROUNDS / best * 1e-9);
  for (int i = 1; i + 6 <= argc; i += 6) {
    const int channels = std::atoi(argv[i]), rows = std::atoi(argv[i + 1]), filters = std::atoi(argv[i + 2]);
    const int kernel = std::atoi(argv[i + 3]), stride = std::atoi(argv[i + 4]), size = (rows - kernel) / stride + 1;
    layer({Op::Conv, {channels, rows, rows}, {filters, size, size}, kernel, stride, 0, 0.0, 0, 0}, std::atoi(argv[i + 5]));
  }
}
