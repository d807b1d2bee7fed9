// What a step draws, of m networks at once: their images as they see them, and which units stay.
//
// Definitions: streams.py, augment.py and distort.py, which these match bit for bit, as augment.cpp does: whole numbers, and
// float32 and float64 + − × ÷ √ one by one. Compiled with --fmad=false, so that nothing is fused. Constants come from draws.py.
#include "as241.inc"

typedef unsigned long long word;

__device__ void philox(const word *key, word i, word a, word b, word c, word out[4]) {
  word x0 = i, x1 = a, x2 = b, x3 = c, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const word p0 = 0xD2E7470EE14C6C93ull * x0, p1 = 0xCA5A826395121157ull * x2;
    const word y0 = __umul64hi(0xCA5A826395121157ull, x2) ^ x1 ^ k0, y2 = __umul64hi(0xD2E7470EE14C6C93ull, x0) ^ x3 ^ k1;
    x1 = p1, x3 = p0, x0 = y0, x2 = y2;
    k0 += 0x9E3779B97F4A7C15ull, k1 += 0xBB67AE8584CAA73Bull;
  }
  out[0] = x0, out[1] = x1, out[2] = x2, out[3] = x3;
}

#ifdef DROPOUT
// A thread takes a block of 16 fields of one sample. UNITS of a node, `layer` its place; y (m, B, UNITS).
#define FIELDS 16
#define BLOCKS ((UNITS + FIELDS - 1) / FIELDS)

extern "C" __global__ void __launch_bounds__(NT) dropout(
    const word *__restrict__ keys, const long long *__restrict__ step, long long layer, const long long *__restrict__ thresholds,
    const float *__restrict__ scales, float *__restrict__ y) {
  const int unit = blockIdx.x * NT + threadIdx.x, model = blockIdx.y;
  if (unit >= B * BLOCKS) return;
  const int sample = unit / BLOCKS, first = unit % BLOCKS * FIELDS;
  word w[4];
  philox(keys + 2 * model, (word)unit + 1, *step, layer, 1, w);
  y += ((long long)model * B + sample) * UNITS + first;
  for (int i = 0; i < FIELDS && first + i < UNITS; ++i)
    y[i] = (long long)(w[i / 4] >> (16 * (i % 4)) & 0xFFFF) >= thresholds[model] ? scales[model] : 0.0f;
}
#endif

#ifdef AUGMENT
// A block takes one image. C channels of ROWS × COLUMNS; `numbers` as draws.py orders them; rows (m, B) of the pool.
#define PLANE (ROWS * COLUMNS)
#define STREAM 2
enum { TRANSLATE, ROTATE, ZOOM, SHEAR, BRIGHTNESS, CONTRAST, HUE = CONTRAST + 2, SATURATION, GRAIN = SATURATION + 2, TABLES };
#define FILL(c) ((float)numbers[TABLES + (c)])
#define MEAN(c) ((float)numbers[TABLES + C + (c)])
#define STD(c) ((float)numbers[TABLES + 2 * C + (c)])
#define NOISE(c) (numbers[TABLES + 3 * C + (c)])

// ── noise ──

__device__ const double CENTRAL[2][8] = AS241_CENTRAL, MIDDLE[2][8] = AS241_MIDDLE, FAR[2][8] = AS241_FAR;

__device__ double ratio(double x, const double (&c)[2][8]) {
  double top = 0.0, bottom = 0.0;
  for (int k = 7; k >= 0; --k) top = top * x + c[0][k], bottom = bottom * x + c[1][k];
  return top / bottom;
}

// ln p, p > 0 and normal.
__device__ double log_plain(double p) {
  const long long bits = __double_as_longlong(p);
  const double m = __longlong_as_double((bits & 0xFFFFFFFFFFFFFll) | 0x3FE0000000000000ll);  // in [½, 1)
  const bool small = m < 0.70710678118654752440;
  const double e = (double)((bits >> 52) - (small ? 1 : 0)) - 1022.0, scaled = small ? m * 2.0 : m;
  const double t = (scaled - 1.0) / (scaled + 1.0), t2 = t * t;
  double series = 0.0;
  for (int k = 21; k > 0; k -= 2) series = series * t2 + 1.0 / k;
  return 2.0 * t * series + e * 0.6931471805599453;
}

__device__ double normal(word w) {
  const double k = (double)(w >> 11);
  const double q = (2.0 * (k - 4503599627370496.0) + 1.0) * (1.0 / 18014398509481984.0);  // 2^52, 2^-54
  if (fabs(q) <= 0.425) return q * ratio(0.180625 - q * q, CENTRAL);
  const double r = sqrt(-log_plain(0.5 - fabs(q)));
  const double far = r <= 5.0 ? ratio(r - 1.6, MIDDLE) : ratio(r - 5.0, FAR);
  return q < 0 ? -far : far;
}

