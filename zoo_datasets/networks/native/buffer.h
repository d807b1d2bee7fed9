// Memory of an engine: zeroed, aligned for v8, and grown where a larger batch needs it.
#pragma once

#include <cstdlib>
#include <new>

#include "simd.h"

namespace {

template <class T>
struct Buffer {
  T* data = nullptr;
  size_t size = 0;
  void reserve(size_t n) {
    if (n <= size) return;
    std::free(data);
    size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
    data = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data) throw std::bad_alloc();
    std::memset(static_cast<void*>(data), 0, bytes);
    size = n;
  }
  ~Buffer() { std::free(data); }
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

}  // namespace
