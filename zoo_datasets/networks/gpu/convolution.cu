// Convolutions of m networks at once, each with its own weights: one thread is a sample and a run of columns.
//
// Values lie as (m, channels, rows, columns, B): lanes of a warp read neighboring samples, and a thread keeps PW columns
// of OB channels in registers, so that a value read once serves PW · OB products. Constants come from convolution.py:
// B, K, S (stride), PAD, NT (threads), PW and OB for all. Sums run in one fixed order: the same bits every time.

#define UNITS (B * ROWS * TILES) // what threads take: sample, row, run of columns

#ifdef CONVOLVE
// CI, HI, WI in; CO, ROWS, COLUMNS out. TRANSPOSED takes the gradient of the outputs to that of the inputs.
#define OBP ((OB + 3) / 4 * 4)
#if TRANSPOSED
#define FLOOR(n) ((n) >= 0 ? (n) / S : -((S - 1 - (n)) / S))
#define BASE FLOOR(PAD - (K - 1))
#define NW (FLOOR(PW - 1 + PAD) - BASE + 1)
#else
#define NW ((PW - 1) * S + K)
#endif

extern "C" __global__ void __launch_bounds__(NT) convolve(
    const float *__restrict__ x, long long x_stride, const float *__restrict__ w, const float *__restrict__ bias,
    float *__restrict__ y) {
  __shared__ float4 shared[CB * K * K * OBP / 4];
  float *weights = reinterpret_cast<float *>(shared);
  const int unit = blockIdx.x * NT + threadIdx.x, first = blockIdx.y * OB;
  const int b = unit % B, column = unit / B % TILES * PW, row = unit / B / TILES;
  x += blockIdx.z * x_stride;
  w += (long long)blockIdx.z * CI * CO * K * K;
  y += (long long)blockIdx.z * CO * ROWS * COLUMNS * B;

  float sum[OB][PW];
#pragma unroll
  for (int o = 0; o < OB; ++o) {
#if TRANSPOSED
    const float start = 0;
#else
    const float start = first + o < CO ? bias[blockIdx.z * CO + first + o] : 0;
#endif
#pragma unroll
    for (int p = 0; p < PW; ++p) sum[o][p] = start;
  }
  for (int c0 = 0; c0 < CI; c0 += CB) {
    __syncthreads();
    for (int i = threadIdx.x; i < CB * K * K * OBP; i += NT) {
      const int o = i % OBP, tap = i / OBP % (K * K), c = c0 + i / OBP / (K * K), out = first + o;
      const bool there = o < OB && out < CO && c < CI;
#if TRANSPOSED
      weights[i] = there ? w[(c * CO + out) * K * K + tap] : 0;
#else
      weights[i] = there ? w[(out * CI + c) * K * K + tap] : 0;
#endif
    }
    __syncthreads();
    if (unit >= UNITS) continue;
    for (int c = 0; c < CB && c0 + c < CI; ++c) {
#if K * K * PW * OB <= 1600
#pragma unroll
#else
#pragma unroll 1
#endif
      for (int kh = 0; kh < K; ++kh) {
#if TRANSPOSED
        if (row + PAD - kh < 0 || (row + PAD - kh) % S) continue;
        const int in = (row + PAD - kh) / S, left = column / S + BASE;
#else
        const int in = row * S + kh - PAD, left = column * S - PAD;
#endif
        if (in < 0 || in >= HI) continue;
        const float *line = x + ((long long)(c0 + c) * HI + in) * WI * B + b;
        float window[NW];
#pragma unroll
        for (int j = 0; j < NW; ++j) window[j] = left + j >= 0 && left + j < WI ? line[(left + j) * B] : 0.f;
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
          const float4 *own = shared + ((c * K + kh) * K + kw) * (OBP / 4);
          float4 four[OBP / 4];
#pragma unroll
          for (int o = 0; o < OBP / 4; ++o) four[o] = own[o];
          const float *factor = reinterpret_cast<const float *>(four);
#pragma unroll
          for (int p = 0; p < PW; ++p) {
#if TRANSPOSED
            if ((p + PAD - kw + S * K) % S) continue; // no output was computed from this column by this tap
            const float value = window[FLOOR(p + PAD - kw) - BASE];
#else
            const float value = window[p * S + kw];
#endif
#pragma unroll
            for (int o = 0; o < OB; ++o) sum[o][p] = fmaf(factor[o], value, sum[o][p]);
          }
        }
      }
    }
  }
  if (unit >= UNITS) return;