// Adds normals of this sample to its image, times `scale`, or times the noise of each channel.
__device__ void add_noise(const word *key, word step, word stream, long long sample, double scale,
                          const double *numbers, float *x) {
  const long long start = sample * C * PLANE, end = start + C * PLANE;
  for (long long block = start / 4 + threadIdx.x; 4 * block < end; block += NT) {
    word w[4];
    philox(key, (word)block + 1, step, stream, STREAM, w);
    for (int i = 0; i < 4; ++i) {
      const long long at = 4 * block + i;
      if (at < start || at >= end) continue;
      const int unit = (int)(at - start);
      x[unit] = x[unit] + (float)(normal(w[i]) * (scale >= 0 ? scale : NOISE(unit / PLANE)));
    }
  }
}

// ── places ──

__device__ int reflect(int at, int n) {
  if (at < 0) at = -at;
  return at >= n ? 2 * (n - 1) - at : at;
}

__device__ int draw(word field, int reach) { return (int)(field * (2 * (word)reach + 1) >> 24) - reach; }

// Where the pixels of a shifted, cropped or flipped image lie in the pool's.
struct Move {
  const float *image;
  int shift_row, shift_column, crop_row, crop_column;
  bool flip;
};

__device__ float moved(const Move &m, const double *numbers, int channel, int row, int column) {
#if MOVES
  const int from_row = reflect(row + m.crop_row, ROWS) - m.shift_row;
  const int from = reflect((m.flip ? COLUMNS - 1 - column : column) + m.crop_column, COLUMNS) - m.shift_column;
  if (from_row < 0 || from_row >= ROWS || from < 0 || from >= COLUMNS) return FILL(channel);
  return m.image[channel * PLANE + from_row * COLUMNS + from];
#else
  return m.image[channel * PLANE + row * COLUMNS + column];
#endif
}

__device__ double either_way(double u, double reach) { return (2.0 * u - 1.0) * reach; }

// exact.cosine_half: cos(πx) for x in [0, 1].
__device__ double cosine_half(double x) {
  const bool second = x > 0.5;
  if (second) x = 1.0 - x;
  const double angle = 3.141592653589793 * x, z = -angle * angle;
  double term = 1.0, total = 1.0;
  for (int k = 1; k < 14; ++k) term = term * (z / ((2 * k - 1) * (2 * k))), total = total + term;
  return second ? -total : total;
}

__device__ double cosine(double degrees) { return cosine_half(fabs(degrees) / 180.0); }

__device__ double sine(double degrees) {
  const double positive = cosine_half(fabs(0.5 - fabs(degrees) / 180.0));
  return degrees < 0 ? -positive : positive;
}

// Places are in units of 2^-16 pixels.
__device__ long long units_of(double pixels) { return (long long)rint(pixels * 65536.0); }

// ── colors ──

__device__ float above_zero(float x) { return x > 0.0f ? x : 0.0f; }
__device__ float below_one(float x) { return x < 1.0f ? x : 1.0f; }
__device__ float larger(float a, float b) { return a > b ? a : b; }
__device__ float smaller(float a, float b) { return a < b ? a : b; }

__device__ float channel_of(float hue, float offset, float value, float spread) {
  float k = hue + offset;
  k = k >= 6.0f ? k - 6.0f : k;
  return value - spread * above_zero(below_one(smaller(k, 4.0f - k)));
}

__device__ void tint(float turn, float factor, float *red, float *green, float *blue) {
  const float r = *red, g = *green, b = *blue;
  const float value = larger(larger(r, g), b), over_zero = value - smaller(smaller(r, g), b);
  const float over = over_zero > 0.0f ? over_zero : 1.0f;
  const float first = (g - b) / over, second = (b - r) / over + 2.0f, third = (r - g) / over + 4.0f;
  float hue = (value == r ? first : value == g ? second : third) + turn;
  hue = hue < 0.0f ? hue + 6.0f : hue;
  hue = hue >= 6.0f ? hue - 6.0f : hue;
  const float spread = smaller(over_zero * factor, above_zero(value));
  *red = channel_of(hue, 5.0f, value, spread);
  *green = channel_of(hue, 3.0f, value, spread);
  *blue = channel_of(hue, 1.0f, value, spread);
}

