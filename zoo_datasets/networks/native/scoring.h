// What comes of logits: losses and right answers of many models in one call.
#pragma once

#include <cstdint>

namespace wz {

struct Scoring {
  int64_t models = 0, n = 0, classes = 0;
  int64_t sets = 0, label_rows = 0;  // sets of labels; rows of each: one for all models, or one a model
  bool mse = false;                  // else cross-entropy
  const float* logits = nullptr;     // (models, n, classes)
  const int64_t* labels = nullptr;   // (sets, label_rows, n), each in [0, classes)
  double* losses = nullptr;          // (sets, models): sums over examples, from first to last
  int64_t* correct = nullptr;        // (sets, models, classes)
};

using Score = void (*)(const Scoring&);

}  // namespace wz