#pragma unroll
  for (int o = 0; o < OB; ++o)
#pragma unroll
    for (int p = 0; p < PW; ++p)
      if (first + o < CO && column + p < COLUMNS)
        y[((long long)((first + o) * ROWS + row) * COLUMNS + column + p) * B + b] = sum[o][p];
}
#endif

#ifdef WEIGHT_GRADIENT
// A block is a network, an input channel with KR rows of the kernel, and OB output channels: it keeps their sums over
// all samples and places. C, H, W of the inputs; O, ROWS, COLUMNS of the outputs.
#define SUMS (OB * KR * K + OB) // the last OB are of the bias
#define NW ((PW - 1) * S + K)
#define AT_ONCE 32

extern "C" __global__ void __launch_bounds__(NT) weight_gradient(
    const float *__restrict__ x, long long x_stride, const float *__restrict__ g, float *__restrict__ dw,
    float *__restrict__ db) {
  __shared__ float column_sums[AT_ONCE * (NT + 4)], quarters[AT_ONCE * 4];
  const int c = blockIdx.x / PARTS, top = blockIdx.x % PARTS * KR, first = blockIdx.y * OB;
  x += blockIdx.z * x_stride + (long long)c * H * W * B;
  g += (long long)blockIdx.z * O * ROWS * COLUMNS * B;

  float sum[SUMS];
#pragma unroll
  for (int i = 0; i < SUMS; ++i) sum[i] = 0;
  for (int unit = threadIdx.x; unit < UNITS; unit += NT) {
    const int b = unit % B, column = unit / B % TILES * PW, row = unit / B / TILES;
    float gradient[OB][PW];
#pragma unroll
    for (int o = 0; o < OB; ++o)
#pragma unroll
      for (int p = 0; p < PW; ++p) {
        gradient[o][p] = first + o < O && column + p < COLUMNS
                             ? g[((long long)((first + o) * ROWS + row) * COLUMNS + column + p) * B + b]
                             : 0.f;
        sum[OB * KR * K + o] += gradient[o][p];
      }
#pragma unroll
    for (int r = 0; r < KR; ++r) {
      const int in = row * S + top + r - PAD, left = column * S - PAD;
      if (in < 0 || in >= H || top + r >= K) continue;
      const float *line = x + (long long)in * W * B + b;
      float window[NW];
#pragma unroll
      for (int j = 0; j < NW; ++j) window[j] = left + j >= 0 && left + j < W ? line[(left + j) * B] : 0.f;
#pragma unroll
      for (int o = 0; o < OB; ++o)
#pragma unroll
        for (int kw = 0; kw < K; ++kw)
#pragma unroll
          for (int p = 0; p < PW; ++p)
            sum[(o * KR + r) * K + kw] = fmaf(gradient[o][p], window[p * S + kw], sum[(o * KR + r) * K + kw]);
    }
  }
  // Over threads: so many sums at a time, each by four threads, then the four.
#pragma unroll
  for (int start = 0; start < SUMS; start += AT_ONCE) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < AT_ONCE; ++v)
      if (start + v < SUMS) column_sums[v * (NT + 4) + threadIdx.x] = sum[start + v];
    __syncthreads();
    for (int i = threadIdx.x; i < AT_ONCE * 4; i += NT) {
      float all = 0;
      if (start + i / 4 < SUMS)
        for (int j = i % 4; j < NT; j += 4) all += column_sums[i / 4 * (NT + 4) + j];
      quarters[i] = all;
    }
    __syncthreads();
    for (int v = threadIdx.x; v < AT_ONCE && start + v < SUMS; v += NT) {
      const int i = start + v;
      const float all = (quarters[4 * v] + quarters[4 * v + 1]) + (quarters[4 * v + 2] + quarters[4 * v + 3]);
      if (i < OB * KR * K) {
        const int o = first + i / (KR * K), kh = top + i / K % KR, kw = i % K;
        if (o < O && kh < K) dw[(((long long)blockIdx.z * O + o) * C + c) * K * K + kh * K + kw] = all;
      } else if (first + i - OB * KR * K < O && c == 0 && top == 0) {
        db[(long long)blockIdx.z * O + first + i - OB * KR * K] = all;
      }
    }
  }
}
#endif

