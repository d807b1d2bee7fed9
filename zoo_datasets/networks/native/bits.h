// A float64 and its bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

inline double of_bits(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, 8);
  return x;
}

inline uint64_t bits_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  return bits;
}

}  // namespace
