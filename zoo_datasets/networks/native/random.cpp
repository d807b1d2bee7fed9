// Definitions: streams.py, which these match bit for bit (tests/networks/test_native_streams.py).
#include "random.h"

#include <algorithm>
#include <cstring>

#include "normals.h"

namespace wz {

void philox(const Key& key, uint64_t i, uint64_t a, uint64_t b, uint64_t c, uint64_t out[4]) {
  uint64_t x0 = i, x1 = a, x2 = b, x3 = c, k0 = key.word[0], k1 = key.word[1];
  for (int round = 0; round < 10; ++round) {
    unsigned __int128 p0 = (unsigned __int128)0xD2E7470EE14C6C93ull * x0;
    unsigned __int128 p1 = (unsigned __int128)0xCA5A826395121157ull * x2;
    uint64_t y0 = (uint64_t)(p1 >> 64) ^ x1 ^ k0, y2 = (uint64_t)(p0 >> 64) ^ x3 ^ k1;
    x1 = (uint64_t)p1, x3 = (uint64_t)p0, x0 = y0, x2 = y2;
    k0 += 0x9E3779B97F4A7C15ull, k1 += 0xBB67AE8584CAA73Bull;
  }
  out[0] = x0, out[1] = x1, out[2] = x2, out[3] = x3;
}

void normals(const uint64_t* words, int64_t n, double* out) {
  for (int64_t i = 0; i < n; i += NORMALS_AT_ONCE)
    normals_of_block(words + i, (int)std::min<int64_t>(NORMALS_AT_ONCE, n - i), out + i);
}

void dropout_bits(const Key& key, uint32_t threshold, uint64_t step, uint64_t layer, int64_t first, int64_t units,
                  uint16_t* fields, uint8_t* bits) {
  int64_t blocks = (units + 15) / 16;
  std::memset(bits, 0, (size_t)units);
  for (int k = 0; k < 8; ++k) {
    uint64_t start = (uint64_t)(first + k) * (uint64_t)blocks + 1;
    for (int64_t b = 0; b < blocks; ++b) {
      uint64_t w[4];
      philox(key, start + (uint64_t)b, step, layer, STREAM_DROPOUT, w);
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) fields[16 * b + 4 * i + j] = (uint16_t)(w[i] >> (16 * j));
    }
    for (int64_t u = 0; u < units; ++u) bits[u] = (uint8_t)(bits[u] | ((fields[u] >= threshold) << k));
  }
}

}  // namespace wz
