// Images as a model sees them at a step. Definitions: augment.py and distort.py, which these match bit for bit.
//
// Compiled once per instruction set (WZ_PATH names the function), nothing fused: whole numbers, and float32 and
// float64 + − × ÷ √ one by one, so that the builds agree.
#include "augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "normals.h"

namespace wz {

namespace {

int reflect(int at, int n) {
  if (at < 0) at = -at;
  return at >= n ? 2 * (n - 1) - at : at;
}

int draw(uint64_t field, int reach) { return (int)(field * (2 * (uint64_t)reach + 1) >> 24) - reach; }

// ── noise ──

// Adds normals times `scale` to n values, of which the first is at `place` of this step's stream.
void add_noise(const Key& key, uint64_t step, uint64_t stream, int64_t place, int64_t n, double scale, float* x) {
  uint64_t words[NORMALS_AT_ONCE];
  double z[NORMALS_AT_ONCE];
  for (int64_t done = 0; done < n;) {
    // Blocks of four words: the first may lie in the middle of one.
    const int64_t first = (place + done) / 4, skip = (place + done) % 4;
    const int count = (int)std::min<int64_t>(NORMALS_AT_ONCE - skip, n - done);
    for (int64_t block = 0; 4 * block < skip + count; ++block)
      philox(key, (uint64_t)(first + block + 1), step, stream, STREAM_AUGMENT, words + 4 * block);
    normals_of_block(words + skip, count, z);
    for (int i = 0; i < count; ++i) x[done + i] = x[done + i] + (float)(z[i] * scale);
    done += count;
  }
}

// ── distortion ──

enum Field { ROW, COLUMN, ROTATE, ZOOM, SHEAR, BRIGHTNESS, CONTRAST, HUE, SATURATION, NOISE, FIELDS };

double between(double u, const double (&ends)[2]) { return ends[0] + (ends[1] - ends[0]) * u; }

double either_way(double u, double reach) { return (2.0 * u - 1.0) * reach; }

// exact.cosine_half: cos(pi x) for x in [0, 1].
double cosine_half(double x) {
  if (x > 0.5) return -cosine_half(1.0 - x);
  double angle = 3.141592653589793 * x, z = -angle * angle, term = 1.0, total = 1.0;
  for (int k = 1; k < 14; ++k) term = term * (z / ((2 * k - 1) * (2 * k))), total = total + term;
  return total;
}

double cosine(double degrees) { return cosine_half(std::fabs(degrees) / 180.0); }

double sine(double degrees) {
  double positive = cosine_half(std::fabs(0.5 - std::fabs(degrees) / 180.0));
  return degrees < 0 ? -positive : positive;
}

// Places are in units of 2^-16 pixels, so that every machine rounds them alike.
constexpr double UNIT = 65536.0;
constexpr int64_t MASK = 65535;
int64_t units_of(double pixels) { return (int64_t)std::nearbyint(pixels * UNIT); }

void warp(const Augmentation& a, const double* u, int channels, int rows, int columns, const float* in, float* out) {
  const Distortion& d = a.distortion;
  double angle = either_way(u[ROTATE], d.rotate), slant = either_way(u[SHEAR], d.shear);
  double zoom = 1.0 + either_way(u[ZOOM], d.zoom);
  double c = cosine(angle) / zoom, s = sine(angle) / zoom, tangent = sine(slant) / cosine(slant);
  // Half pixels from the middle, of the place that is filled, to units of the place that is read.
  int64_t xx = units_of(c * 0.5), xy = units_of((s - c * tangent) * 0.5);
  int64_t yx = units_of(-s * 0.5), yy = units_of((c + s * tangent) * 0.5);
  int64_t x0 = units_of((columns - 1) * 0.5 - either_way(u[COLUMN], d.translate));
  int64_t y0 = units_of((rows - 1) * 0.5 - either_way(u[ROW], d.translate));
  const int64_t plane = (int64_t)rows * columns;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      int64_t right = 2 * column - (columns - 1), down = 2 * row - (rows - 1);
      int64_t x = xx * right + xy * down + x0, y = yx * right + yy * down + y0;
      int64_t left = x >> 16, top = y >> 16;
      float fx = (float)(x & MASK) * (float)(1 / UNIT), fy = (float)(y & MASK) * (float)(1 / UNIT);
      float gx = 1.0f - fx, gy = 1.0f - fy;
      float* to = out + (int64_t)row * columns + column;
      if (left >= 0 && top >= 0 && left + 1 < columns && top + 1 < rows) {
        const float* from = in + top * columns + left;
        for (int ch = 0; ch < channels; ++ch, from += plane, to += plane) {
          float above = gx * from[0] + fx * from[1], below = gx * from[columns] + fx * from[columns + 1];
          *to = gy * above + fy * below;
        }
        continue;
      }
      bool l = left >= 0 && left < columns, r = left + 1 >= 0 && left + 1 < columns;
      bool t = top >= 0 && top < rows, b = top + 1 >= 0 && top + 1 < rows;
      for (int ch = 0; ch < channels; ++ch, to += plane) {
        float fill = a.fill[a.n_fill > 1 ? ch : 0];
        auto at = [&](bool inside, int64_t y_at, int64_t x_at) {
          return inside ? in[ch * plane + y_at * columns + x_at] : fill;
        };
        float above = gx * at(t && l, top, left) + fx * at(t && r, top, left + 1);
        float below = gx * at(b && l, top + 1, left) + fx * at(b && r, top + 1, left + 1);
        *to = gy * above + fy * below;
      }
    }
}

float above_zero(float x) { return x > 0.0f ? x : 0.0f; }
float below_one(float x) { return x < 1.0f ? x : 1.0f; }
float larger(float a, float b) { return a > b ? a : b; }
float smaller(float a, float b) { return a < b ? a : b; }

// Hue and saturation of one pixel: V - d max(0, min(k, 4 - k, 1)), k the hue in sixths from 5, 3, 1.
float channel_of(float hue, float offset, float value, float spread) {
  float k = hue + offset;
  k = k >= 6.0f ? k - 6.0f : k;
  return value - spread * above_zero(below_one(smaller(k, 4.0f - k)));
}

void tint(float turn, float factor, int64_t plane, float* x) {
  float *red = x, *green = x + plane, *blue = x + 2 * plane;
  for (int64_t i = 0; i < plane; ++i) {
    float r = red[i], g = green[i], b = blue[i];
    float value = larger(larger(r, g), b), spread = value - smaller(smaller(r, g), b);
    float over = spread > 0.0f ? spread : 1.0f;
    float first = (g - b) / over, second = (b - r) / over + 2.0f, third = (r - g) / over + 4.0f;
    float hue = (value == r ? first : value == g ? second : third) + turn;
    hue = hue < 0.0f ? hue + 6.0f : hue;
    hue = hue >= 6.0f ? hue - 6.0f : hue;
    spread = smaller(spread * factor, above_zero(value));
    red[i] = channel_of(hue, 5.0f, value, spread);
    green[i] = channel_of(hue, 3.0f, value, spread);
    blue[i] = channel_of(hue, 1.0f, value, spread);
  }
}

void color(const Distortion& d, const double* u, const Key& key, uint64_t step, int64_t sample, int channels,
           int64_t plane, float* out) {
  const float shift = (float)either_way(u[BRIGHTNESS], d.brightness), factor = (float)between(u[CONTRAST], d.contrast);
  for (int ch = 0; ch < channels; ++ch) {
    const float mean = d.mean[d.n_scale > 1 ? ch : 0], std = d.std[d.n_scale > 1 ? ch : 0];
    float* x = out + ch * plane;
    for (int64_t i = 0; i < plane; ++i) x[i] = x[i] * std + mean;
    if (d.brightness > 0)
      for (int64_t i = 0; i < plane; ++i) x[i] = x[i] + shift;
    if (d.contrasts()) {
      double total = 0;
      for (int64_t i = 0; i < plane; ++i) total = total + (double)x[i];
      const float middle = (float)(total / (double)plane);
      for (int64_t i = 0; i < plane; ++i) x[i] = (x[i] - middle) * factor + middle;
    }
  }
  if (d.tints())
    tint((float)(6.0 * either_way(u[HUE], d.hue)), (float)between(u[SATURATION], d.saturation), plane, out);
  const int64_t units = channels * plane;
  if (d.noise > 0) add_noise(key, step, 3, sample * units, units, u[NOISE] * d.noise, out);
  for (int ch = 0; ch < channels; ++ch) {
    const float mean = d.mean[d.n_scale > 1 ? ch : 0], std = d.std[d.n_scale > 1 ? ch : 0];
    float* x = out + ch * plane;
    for (int64_t i = 0; i < plane; ++i) x[i] = (below_one(above_zero(x[i])) - mean) / std;
  }
}

void distort(const Augmentation& a, const Key& key, uint64_t step, int64_t sample, int channels, int rows, int columns,
             float* out) {
  uint64_t w[8];
  for (int block = 0; block < 2; ++block)
    philox(key, 2 * (uint64_t)sample + 1 + (uint64_t)block, step, 2, STREAM_AUGMENT, w + 4 * block);
  double u[FIELDS];
  for (int i = 0; i < FIELDS; ++i)
    u[i] = (double)(i % 2 ? (w[i / 2] >> 16) & 0xFFFFFF : w[i / 2] >> 40) * 0x1p-24;
  if (a.distortion.warps()) {
    thread_local std::vector<float> before;
    before.assign(out, out + (int64_t)channels * rows * columns);
    warp(a, u, channels, rows, columns, before.data(), out);
  }
  if (a.distortion.colors()) color(a.distortion, u, key, step, sample, channels, (int64_t)rows * columns, out);
}

}  // namespace

