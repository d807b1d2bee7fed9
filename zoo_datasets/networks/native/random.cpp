// Definitions: streams.py and augment.py, which these match bit for bit (tests/test_native_streams.py).
#include "random.h"

#include <cmath>
#include <cstring>
#include <vector>

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

namespace {

constexpr double CENTRAL[2][8] = {
    {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
    {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3}};
constexpr double MIDDLE[2][8] = {
    {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
constexpr double FAR[2][8] = {
    {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};

double ratio(double x, const double (&c)[2][8]) {
  double top = 0.0, bottom = 0.0;
  for (int k = 7; k >= 0; --k) top = top * x + c[0][k], bottom = bottom * x + c[1][k];
  return top / bottom;
}

double log_plain(double p) {
  int e;
  double m = std::frexp(p, &e);
  if (m < std::sqrt(0.5)) m = m * 2.0, e = e - 1;
  double t = (m - 1.0) / (m + 1.0), t2 = t * t, series = 0.0;
  for (int k = 21; k > 0; k -= 2) series = series * t2 + 1.0 / k;
  return 2.0 * t * series + e * 0.6931471805599453;
}

int reflect(int at, int n) {
  if (at < 0) at = -at;
  return at >= n ? 2 * (n - 1) - at : at;
}

int draw(uint64_t field, int reach) { return (int)(field * (2 * (uint64_t)reach + 1) >> 24) - reach; }

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
  if (d.noise > 0) {
    const double scale = u[NOISE] * d.noise;
    const uint64_t begin = (uint64_t)sample * (uint64_t)units;
    uint64_t w[4] = {0, 0, 0, 0}, have = ~0ull;
    for (int64_t i = 0; i < units; ++i) {
      uint64_t place = begin + (uint64_t)i;
      if (place / 4 != have) have = place / 4, philox(key, have + 1, step, 3, STREAM_AUGMENT, w);
      out[i] = out[i] + (float)(normal(w[place % 4]) * scale);
    }
  }
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

double normal(uint64_t word) {
  double q = (2.0 * ((double)(word >> 11) - 0x1p52) + 1.0) * 0x1p-54;
  if (std::fabs(q) <= 0.425) return q * ratio(0.180625 - q * q, CENTRAL);
  double r = std::sqrt(-log_plain(0.5 - std::fabs(q)));
  double z = r <= 5.0 ? ratio(r - 1.6, MIDDLE) : ratio(r - 5.0, FAR);
  return q < 0 ? -z : z;
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

void augment(const Augmentation& a, const Key& key, uint64_t step, int64_t sample, int channels, int rows, int columns,
             bool flat, const float* in, float* out) {
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
    int64_t plane = (int64_t)rows * columns;
    uint64_t w[4] = {0, 0, 0, 0};
    uint64_t at = (uint64_t)sample * (uint64_t)units, have = ~0ull;
    for (int64_t u = 0; u < units; ++u) {
      uint64_t place = at + (uint64_t)u;
      if (place / 4 != have) have = place / 4, philox(key, have + 1, step, 1, STREAM_AUGMENT, w);
      double scale = a.noise[a.n_noise > 1 ? u / plane : 0];
      float added = (float)(normal(w[place % 4]) * scale);
      out[u] = out[u] + added;
    }
  }
}

}  // namespace wz
