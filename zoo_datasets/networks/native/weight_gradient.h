// A convolution's gradient by its weights and biases for one block of eight samples.
#pragma once

#include "layers.h"

namespace {

// How many spans from k on are as large as that one.
inline int equal_spans(const std::vector<Span>& spans, size_t k) {
  size_t end = k;
  while (end < spans.size() && spans[end].size == spans[k].size) ++end;
  return (int)(end - k);
}

// Positions are taken in strips of whole rows, so that what is read again for each block of taps stays
// in the first-level cache. Sums do not depend on where a strip ends.
struct WeightGradient {
  std::vector<int32_t> taps, unpacked;  // unpacked: where each sum belongs in [o][tap], then in the biases
  std::vector<Place> places;      // of one strip
  std::vector<Span> strips;       // of rows
  Cut blocks;
  int n_o, width, n_positions, end;  // end: of the positions whose gradient is not 0 anyway
  ptrdiff_t x_origin, x_row;      // in v8; x_row: from the window of a row to that of the next
  ptrdiff_t y_plane;              // of a strip of dY, which has no halo

  size_t n_sums() const { return taps.size() * (size_t)n_o; }
  size_t part_size() const { return n_sums() + 4 * (size_t)n_o; }

  // Sums of weights, block after block, and of biases [o] are v8: their lanes are summed once per step.
  // `part` keeps them between the strips of one block of samples.
  void add(const Span& strip, const v8* dy, const v8* x, v8* part, v8* sums) const {
    const int from = strip.start * width, to = from + strip.size * width;
    const bool first = from == 0, last = to == end;
    x += x_origin + strip.start * x_row;
    v8 *chains = part + n_sums(), *bias = sums + n_sums();
    for (const Span& o : blocks.o) {
      for (int k = o.start; k < o.start + o.size; ++k) add_bias(dy + k * y_plane, from, to, first, last, chains + 4 * k, bias[k]);
      for (size_t k = 0; k < blocks.x.size();) {
        const Span& t = blocks.x[k];
        const int n = equal_spans(blocks.x, k), size = n * o.size * t.size;
        CORRELATE[o.size - 1][t.size - 1]({taps.data() + t.start, y_plane * (ptrdiff_t)sizeof(v8), places.data(),
                                           places.data() + (to - from), first, last},
                                          dy + o.start * y_plane, x, part, sums, n);
        part += size, sums += size, k += (size_t)n;
      }
    }
  }

 private:
  // Four chains hide the latency of adding: position p goes to chain p mod 4, the last few to the first.
  void add_bias(const v8* plane, int from, int to, bool first, bool last, v8* chains, v8& bias) const {
    const int whole = std::min(to, n_positions / 4 * 4), turn = from % 4;
    v8 sum[4];
    for (int k = 0; k < 4; ++k) sum[k] = first ? k ? splat(0.0f) : bias : chains[(turn + k) % 4];
    int p = from;
    for (; p + 4 <= whole; p += 4, plane += 4)
      for (int k = 0; k < 4; ++k) sum[k] = sum[k] + plane[k];
    for (int k = 0; p < whole; ++p, ++k) sum[k] = sum[k] + *plane++;
    for (; p < to; ++p) sum[(4 - turn) % 4] = sum[(4 - turn) % 4] + *plane++;
    for (int k = 0; k < 4; ++k) chains[(turn + k) % 4] = sum[k];
    if (last) bias = (chains[0] + chains[1]) + (chains[2] + chains[3]);
  }
};

// `pooled`: dY holds one strip, and a strip has pairs of rows.
inline WeightGradient weight_gradient(const wz::Layer& l, const Geometry& in, bool pooled) {
  constexpr int B = sizeof(v8);
  constexpr ptrdiff_t CACHE = 26 * 1024;  // of the first level
  WeightGradient g;
  for (int ic = 0; ic < l.in.c; ++ic)
    for (int a = 0; a < l.kernel; ++a)
      for (int b = 0; b < l.kernel; ++b) g.taps.push_back((int32_t)(B * (ic * in.plane + a * in.row + b)));
  const int n_taps = (int)g.taps.size();
  g.n_o = l.out.c, g.width = l.out.w, g.n_positions = l.out.h * l.out.w;
  g.x_origin = in.origin - l.pad * (in.row + 1), g.x_row = l.stride * in.row;
  g.blocks = cut(g.n_o, n_taps, g.n_positions);
  const int unit = pooled ? 2 : 1, units = l.out.h / unit;
  g.end = units * unit * g.width;
  const ptrdiff_t row_bytes = B * (g.blocks.o[0].size * (ptrdiff_t)g.width + g.x_row);
  int tallest = 0;
  for (const Span& s : even_spans(units, (int)std::max<ptrdiff_t>(1, CACHE / (row_bytes * unit)))) {
    g.strips.push_back({s.start * unit, s.size * unit});
    tallest = std::max(tallest, s.size * unit);
  }
  g.y_plane = (pooled ? tallest : l.out.h) * g.width;
  for (int h = 0; h < tallest; ++h)
    for (int w = 0; w < g.width; ++w) g.places.push_back({(int32_t)(B * (h * g.width + w)), (int32_t)(B * (h * g.x_row + l.stride * w))});
  for (const Span& o : g.blocks.o)
    for (const Span& t : g.blocks.x)
      for (int i = 0; i < o.size * t.size; ++i) g.unpacked.push_back((o.start + i / t.size) * n_taps + t.start + i % t.size);
  for (int o = 0; o < l.out.c; ++o) g.unpacked.push_back(l.out.c * n_taps + o);
  return g;
}

}  // namespace
