// What a recurrent layer's way forward and back is made of, on one block of eight sequences, as the engine runs it: the fastest
// of many runs of the whole, of its products alone and of its functions alone, beside a loop that does nothing but multiply
// and add in registers.
//
// Arguments: gru|lstm features units steps onward, for each layer. Prints GFLOP/s of the loop; then of each layer microseconds of
// both ways, of products and of functions, and GFLOP of the products.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>

#include "node.h"

namespace {

constexpr int RUNS = 1500;

template <class F>
double fastest(F f, int runs = RUNS) {
  double best = 1;
  for (int run = 0; run < runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
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
constexpr int CHAINS = 10, ROUNDS = 1000;
void registers_only(Values& values) {
  v8 sums[CHAINS];
  for (v8& sum : sums) sum = splat(0.0f);
  const v8 a = values.data[0], b = values.data[1];
  for (int i = 0; i < ROUNDS; ++i) {
#pragma GCC unroll 10
    for (int k = 0; k < CHAINS; ++k) sums[k] = fma_into(sums[k], a, b);
  }
  for (const v8& sum : sums) values.data[2] = values.data[2] + sum;
}

void layer(Op op, int features, int units, int steps, bool onward) {
  const wz::Layer l{op, {features, 1, steps}, {units, 1, steps}, 0, 0, 0, 0.0, 0, 0};
  const Geometry in(l.in, 0), out(l.out, 0);
  Recurrent r = recurrent_of(l, in);
  wz::Layer inputs = l;
  inputs.op = Op::Conv, inputs.kernel = inputs.stride = 1, inputs.out = {r.rows(), 1, steps};
  if (onward) r.into_back = convolution_backward(inputs, r.planes, in);
  std::vector<float> weights((size_t)r.size(), 0.01f), packed(r.packed_size());
  r.pack(weights.data(), packed.data());
  size_t back_size = r.step_back.packed_size();
  for (const Contraction& c : r.into_back) back_size += c.packed_size();
  std::vector<float> backward(back_size, 0.01f);
  Values x(in.size), y(out.size), dy(out.size), dx(in.size), saved(r.saved_size()), gates(r.gates * r.plane());
  Values part((ptrdiff_t)std::max(r.by_inputs.part_size(), r.by_state.part_size()));
  Values lanes_inputs((ptrdiff_t)r.by_inputs.unpacked.size()), lanes_state((ptrdiff_t)r.by_state.unpacked.size());
  Scratch s;
  s.reserve(r);
  const float *into = packed.data(), *step = into + r.into.packed_size(), *bias = weights.data() + r.bias_at();

  // Sums grow from run to run and are set back, so that nothing becomes infinite.
  const auto clear = [](Values& v, size_t n) { std::memset((void*)v.data, 0, n * sizeof(v8)); };
  const double forth = fastest([&] { recurrent_forward(r, op, into, weights.data(), x.data, y.data, saved.data, s); });
  const double whole_back = fastest([&] {
    clear(lanes_inputs, r.by_inputs.unpacked.size()), clear(lanes_state, r.by_state.unpacked.size());
    recurrent_backward(r, op, backward.data(), saved.data, x.data, out, dy.data, onward ? dx.data : nullptr, part.data,
                       lanes_inputs.data, lanes_state.data, s);
  });
  const double products = fastest([&] {
    r.into.run(x.data, into, bias, gates.data);
    for (int t = 0; t < steps; ++t) r.step.run(s.state.data, step, bias + r.rows(), s.sums.data);
  }) + fastest([&] {
    clear(lanes_inputs, r.by_inputs.unpacked.size()), clear(lanes_state, r.by_state.unpacked.size());
    for (int t = 1; t < steps; ++t) r.step_back.run(s.sums.data, backward.data(), nullptr, s.state.data);
    for (const Span& strip : r.by_inputs.strips) r.by_inputs.add(strip, gates.data + strip.start * steps, x.data, part.data, lanes_inputs.data);
    for (const Span& strip : r.by_state.strips) r.by_state.add(strip, gates.data + strip.start * steps, saved.data, part.data, lanes_state.data);
    size_t at = r.step_back.packed_size();
    for (const Contraction& c : r.into_back) c.run(gates.data, backward.data() + at, nullptr, dx.data), at += c.packed_size();
  });
  const double functions = fastest([&] {
    for (ptrdiff_t i = 0; i < r.plane(); ++i) {
      const v8 a = dy.data[i];
      if (op == Op::Gru) y.data[i] = sigmoid(a) + sigmoid(-a) * tanh(a);
      else y.data[i] = sigmoid(a) + sigmoid(-a) * tanh(a) + sigmoid(a + a) * tanh(a + a);
    }
  });
  const double forward_flop = 2.0 * LANES * steps * r.rows() * (features + units);
  const double flop = 2 * forward_flop + 2.0 * LANES * r.rows() * ((double)(steps - 1) * units + (onward ? (double)steps * features : 0));
  std::printf("%g %g %g %g\n", (forth + whole_back) * 1e6, products * 1e6, functions * 1e6, flop * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  Values values(3);
  std::printf("%g\n", 2.0 * LANES * CHAINS * ROUNDS / fastest([&] { registers_only(values); }, 20000) * 1e-9);
  for (int i = 1; i + 5 <= argc; i += 5)
    layer(std::strcmp(argv[i], "gru") ? Op::Lstm : Op::Gru, std::atoi(argv[i + 1]), std::atoi(argv[i + 2]), std::atoi(argv[i + 3]),
          std::atoi(argv[i + 4]));
}
