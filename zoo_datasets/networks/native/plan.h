// What crosses between Python's side and an engine: a plan of layers, and the arrays of a call.
#pragma once

#include <cstdint>
#include <vector>

#include "augment.h"

namespace wz {

enum class Op : int {
  Conv, MaxPool, AvgPool, GlobalAvgPool, Linear, BatchNorm, Dropout, Flatten,
  Relu, Tanh, Sigmoid, Gelu, Elu, Silu, LeakyRelu, Softmax,
  Add,
  Rows, Tiles, LastStep, Gru, Lstm,
};

struct Shape {  // of a sequence: features, 1, steps
  int c, h, w;
  int64_t units() const { return (int64_t)c * h * w; }
};

struct Layer {
  Op op;
  Shape in, out;
  int kernel, stride, pad;  // of tiles their side is the kernel; a dropout's is 1 over a sequence
  double rate;      // dropout: below 0 means the model's own
  int number;       // dropout: the layer's number in the stream's counter; add: the earlier layer whose output is
                    // added to that of the layer before, −1 for the input
  int64_t weight;   // place of its first tensor in the flat vector; the others follow it
};

enum class Loss : int { CrossEntropy, MeanSquare };
enum class Rule : int { Sgd, Adam, AdamW, RmsProp };  // contract.SGD, ADAM, ADAMW, RMSPROP

struct Plan {
  std::vector<Layer> layers;
  Shape input;
  bool flat;  // the input is (features,), not (channels, rows, columns)
  int64_t n_params;
  Loss loss;
  float norm_eps, norm_momentum, leaky_slope;
  Augmentation augmentation;
};

// Vectors over models.
struct Optimizers {
  const int32_t* kind;
  const double *momentum, *beta1, *beta2, *eps, *alpha, *weight_decay, *clip_norm;
  const uint8_t* nesterov;
};

struct Window {
  int64_t n_models, n_steps, n_examples;
  const float* pool;        // (N, units)
  float *weights, *slot1, *slot2;  // (M, P)
  int64_t first_step;
  const int64_t* batch_sizes;  // (T,)
  const int32_t *rows, *targets;  // (M, n)
  const double *lr, *bias1, *bias2;  // (M, T)
  const double* factors;  // (M, n_pieces): what multiplies lr and divides decay in a piece of the vector; null: 1
  int64_t n_pieces;
  const int64_t* pieces;  // (n_pieces + 1,) where they begin; the last is P
  // What is right at each step of the pool's sequences: values (N, T, C), or classes (N, T); both null where it is `targets`.
  const float* values;
  const int64_t* classes;
  const uint8_t* active;       // (M,)
  const double* dropout_rate;  // (M,)
  const Key *dropout_key, *augment_key;  // (M,)
  Optimizers optimizers;
  float* losses;  // (M, T)
};

struct Evaluation {
  int64_t n_models, n_shown;  // n_shown: images each model sees
  const float* images;        // (n, units)
  const int32_t* rows;        // (M, n_shown), or null: image i for every model
  const float* weights;       // (M, P)
  float* logits;              // (M, n_shown, C), of sequences (M, n_shown, T, C)
};

// Asked between steps; true means give up. Called without the interpreter's lock.
using Stop = bool (*)(void*);

class Engine {
 public:
  virtual ~Engine() = default;
  virtual bool advance(const Window& window, Stop stop, void* context) = 0;   // false: stopped
  virtual bool evaluate(const Evaluation& task, Stop stop, void* context) = 0;
};

using Make = Engine* (*)(const Plan&);

}  // namespace wz