extern "C" __global__ void __launch_bounds__(NT) augment(
    const float *__restrict__ pool, const long long *__restrict__ rows, const word *__restrict__ keys,
    const long long *__restrict__ step, const double *__restrict__ numbers, float *__restrict__ y) {
  const long long sample = blockIdx.x, model = blockIdx.y, place = model * B + sample;
  const word *key = keys + 2 * model;
  const word now = (word)*step;
  word w[8];
  Move move = {pool + rows[place] * C * PLANE, 0, 0, 0, 0, false};
  y += place * C * PLANE;
#if MOVES
  philox(key, (word)sample + 1, now, 0, STREAM, w);
  move.shift_row = draw(w[0] >> 40, SHIFT), move.shift_column = draw(w[1] >> 40, SHIFT);
  move.crop_row = draw(w[2] >> 40, CROP), move.crop_column = draw(w[2] >> 16 & 0xFFFFFF, CROP);
  move.flip = FLIP && w[3] >> 63;
#endif
#if WARPS || COLORS
  double u[10];  // row, column, rotate, zoom, shear, brightness, contrast, hue, saturation, noise
  for (int i = 0; i < 2; ++i) philox(key, 2 * (word)sample + 1 + i, now, 2, STREAM, w + 4 * i);
  for (int i = 0; i < 10; ++i)
    u[i] = (double)(i % 2 ? w[i / 2] >> 16 & 0xFFFFFF : w[i / 2] >> 40) * (1.0 / 16777216.0);
#endif
#if WARPS
  const double angle = either_way(u[2], numbers[ROTATE]), slant = either_way(u[4], numbers[SHEAR]);
  const double zoom = 1.0 + either_way(u[3], numbers[ZOOM]);
  const double c = cosine(angle) / zoom, s = sine(angle) / zoom, tangent = sine(slant) / cosine(slant);
  const long long xx = units_of(c * 0.5), xy = units_of((s - c * tangent) * 0.5);
  const long long yx = units_of(-s * 0.5), yy = units_of((c + s * tangent) * 0.5);
  const long long x0 = units_of((COLUMNS - 1) * 0.5 - either_way(u[1], numbers[TRANSLATE]));
  const long long y0 = units_of((ROWS - 1) * 0.5 - either_way(u[0], numbers[TRANSLATE]));
#endif
  for (int i = threadIdx.x; i < PLANE; i += NT) {
    const int row = i / COLUMNS, column = i % COLUMNS;
#if WARPS
    const long long right = 2 * column - (COLUMNS - 1), down = 2 * row - (ROWS - 1);
    const long long x = xx * right + xy * down + x0, z = yx * right + yy * down + y0;
    const long long left = x >> 16, top = z >> 16;
    const float fx = (float)(x & 65535) * (float)(1 / 65536.0), fy = (float)(z & 65535) * (float)(1 / 65536.0);
    const float gx = 1.0f - fx, gy = 1.0f - fy;
    const bool l = left >= 0 && left < COLUMNS, r = left + 1 >= 0 && left + 1 < COLUMNS;
    const bool t = top >= 0 && top < ROWS, b = top + 1 >= 0 && top + 1 < ROWS;
#define AT(inside, down, right) ((inside) ? moved(move, numbers, ch, (int)(top + down), (int)(left + right)) : FILL(ch))
#endif
    for (int ch = 0; ch < C; ++ch) {
#if WARPS
      const float above = gx * AT(t && l, 0, 0) + fx * AT(t && r, 0, 1);
      const float below = gx * AT(b && l, 1, 0) + fx * AT(b && r, 1, 1);
      float value = gy * above + fy * below;
#else
      float value = moved(move, numbers, ch, row, column);
#endif
#if COLORS
      value = value * STD(ch) + MEAN(ch);
#if BRIGHTENS
      value = value + (float)either_way(u[5], numbers[BRIGHTNESS]);
#endif
#endif
      y[ch * PLANE + i] = value;
    }
  }
#if COLORS
#if CONTRASTS
  __shared__ float middle[C];
  __syncthreads();
  for (int ch = threadIdx.x; ch < C; ch += NT) {  // one after another: the order of a sum decides its last bits
    double total = 0;
    for (int i = 0; i < PLANE; ++i) total = total + (double)y[ch * PLANE + i];
    middle[ch] = (float)(total / (double)PLANE);
  }
  __syncthreads();
  const float factor = (float)(numbers[CONTRAST] + (numbers[CONTRAST + 1] - numbers[CONTRAST]) * u[6]);
  for (int i = threadIdx.x; i < C * PLANE; i += NT) y[i] = (y[i] - middle[i / PLANE]) * factor + middle[i / PLANE];
#endif
#if TINTS
  __syncthreads();
  const float turn = (float)(6.0 * either_way(u[7], numbers[HUE]));
  const float saturation = (float)(numbers[SATURATION] + (numbers[SATURATION + 1] - numbers[SATURATION]) * u[8]);
  for (int i = threadIdx.x; i < PLANE; i += NT) tint(turn, saturation, y + i, y + PLANE + i, y + 2 * PLANE + i);
#endif
#if GRAINY
  __syncthreads();
  add_noise(key, now, 3, sample, u[9] * numbers[GRAIN], numbers, y);
#endif
  __syncthreads();
  for (int i = threadIdx.x; i < C * PLANE; i += NT)
    y[i] = (below_one(above_zero(y[i])) - MEAN(i / PLANE)) / STD(i / PLANE);
#endif
#if NOISY
  __syncthreads();
  add_noise(key, now, 1, sample, -1.0, numbers, y);
#endif
}
#endif
