// The streams of streams.py below Python: Philox words, normals, dropout masks.
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

// Standard normals of n raw words (AS 241).
void normals(const uint64_t* words, int64_t n, double* out);

// One byte per unit, bit k set where the unit of sample `first + k` stays; k < 8.
void dropout_bits(const Key& key, uint32_t threshold, uint64_t step, uint64_t layer, int64_t first, int64_t units,
                  uint16_t* fields /* scratch, units rounded up to 16 */, uint8_t* bits);

}  // namespace wz
