// The streams of streams.py below Python: Philox words, dropout masks, augmentation.
//
// Compiled once, without fused operations, because the definitions are in plain integers
// and float64 + − × ÷ √.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wz {

constexpr uint64_t STREAM_DROPOUT = 1, STREAM_AUGMENT = 2;

struct Key {
  uint64_t word[2];
};

// The four words of block i (i = 1, 2, …) of counter (i, a, b, c).
void philox(const Key& key, uint64_t i, uint64_t a, uint64_t b, uint64_t c, uint64_t out[4]);

// Standard normal of one raw word (AS 241).
double normal(uint64_t word);

// One byte per unit, bit k set where the unit of sample `first + k` stays; k < 8.
void dropout_bits(const Key& key, uint32_t threshold, uint64_t step, uint64_t layer, int64_t first, int64_t units,
                  uint16_t* fields /* scratch, units rounded up to 16 */, uint8_t* bits);

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

// The augmented image of the sample at place `sample` of its batch; out and in do not overlap.
void augment(const Augmentation& a, const Key& key, uint64_t step, int64_t sample, int channels, int rows, int columns,
             bool flat, const float* in, float* out);

}  // namespace wz
