// Enough of CUDA for a CPU: one block after another, its threads as threads of the system.
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>
struct Index { unsigned x, y, z; };
struct float4 { float x, y, z, w; };
static thread_local Index blockIdx, threadIdx;
static Index gridDim;
static std::barrier<> *barrier_;
#define __global__
#define __device__ static
#define __shared__ static
#define __launch_bounds__(n)
#define __restrict__ __restrict
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline void __syncthreads() { barrier_->arrive_and_wait(); }
template <class Kernel, class... Arguments>
void run_grid(Kernel kernel, Index grid, unsigned threads, Arguments... arguments) {
  gridDim = grid;
  std::barrier<> here(threads);
  barrier_ = &here;
  std::vector<std::thread> all;
  for (unsigned t = 0; t < threads; ++t)
    all.emplace_back([=] {
      threadIdx = {t, 0, 0};
      for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
          for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, z};
            kernel(arguments...);
            barrier_->arrive_and_wait();
          }
    });
  for (auto &one : all) one.join();
}