#ifdef MAX_POOL
// H, W in, ROWS, COLUMNS out, of one (network, channel) pair per block. The place of a maximum is one byte: its tap.
extern "C" __global__ void __launch_bounds__(NT) max_pool(
    const float *__restrict__ x, float *__restrict__ y, unsigned char *__restrict__ places) {
  x += (long long)blockIdx.x * H * W * B;
  y += (long long)blockIdx.x * ROWS * COLUMNS * B;
  places += (long long)blockIdx.x * ROWS * COLUMNS * B;
  for (int i = threadIdx.x; i < ROWS * COLUMNS * B; i += NT) {
    const int b = i % B, column = i / B % COLUMNS, row = i / B / COLUMNS;
    const float *corner = x + (row * S * W + column * S) * B + b;
    float most = corner[0];
    int place = 0;
#pragma unroll
    for (int tap = 1; tap < K * K; ++tap) {
      const float value = corner[(tap / K * W + tap % K) * B];
      if (value > most || value != value) most = value, place = tap; // NaN stays, as in PyTorch
    }
    y[i] = most;
    places[i] = place;
  }
}

extern "C" __global__ void __launch_bounds__(NT) max_pool_gradient(
    const float *__restrict__ g, const unsigned char *__restrict__ places, float *__restrict__ dx) {
  g += (long long)blockIdx.x * ROWS * COLUMNS * B;
  places += (long long)blockIdx.x * ROWS * COLUMNS * B;
  dx += (long long)blockIdx.x * H * W * B;
#if K <= S // a cell of S × S values holds one window, or none at the edge
  const int across = (W + S - 1) / S, down = (H + S - 1) / S;
  for (int i = threadIdx.x; i < down * across * B; i += NT) {
    const int b = i % B, column = i / B % across, row = i / B / across;
    const bool whole = row < ROWS && column < COLUMNS;
    const int at = (row * COLUMNS + column) * B + b, place = whole ? places[at] : 0;
    const float value = whole ? g[at] : 0;
#pragma unroll
    for (int h = 0; h < S; ++h)
#pragma unroll
      for (int w = 0; w < S; ++w)
        if (row * S + h < H && column * S + w < W)
          dx[((row * S + h) * W + column * S + w) * B + b] = h < K && w < K && place == h * K + w ? value : 0;
  }
#else
  for (int i = threadIdx.x; i < H * W * B; i += NT) {
    const int b = i % B, w = i / B % W, h = i / B / W;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < (K + S - 1) / S; ++r) // the windows that hold this place
#pragma unroll
      for (int c = 0; c < (K + S - 1) / S; ++c) {
        const int row = h / S - r, column = w / S - c, tap = (h - row * S) * K + w - column * S;
        const int at = (row * COLUMNS + column) * B + b;
        if (row >= 0 && row < ROWS && column >= 0 && column < COLUMNS && h - row * S < K && w - column * S < K &&
            places[at] == tap)
          sum += g[at];
      }
    dx[i] = sum;
  }
#endif
}
#endif