#define WZ_NAME2(path) augment_##path
#define WZ_NAME(path) WZ_NAME2(path)
void WZ_NAME(WZ_PATH)(const Augmentation& a, const Key& key, uint64_t step, int64_t sample, int channels, int rows,
                      int columns, bool flat, const float* in, float* out) {
  int64_t units = (int64_t)channels * rows * columns;
  if (a.moves() && !flat) {
    uint64_t w[4];
    philox(key, (uint64_t)sample + 1, step, 0, STREAM_AUGMENT, w);
    int shift_row = draw(w[0] >> 40, a.shift), shift_column = draw(w[1] >> 40, a.shift);
    int crop_row = draw(w[2] >> 40, a.crop), crop_column = draw((w[2] >> 16) & 0xFFFFFF, a.crop);
    bool flip = a.flip && (w[3] >> 63);
    for (int r = 0; r < rows; ++r) {
      int from_row = reflect(r + crop_row, rows) - shift_row;
      bool row_in = from_row >= 0 && from_row < rows;
      for (int c = 0; c < columns; ++c) {
        int place = flip ? columns - 1 - c : c;
        int from = reflect(place + crop_column, columns) - shift_column;
        bool inside = row_in && from >= 0 && from < columns;
        for (int ch = 0; ch < channels; ++ch)
          out[((int64_t)ch * rows + r) * columns + c] =
              inside ? in[((int64_t)ch * rows + from_row) * columns + from] : a.fill[a.n_fill > 1 ? ch : 0];
      }
    }
  } else {
    std::memcpy(out, in, (size_t)units * sizeof(float));
  }
  if (a.distortion.any() && !flat) distort(a, key, step, sample, channels, rows, columns, out);
  if (a.n_noise) {
    const int64_t one = a.n_noise > 1 ? (int64_t)rows * columns : units;  // values of one scale
    for (int64_t at = 0; at < units; at += one)
      add_noise(key, step, 1, sample * units + at, one, a.noise[at / one], out + at);
  }
}

}  // namespace wz
