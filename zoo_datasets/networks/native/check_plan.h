// A plan → refused, unless every number in it follows from the layer before: no buffer of an engine is
// made, and none is read, by sizes that only somebody's manifest vouches for.
#pragma once

#include <stdexcept>
#include <string>

#include "plan.h"

namespace wz {

constexpr int64_t MOST_SIDE = 1 << 24;     // of a shape; fits an int with room for kernel and padding
constexpr int64_t MOST_UNITS = 1 << 28;    // of one sample in one layer: a gigabyte of float32
constexpr int64_t MOST_PARAMS = 1LL << 33;

inline bool operator==(const Shape& a, const Shape& b) { return a.c == b.c && a.h == b.h && a.w == b.w; }

// The output that a layer has by its own numbers; what cannot be computed is refused.
inline Shape output_of(const Layer& l) {
  auto window = [&](int side) -> int {
    const int64_t free = (int64_t)side + 2 * (int64_t)l.pad - l.kernel;
    if (free < 0) throw std::invalid_argument("its window does not fit into its input");
    return (int)(free / l.stride) + 1;
  };
  switch (l.op) {
    case Op::Conv: return {l.out.c, window(l.in.h), window(l.in.w)};
    case Op::MaxPool: case Op::AvgPool: return {l.in.c, window(l.in.h), window(l.in.w)};
    case Op::GlobalAvgPool: return {l.in.c, 1, 1};
    case Op::Flatten: return {(int)l.in.units(), 1, 1};
    case Op::Linear: return {l.out.c, 1, 1};
    case Op::Rows: return {l.in.c * l.in.w, 1, l.in.h};
    case Op::Tiles:
      if (l.kernel < 1 || l.in.h % l.kernel || l.in.w % l.kernel) throw std::invalid_argument("its tiles do not fill its input");
      return {l.in.c * l.kernel * l.kernel, 1, l.in.h / l.kernel * (l.in.w / l.kernel)};
    case Op::LastStep: return {l.in.c, 1, 1};
    case Op::Gru: case Op::Lstm: return {l.out.c, 1, l.in.w};
    default: return l.in;
  }
}

inline int64_t params_of(const Layer& l) {
  switch (l.op) {
    case Op::Conv: return (int64_t)l.out.c * (1 + (int64_t)l.in.c * l.kernel * l.kernel);
    case Op::Linear: return (int64_t)l.out.c * (1 + (int64_t)l.in.c);
    case Op::BatchNorm: return 4 * (int64_t)l.in.c;
    case Op::Gru: return 3 * (int64_t)l.out.c * ((int64_t)l.in.c + l.out.c + 2);
    case Op::Lstm: return 4 * (int64_t)l.out.c * ((int64_t)l.in.c + l.out.c + 2);
    default: return 0;
  }
}

// Throws std::invalid_argument, which Python sees as a ValueError.
inline void check(const Plan& plan) {
  if (plan.layers.empty()) throw std::invalid_argument("a plan needs layers");
  if (plan.n_params < 0 || plan.n_params > MOST_PARAMS) throw std::invalid_argument("too many parameters");
  if (plan.loss != Loss::CrossEntropy && plan.loss != Loss::MeanSquare) throw std::invalid_argument("no such loss");
  if (plan.augmentation.shift < 0 || plan.augmentation.crop < 0) throw std::invalid_argument("no such augmentation");
  Shape before = plan.input;
  bool flat = plan.flat;  // the value is (features,): no window can move over it, even of one place
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const Layer& l = plan.layers[i];
    try {
      if ((int)l.op < 0 || l.op > Op::Lstm) throw std::invalid_argument("there is no such operation");
      for (const Shape& s : {l.in, l.out})
        if (s.c < 1 || s.h < 1 || s.w < 1 || s.c > MOST_SIDE || s.h > MOST_SIDE || s.w > MOST_SIDE ||
            (int64_t)s.h * s.w > MOST_UNITS || s.units() > MOST_UNITS)
          throw std::invalid_argument("a shape is empty or too large");
      if (!(l.in == before)) throw std::invalid_argument("it does not take what the layer before gives");
      const bool windowed = l.op == Op::Conv || l.op == Op::MaxPool || l.op == Op::AvgPool;
      if (windowed && (l.kernel < 1 || l.stride < 1 || l.pad < 0 || l.kernel > MOST_SIDE || l.pad > MOST_SIDE))
        throw std::invalid_argument("kernel, stride or padding is impossible");
      if (windowed && l.op != Op::Conv && l.pad) throw std::invalid_argument("pooling knows no padding");
      if (flat && (windowed || l.op == Op::GlobalAvgPool)) throw std::invalid_argument("it needs rows and columns");
      const bool steps = l.op == Op::LastStep || l.op == Op::Gru || l.op == Op::Lstm;
      if (steps && (l.in.h != 1 || flat)) throw std::invalid_argument("it needs a sequence");
      if (flat && (l.op == Op::Rows || l.op == Op::Tiles)) throw std::invalid_argument("it needs rows and columns");
      if (l.op == Op::Linear && (l.in.h != 1 || l.in.w != 1)) throw std::invalid_argument("it needs a flat input");
      if (!(output_of(l) == l.out)) throw std::invalid_argument("its output has another shape");
      if (!(l.rate < 1.0)) throw std::invalid_argument("no such rate");  // NaN too
      if (l.op == Op::Add) {
        if (l.number < -1 || l.number >= (int64_t)i) throw std::invalid_argument("it adds what no layer before gives");
        if (!((l.number < 0 ? plan.input : plan.layers[(size_t)l.number].out) == l.in))
          throw std::invalid_argument("it adds values of another shape");
      } else if (l.number < 0) {
        throw std::invalid_argument("no such number");
      }
      const int64_t size = params_of(l);
      if (size && (l.weight < 0 || size > plan.n_params || l.weight > plan.n_params - size))
        throw std::invalid_argument("its weights lie outside the vector");
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument("layer " + std::to_string(i + 1) + " of the plan: " + error.what());
    }
    before = l.out;
    flat = flat || l.op == Op::Flatten || l.op == Op::Linear || l.op == Op::GlobalAvgPool || l.op == Op::LastStep;
  }
  // What has columns is a sequence, of which `advance` is told what is right at each step.
  if (before.h != 1) throw std::invalid_argument("the last layer must give one value a class, or one at each step");
}

}  // namespace wz
