// One layer of a plan with everything an engine keeps for it: buffers, cuts, places of its weights.
#pragma once

#include "buffer.h"
#include "pooling.h"
#include "recurrent.h"
#include "weight_gradient.h"

namespace {

inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

struct Node {
  wz::Layer layer;
  Geometry in, out, grad;       // of the input, the output, and dLoss/dOutput
  Buffer<v8> y_own, g_own;
  v8 *y = nullptr, *g = nullptr;  // where output and gradient are; set anew for each step
  int g_alias = -1;             // the node whose gradient buffer this one shares (same geometry)
  bool g_in_y = false;          // the gradient replaces the output, which nobody needs any more then
  bool then_relu = false;       // the ReLU after it is done here, and its output is this one's
  bool done_before = false;     // a ReLU that the node before does
  bool pooled = false;          // a convolution that does the max pool after it, strip by strip: neither its output
                                // nor its gradient is kept
  Buffer<v8i> taken;            // pooled: where the maxima were, [block][row][channel][windows of the row]
  bool forked = false;          // a later layer adds this output to its own input: it stays as it is until then, and
                                // the gradient comes from both
  bool by_rows = false;         // a linear layer that reads the samples where they lie
  Contraction forward;
  std::vector<Contraction> backward;
  WeightGradient weights;
  size_t pack_at = 0, back_at = 0;  // places in the packed weights
  std::vector<size_t> phase_at;
  size_t lanes_at = 0;              // conv: place in the lane gradients
  size_t wide_at = 0;               // linear: place in the padded gradients
  std::vector<Cut> row_blocks;      // linear by rows: the cut for each number of blocks at hand
  Cut outer_blocks;
  Buffer<uint8_t> bits;
  float scale = 1.0f;               // dropout: 1 / (1 − rate), of this model
  bool active = false;              // dropout: the rate of this model is not 0
  Buffer<float> mean, inverse_std;
  Recurrent recurrent;
  Buffer<v8> saved;                 // recurrent: what each block keeps for its way back
  size_t state_lanes_at = 0;        // recurrent: place of the state's weights in the lane gradients
  bool owns_output() const { return !done_before && !pooled && !(layer.op == Op::Flatten && in.contiguous()); }
  bool owns_gradient() const { return g_alias < 0 && !g_in_y && !pooled; }
  // Whether the output may lie where the input does.
  bool hands_on() const { return done_before || layer.op == Op::Dropout; }
  bool has_params() const { return layer.op == Op::Conv || layer.op == Op::Linear || layer.op == Op::BatchNorm || recurrent_layer(); }
  bool recurrent_layer() const { return ::recurrent(layer.op); }
  int64_t n_in() const { return layer.in.units(); }
};

// Whether the gradient of `made`'s output may overwrite that output: neither layer's backward
// step reads it after the first write.
inline bool outlives_output(const wz::Layer& made, const wz::Layer& reader) {
  if (made.op != Op::Conv) return false;
  switch (reader.op) {
    case Op::MaxPool: return reader.kernel == reader.stride;
    case Op::AvgPool: case Op::GlobalAvgPool: case Op::Relu: case Op::LeakyRelu: case Op::Tanh: case Op::Sigmoid: case Op::Elu:
      return true;
    default: return false;
  }
}

inline int blocks_of(int n) { return (n + LANES - 1) / LANES; }
// Lanes of block b that carry a sample, as a mask, where a tile has n samples.
inline v8i live(int n, int b) { return v8i{0, 1, 2, 3, 4, 5, 6, 7} < splat_int(n - b * LANES); }

}  // namespace
