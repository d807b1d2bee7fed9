// Images as a model sees them at a step: moved, distorted, with noise.
#pragma once

#include <cstdint>

#include "random.h"

namespace wz {

// How far the draws of one image reach: contract.py says what they do.
struct Distortion {
  double translate = 0, rotate = 0, zoom = 0, shear = 0, brightness = 0, contrast[2] = {1, 1}, hue = 0,
         saturation[2] = {1, 1}, noise = 0;
  int n_scale = 0;
  float mean[64], std[64];  // scaled = (pixel - mean) / std
  bool warps() const { return translate > 0 || rotate > 0 || zoom > 0 || shear > 0; }
  bool contrasts() const { return contrast[0] != 1 || contrast[1] != 1; }
  bool tints() const { return hue > 0 || saturation[0] != 1 || saturation[1] != 1; }
  bool colors() const { return brightness > 0 || contrasts() || tints() || noise > 0; }
  bool any() const { return warps() || colors(); }
};

struct Augmentation {
  int shift = 0, crop = 0;
  bool flip = false;
  int n_noise = 0, n_fill = 0;
  double noise[64];
  float fill[64];
  Distortion distortion;
  bool moves() const { return shift || crop || flip; }
  bool any() const { return moves() || n_noise || distortion.any(); }
};

// The augmented image of the sample at place `sample` of its batch, by the build of each instruction set; out and in do
// not overlap.
using Augment = void(const Augmentation& a, const Key& key, uint64_t step, int64_t sample, int channels, int rows,
                     int columns, bool flat, const float* in, float* out);
Augment augment_plain, augment_avx2, augment_avx512;

}  // namespace wz
