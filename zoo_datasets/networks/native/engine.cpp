// One engine per thread: the training step, the evaluation, and the buffers of both.
//
// Compiled once per instruction set (WZ_PATH names the factory); see simd.h for why the
// builds agree bit for bit. A batch is cut into blocks of eight samples; as many blocks as
// fit into the second-level cache form a tile that goes forward and backward together.
// Batch norm needs the whole batch at each layer, so there the tile is the batch.

#include "batch_norm.h"
#include "layout.h"
#include "optimizers.h"

#define WZ_AUGMENT2(path) wz::augment_##path
#define WZ_AUGMENT(path) WZ_AUGMENT2(path)

namespace {

constexpr wz::Augment* AUGMENT = WZ_AUGMENT(WZ_PATH);
constexpr size_t TILE_BYTES = 192 * 1024;  // of activations; leaves room in a cache of 512 KB
constexpr size_t PACK_BYTES = 64u << 20;   // packed weights kept at once in evaluation

class NativeEngine final : public wz::Engine {
 public:
  explicit NativeEngine(const wz::Plan& plan) : plan_(plan), nodes_(plan.layers.size()) {
    const int n = (int)nodes_.size();
    for (int l = 0; l < n; ++l) nodes_[l].layer = plan.layers[l];
    for (int l = 0; l < n; ++l)
      if (nodes_[l].layer.op == Op::Add) {
        if (nodes_[l].layer.number >= 0) nodes_[nodes_[l].layer.number].forked = true;
        adds_.push_back(l);
      }
    int first = 0;
    while (first < n && nodes_[first].layer.op == Op::Flatten) ++first;
    input_rows_ = first < n && nodes_[first].layer.op == Op::Linear ? first : -1;
    for (int l : adds_)
      if (nodes_[l].layer.number < input_rows_) input_rows_ = -1;  // the input is wanted in lanes as well
    first_param_ = n;
    for (int l = n - 1; l >= 0; --l)
      if (nodes_[l].has_params()) first_param_ = l;
    for (const Node& node : nodes_) whole_batch_ |= node.layer.op == Op::BatchNorm;

    // How many blocks a tile has decides into which sums the gradient of a linear layer is cut, so it is
    // part of the arithmetic: that of layers with buffers of their own, whatever they share then.
    input_ = lay_out(nodes_, first_param_, false);
    size_t block_bytes = 1;
    for (const Node& node : nodes_)
      block_bytes += 32 * (size_t)(kept(node.layer) + (node.layer.op == Op::Flatten ? 0 : node.out.size) + (node.owns_gradient() ? node.grad.size : 0));
    if (input_rows_ < 0) block_bytes += 32 * (size_t)input_.size;
    tile_blocks_ = (int)std::max<size_t>(1, std::min<size_t>(16, TILE_BYTES / block_bytes));
    for (int l = 1; l < n; ++l)
      nodes_[l].done_before = nodes_[l - 1].then_relu =
          nodes_[l].layer.op == Op::Relu && !nodes_[l - 1].forked &&
          (nodes_[l - 1].layer.op == Op::Conv || nodes_[l - 1].layer.op == Op::MaxPool);
    // Behind the first parameters no gradient goes further, so dY is read once, in strips.
    if (first_param_ + 1 < n) {
      const wz::Layer &made = nodes_[first_param_].layer, &reader = nodes_[first_param_ + 1].layer;
      nodes_[first_param_].pooled = !nodes_[first_param_].forked && made.op == Op::Conv && reader.op == Op::MaxPool && reader.kernel == 2 && reader.stride == 2;
    }
    input_ = lay_out(nodes_, first_param_, true);

    for (int l = 0; l < n; ++l) {
      Node& node = nodes_[l];
      const wz::Layer& layer = node.layer;
      if (layer.op == Op::Conv) {
        node.forward = convolution(layer, node.in, node.pooled ? Geometry({layer.out.c, 2, layer.out.w}, 0) : node.out);
        if (node.then_relu) node.forward.finish = Finish::Relu;
        node.pack_at = grow(pack_size_, node.forward.packed_size());
        node.weights = weight_gradient(layer, node.in, node.pooled);
        if (node.pooled) strip_.reserve((size_t)node.weights.y_plane * (size_t)layer.out.c);
        else if (!node.grad.contiguous()) compact_.reserve((size_t)layer.out.units());
        part_.reserve(node.weights.part_size());
        node.lanes_at = grow(lanes_size_, node.weights.unpacked.size());
        if (l > first_param_) {
          node.backward = convolution_backward(layer, node.grad, nodes_[l - 1].grad);
          if (gates(nodes_, l))
            for (Contraction& c : node.backward) c.finish = Finish::Gate;
          for (const Contraction& c : node.backward) node.phase_at.push_back(grow(back_size_, c.packed_size()));
        }
      } else if (layer.op == Op::Linear) {
        node.by_rows = l == input_rows_;
        const int64_t n_in = node.n_in(), n_out = layer.out.c;
        if (node.by_rows) {
          node.pack_at = grow(pack_size_, (size_t)((n_in + 1) * padded(n_out)));
        } else {
          node.forward = linear(layer, false, node.in, node.out, tile_blocks_);
          node.pack_at = grow(pack_size_, node.forward.packed_size());
          widest_in_ = std::max(widest_in_, padded(n_in));
        }
        widest_out_ = std::max(widest_out_, padded(n_out));
        node.wide_at = grow(wide_size_, (size_t)(n_out * padded(n_in) + padded(n_out)));
        node.outer_blocks = cut((int)n_out, (int)(padded(n_in) / LANES), LANES * tile_blocks_);
        if (l > first_param_) {
          node.backward.push_back(linear(layer, true, node.grad, nodes_[l - 1].grad, tile_blocks_));
          node.phase_at.push_back(grow(back_size_, node.backward[0].packed_size()));
        }
      } else if (node.recurrent_layer()) {
        node.recurrent = recurrent_of(layer, node.in);
        Recurrent& r = node.recurrent;
        node.pack_at = grow(pack_size_, r.packed_size());
        node.lanes_at = grow(lanes_size_, r.by_inputs.unpacked.size());
        node.state_lanes_at = grow(lanes_size_, r.by_state.unpacked.size());
        part_.reserve(std::max(r.by_inputs.part_size(), r.by_state.part_size()));
        scratch_.reserve(r);
        size_t back = r.step_back.packed_size();
        if (l > first_param_) {
          wz::Layer inputs = layer;
          inputs.op = Op::Conv, inputs.kernel = inputs.stride = 1, inputs.pad = 0, inputs.out = {r.rows(), 1, r.steps};
          r.into_back = convolution_backward(inputs, r.planes, nodes_[l - 1].grad);
          for (const Contraction& c : r.into_back) back += c.packed_size();
        }
        node.back_at = grow(back_size_, back);
      } else if (layer.op == Op::BatchNorm) {
        node.mean.reserve((size_t)layer.in.c), node.inverse_std.reserve((size_t)layer.in.c);
      }
    }
    // Spans of parameters, merged: buffers lie between them.
    for (const Node& node : nodes_) {
      if (!node.has_params()) continue;
      const wz::Layer& layer = node.layer;
      int64_t size = layer.op == Op::Conv     ? (int64_t)layer.out.c * (layer.in.c * layer.kernel * layer.kernel + 1)
                     : layer.op == Op::Linear ? layer.out.c * (node.n_in() + 1)
                     : node.recurrent_layer() ? node.recurrent.size()
                                              : 2 * (int64_t)layer.in.c;
      if (!spans_.empty() && spans_.back().first + spans_.back().second == layer.weight) spans_.back().second += size;
      else spans_.emplace_back(layer.weight, size);
    }
    pack_.reserve(pack_size_), back_.reserve(back_size_), lanes_.reserve(lanes_size_), wide_.reserve(wide_size_);
    gradient_.reserve((size_t)plan.n_params + LANES);
  }

  bool advance(const wz::Window& w, wz::Stop stop, void* context) override {
    int64_t largest = 0;
    for (int64_t t = 0; t < w.n_steps; ++t) largest = std::max(largest, w.batch_sizes[t]);
    reserve_tile(std::min<int64_t>((largest + LANES - 1) / LANES, whole_batch_ ? INT64_MAX : tile_blocks_));
    for (int64_t m = 0; m < w.n_models; ++m) {
      if (!w.active[m]) {
        for (int64_t t = 0; t < w.n_steps; ++t) w.losses[m * w.n_steps + t] = std::nanf("");
        continue;
      }
      int64_t at = 0;
      for (int64_t t = 0; t < w.n_steps; at += w.batch_sizes[t++]) {
        if (stop(context)) return false;
        w.losses[m * w.n_steps + t] = step(w, m, t, at, (int)w.batch_sizes[t]);
      }
    }
    return true;
  }

  bool evaluate(const wz::Evaluation& task, wz::Stop stop, void* context) override {
    const int64_t P = plan_.n_params;
    const int64_t at_once = std::max<int64_t>(1, (int64_t)(PACK_BYTES / (sizeof(float) * (pack_size_ + 1))));
    const int tile = LANES * tile_blocks_;
    reserve_tile(tile_blocks_);
    Buffer<float> packs;
    packs.reserve(pack_size_ * (size_t)std::min(at_once, task.n_models) + 1);
    for (int64_t m0 = 0; m0 < task.n_models; m0 += at_once) {
      const int64_t m1 = std::min(task.n_models, m0 + at_once);
      for (int64_t m = m0; m < m1; ++m) pack(task.weights + m * P, packs.data + (size_t)(m - m0) * pack_size_, nullptr);
      for (int64_t at = 0; at < task.n_shown; at += tile) {
        const int n = (int)std::min<int64_t>(tile, task.n_shown - at);
        for (int64_t m = m0; m < m1; ++m) {
          if (stop(context)) return false;
          if (task.rows || m == m0) {
            for (int i = 0; i < n; ++i) {
              int64_t row = task.rows ? task.rows[m * task.n_shown + at + i] : at + i;
              samples_.data[i] = task.images + row * plan_.input.units();
            }
            show(n);
          }
          for (Node& node : nodes_) node.active = false;
          forward(task.weights + m * P, packs.data + (size_t)(m - m0) * pack_size_, n, false, nullptr);
          read_logits(n, task.logits + (m * task.n_shown + at) * n_classes() * n_steps());
        }
      }
    }
    return true;
  }

 private:
  static size_t grow(size_t& total, size_t n) {
    size_t at = total;
    total += (n + 15) / 16 * 16;
    return at;
  }
  int n_classes() const { return plan_.layers.back().out.c; }
  int n_steps() const { return plan_.layers.back().out.w; }
  // Values of a block that a layer keeps beside its output.
  static int64_t kept(const wz::Layer& l) { return recurrent(l.op) ? (gates_of(l.op) + 3) * l.out.units() : 0; }

  void reserve_tile(int64_t blocks) {
    const size_t nb = (size_t)blocks;
    if (nb <= reserved_) return;
    reserved_ = nb;
    input_y_.reserve(nb * (size_t)input_.size);
    for (Node& node : nodes_) {
      if (node.owns_output()) node.y_own.reserve(nb * (size_t)node.out.size);
      if (node.owns_gradient()) node.g_own.reserve(nb * (size_t)node.grad.size);
      if (node.layer.op == Op::Dropout) node.bits.reserve(nb * (size_t)node.n_in());
      if (node.recurrent_layer()) node.saved.reserve(nb * (size_t)node.recurrent.saved_size());
      if (node.by_rows) node.row_blocks.resize(nb + 1);
      if (node.pooled) node.taken.reserve(nb * (size_t)(node.layer.out.h / 2 * node.layer.out.c * taken_size(node.layer.out.w / 2)));
    }
    samples_.reserve(nb * LANES), rows_.reserve(nb * LANES), inner_rows_.reserve(nb * LANES), targets_.reserve(nb * LANES), right_.reserve(nb * LANES);
    if (plan_.augmentation.any()) augmented_.reserve(nb * LANES * (size_t)padded(plan_.input.units()));
    if (input_rows_ >= 0 && plan_.input.units() % LANES) padded_.reserve(nb * LANES * (size_t)padded(plan_.input.units()));
    wide_x_.reserve(nb * LANES * (size_t)widest_in_);
    wide_y_.reserve(nb * LANES * (size_t)(widest_out_ + LANES));
    int64_t units = 0;
    for (const Node& node : nodes_) units = std::max(units, node.n_in());
    fields_.reserve((size_t)units + 16), ordered_.reserve((size_t)units);
  }

  // ── weights ────────────────────────────────────────────────────────────────────────

  void pack(const float* weights, float* packed, float* back) const {
    for (const Node& node : nodes_) {
      const float* w = weights + node.layer.weight;
      if (node.by_rows) {  // [o][i] → [i][o], then the bias, padded with zeros
        const int64_t n_in = node.n_in(), n_out = node.layer.out.c, row = padded(n_out);
        float* to = packed + node.pack_at;
        for (int64_t o0 = 0; o0 < row; o0 += LANES)
          for (int64_t i0 = 0; i0 < n_in; i0 += LANES) {
            if (o0 + LANES <= n_out && i0 + LANES <= n_in) {
              v8 r[8];
              for (int k = 0; k < 8; ++k) r[k] = load(w + (o0 + k) * n_in + i0);
              transpose(r);
              for (int k = 0; k < 8; ++k) store(to + (i0 + k) * row + o0, r[k]);
            } else {
              for (int64_t i = i0; i < std::min(n_in, i0 + LANES); ++i)
                for (int64_t o = o0; o < o0 + LANES; ++o) to[i * row + o] = o < n_out ? w[o * n_in + i] : 0.0f;
            }
          }
        for (int64_t o = 0; o < row; ++o) to[n_in * row + o] = o < n_out ? w[n_out * n_in + o] : 0.0f;
      } else if (node.layer.op == Op::Conv || node.layer.op == Op::Linear) {
        node.forward.pack(w, packed + node.pack_at);
      } else if (node.recurrent_layer()) {
        const Recurrent& r = node.recurrent;
        r.pack(w, packed + node.pack_at);
        if (back) {
          float* to = back + node.back_at;
          r.step_back.pack(w + r.state_at(), to), to += r.step_back.packed_size();
          for (const Contraction& c : r.into_back) c.pack(w, to), to += c.packed_size();
        }
      }
      if (back)
        for (size_t k = 0; k < node.backward.size(); ++k) node.backward[k].pack(w, back + node.phase_at[k]);
    }
  }

  // ── samples ────────────────────────────────────────────────────────────────────────

  // samples_[0..n) → row pointers of whole blocks, and lanes unless the first layer reads rows.
  // Lanes without a sample repeat the block's first one: finite where the others are.
  void show(int n) {
    const int nb = blocks_of(n);
    const int64_t units = plan_.input.units();
    for (int i = 0; i < nb * LANES; ++i) rows_.data[i] = samples_.data[i < n ? i : i / LANES * LANES];
    if (input_rows_ >= 0) {
      if (units % LANES) {  // the outer product reads whole vectors
        const int64_t wide = padded(units);
        for (int i = 0; i < nb * LANES; ++i) {
          float* to = padded_.data + i * wide;
          std::memcpy(to, rows_.data[i], (size_t)units * sizeof(float));
          rows_.data[i] = to;
        }
      }
      return;
    }
    const int plane = input_.h * input_.w;
    for (int b = 0; b < nb; ++b) {
      const float* const* row = rows_.data + b * LANES;
      v8* to = input_y_.data + b * input_.size;
      for (int c = 0; c < input_.c; ++c)
        for (int h = 0; h < input_.h; ++h) {
          v8* at = to + input_.origin + c * input_.plane + h * input_.row;
          const int64_t from = (int64_t)c * plane + (int64_t)h * input_.w;
          int w = 0;
          for (; w + LANES <= input_.w; w += LANES) {
            v8 r[8];
            for (int k = 0; k < 8; ++k) r[k] = load(row[k] + from + w);
            transpose(r);
            for (int k = 0; k < 8; ++k) at[w + k] = r[k];
          }
          for (; w < input_.w; ++w) {
            v8 r;
            for (int k = 0; k < 8; ++k) r[k] = row[k][from + w];
            at[w] = r;
          }
        }
    }
  }

  // [blocks][units] of lanes → rows of `wide` floats, one per sample, and back.
  static void lanes_to_rows(const v8* from, ptrdiff_t block, int64_t units, int nb, float* to, int64_t wide) {
    for (int b = 0; b < nb; ++b)
      for (int64_t u = 0; u < units; u += LANES) {
        v8 r[8];
        const int n = (int)std::min<int64_t>(LANES, units - u);
        for (int k = 0; k < 8; ++k) r[k] = k < n ? from[b * block + u + k] : splat(0.0f);
        transpose(r);
        for (int k = 0; k < 8; ++k) store(to + (b * LANES + k) * wide + u, r[k]);
      }
  }
  static void rows_to_lanes(const float* from, int64_t wide, int64_t units, int nb, v8* to, ptrdiff_t block) {
    for (int b = 0; b < nb; ++b)
      for (int64_t u = 0; u < units; u += LANES) {
        v8 r[8];
        for (int k = 0; k < 8; ++k) r[k] = load(from + (b * LANES + k) * wide + u);
        transpose(r);
        for (int k = 0; k < (int)std::min<int64_t>(LANES, units - u); ++k) to[b * block + u + k] = r[k];
      }
  }

  void read_logits(int n, float* out) const {
    const Node& last = nodes_.back();
    const int C = n_classes(), T = n_steps();
    for (int i = 0; i < n; ++i)
      for (int t = 0; t < T; ++t)
        for (int c = 0; c < C; ++c) out[(i * T + t) * C + c] = last.y[(i / LANES) * last.out.size + c * T + t][i % LANES];
  }

  // ── forward ────────────────────────────────────────────────────────────────────────

  // `running` is the model's own vector where batch norm updates its statistics, null in evaluation.
  void forward(const float* weights, const float* packed, int n, bool training, float* running) {
    const int nb = blocks_of(n);
    for (size_t l = 0; l < nodes_.size(); ++l) {
      Node& node = nodes_[l];
      const Geometry &in = node.in, &out = node.out;
      const v8* x = l ? nodes_[l - 1].y : input_y_.data;
      const wz::Layer& layer = node.layer;
      node.y = node.y_own.data;
      v8* y = node.y;
      auto each = [&](auto f) {
        for (int b = 0; b < nb; ++b) f(x + b * in.size, y + b * out.size);
      };
      switch (layer.op) {
        case Op::Conv: {
          const float* bias = weights + layer.weight + (int64_t)layer.out.c * layer.in.c * layer.kernel * layer.kernel;
          if (node.pooled) pooled_forward((int)l, packed + node.pack_at, bias, x, nb);
          else each([&](const v8* a, v8* b) { node.forward.run(a, packed + node.pack_at, bias, b); });
          break;
        }
        case Op::Linear:
          if (node.by_rows) {
            linear_by_rows(node, packed + node.pack_at, nb);
          } else {
            resize(node.forward, nb);
            node.forward.run(x, packed + node.pack_at, weights + layer.weight + node.n_in() * layer.out.c, y);
          }
          break;
        case Op::MaxPool:
          if (l && nodes_[l - 1].pooled) break;
          each([&](const v8* a, v8* b) {
            const bool pairs = layer.kernel == 2 && layer.stride == 2;
            const auto pool = node.then_relu ? pairs ? max_pool<2, true> : max_pool<0, true> : pairs ? max_pool<2, false> : max_pool<0, false>;
            pool(layer.kernel, layer.stride, in, a, out, b);
          });
          break;
        case Op::AvgPool:
          each([&](const v8* a, v8* b) { average_pool(layer.kernel, layer.stride, in, a, out, b); });
          break;
        case Op::GlobalAvgPool: each([&](const v8* a, v8* b) { global_average(in, a, b); }); break;
        case Op::Flatten:
          if (in.contiguous()) node.y = const_cast<v8*>(x);
          else each([&](const v8* a, v8* b) { copy_compact(in, a, b); });
          break;
        case Op::Dropout:
          if (!node.active) {
            node.y = const_cast<v8*>(x);
          } else {
            for (int b = 0; b < nb; ++b)
              apply_dropout(in, x + b * in.size, out, y + b * out.size, node.bits.data + b * node.n_in(), node.scale);
          }
          break;
        case Op::Add: {
          const bool shown = layer.number < 0;
          const Geometry& skip = shown ? input_ : nodes_[(size_t)layer.number].out;
          const v8* z = shown ? input_y_.data : nodes_[(size_t)layer.number].y;
          for (int b = 0; b < nb; ++b) add(in, x + b * in.size, skip, z + b * skip.size, out, y + b * out.size);
          break;
        }
        case Op::Rows: case Op::Tiles:
          each([&](const v8* a, v8* b) { over_steps(layer, in, [&](ptrdiff_t from, ptrdiff_t to) { b[out.origin + to] = a[from]; }); });
          break;
        case Op::LastStep:
          each([&](const v8* a, v8* b) {
            for (int c = 0; c < in.c; ++c) b[c] = a[in.origin + c * in.plane + in.w - 1];
          });
          break;
        case Op::Gru: case Op::Lstm:
          for (int b = 0; b < nb; ++b)
            recurrent_forward(node.recurrent, layer.op, packed + node.pack_at, weights + layer.weight, x + b * in.size, y + b * out.size,
                              node.saved.data + b * node.recurrent.saved_size(), scratch_);
          break;
        case Op::BatchNorm:
          if (training) batch_norm_forward(plan_, node, weights + layer.weight, running + layer.weight, x, n);
          else batch_norm_evaluate(plan_, node, weights + layer.weight, x, nb);
          break;
        default:
          if (node.done_before) node.y = const_cast<v8*>(x);
          else each([&](const v8* a, v8* b) { activate(layer.op, plan_.leaky_slope, in, a, out, b); });
      }
    }
  }

  // A linear layer's grid along x is the blocks at hand; the cut along o is that of the packing.
  static void resize(Contraction& c, int nb) {
    if (c.n_x == nb) return;
    int widest = 1;
    for (const Span& o : c.blocks.o) widest = std::max(widest, o.size);
    c.n_x = nb;
    c.blocks.x = even_spans(nb, std::min(MAX_X, WZ_ACCUMULATORS / widest));
    c.set_cells([&](const Span&) { return Range{0, c.run_taps}; });
  }

  void linear_by_rows(Node& node, const float* w, int nb) {
    const int64_t n_in = node.n_in(), wide = padded(node.layer.out.c);
    Cut& blocks = node.row_blocks[(size_t)nb];
    if (blocks.o.empty()) blocks = cut(nb * LANES, (int)(wide / LANES), (int)n_in);
    const float* bias = w + n_in * wide;
    for (const Span& x : blocks.x)
      for (const Span& s : blocks.o)
        ROWS[s.size - 1][x.size - 1](rows_.data + s.start, n_in, w + LANES * x.start, wide, bias + LANES * x.start,
                                     wide_y_.data + s.start * wide + LANES * x.start, wide);
    rows_to_lanes(wide_y_.data, wide, node.layer.out.c, nb, node.y, node.out.size);
  }

  // ── loss ───────────────────────────────────────────────────────────────────────────

  // Loss of the tile's samples, summed in order, and its gradient by the logits: of the mean over `batch`.
  double loss(int n, int batch) {
    Node& last = nodes_.back();
    const int C = n_classes();
    double total = 0;
    for (int b = 0; b < blocks_of(n); ++b) {
      const v8* z = last.y + b * last.out.size;
      v8* g = last.g + b * last.grad.size;
      const v8i alive = live(n, b);
      v8i target;
      for (int k = 0; k < LANES; ++k) target[k] = targets_.data[b * LANES + k];
      v8 value;
      if (plan_.loss == wz::Loss::CrossEntropy) {
        v8 top = z[0];
        for (int c = 1; c < C; ++c) top = select(z[c] > top, z[c], top);
        v8 sum = splat(0.0f), mine = splat(0.0f);
        for (int c = 0; c < C; ++c) {
          v8 e = exp(z[c] - top);
          sum = sum + e, g[c] = e;
          mine = select(target == c, z[c] - top, mine);
        }
        value = log(sum) - mine;
        const v8 share = splat(1.0f) / sum, mean = splat(1.0f / (float)batch);
        for (int c = 0; c < C; ++c) {
          v8 p = fma(g[c], share, keep(target == c, splat(-1.0f)));
          g[c] = keep(alive, p * mean);
        }
      } else {
        value = splat(0.0f);
        const v8 mean = splat(2.0f / ((float)batch * (float)C));
        for (int c = 0; c < C; ++c) {
          v8 d = z[c] - keep(target == c, splat(1.0f));
          value = fma(d, d, value);
          g[c] = keep(alive, d * mean);
        }
      }
      for (int k = 0; k < std::min(LANES, n - b * LANES); ++k) total += (double)value[k];
    }
    return plan_.loss == wz::Loss::CrossEntropy ? total : total / C;
  }

  // The same where what is right is said for each step: `right_` are the samples' rows in the pool.
  double loss_of_steps(const wz::Window& w, int n, int batch) {
    Node& last = nodes_.back();
    const int C = n_classes(), T = n_steps();
    const bool entropy = plan_.loss == wz::Loss::CrossEntropy;
    const v8 mean = splat((entropy ? 1.0f : 2.0f) / ((float)batch * (float)T * (entropy ? 1.0f : (float)C)));
    double total = 0;
    for (int b = 0; b < blocks_of(n); ++b) {
      const v8* z = last.y + b * last.out.size;
      v8* g = last.g + b * last.grad.size;
      const v8i alive = live(n, b);
      const int32_t* row = right_.data + b * LANES;
      for (int t = 0; t < T; ++t) {
        v8i target = splat_int(0);
        if (w.classes)
          for (int k = 0; k < LANES; ++k) target[k] = (int32_t)w.classes[(int64_t)row[k] * T + t];
        v8 value = splat(0.0f);
        if (entropy) {
          v8 top = z[t];
          for (int c = 1; c < C; ++c) top = select(z[c * T + t] > top, z[c * T + t], top);
          v8 sum = splat(0.0f), mine = splat(0.0f);
          for (int c = 0; c < C; ++c) {
            const v8 e = exp(z[c * T + t] - top);
            sum = sum + e, mine = select(target == c, z[c * T + t] - top, mine);
            g[c * T + t] = e;
          }
          value = log(sum) - mine;
          const v8 share = splat(1.0f) / sum;
          for (int c = 0; c < C; ++c)
            g[c * T + t] = keep(alive, fma(g[c * T + t], share, keep(target == c, splat(-1.0f))) * mean);
        } else {
          for (int c = 0; c < C; ++c) {
            v8 wanted = keep(target == c, splat(1.0f));
            if (w.values)
              for (int k = 0; k < LANES; ++k) wanted[k] = w.values[((int64_t)row[k] * T + t) * C + c];
            const v8 d = z[c * T + t] - wanted;
            value = fma(d, d, value);
            g[c * T + t] = keep(alive, d * mean);
          }
        }
        for (int k = 0; k < std::min(LANES, n - b * LANES); ++k) total += (double)value[k];
      }
    }
    return entropy ? total : total / C;
  }

  // Bits of a sequence's units, step after step as the stream has them → feature after feature as they lie here.
  void by_features(const Shape& s, uint8_t* bits) {
    for (int f = 0; f < s.c; ++f)
      for (int t = 0; t < s.w; ++t) ordered_.data[f * s.w + t] = bits[t * s.c + f];
    std::memcpy(bits, ordered_.data, (size_t)s.c * (size_t)s.w);
  }

  // ── backward ───────────────────────────────────────────────────────────────────────

  void backward(const float* weights, int n, bool first_tile) {
    const int nb = blocks_of(n);
    for (int l = (int)nodes_.size() - 1; l >= first_param_; --l) {
      Node& node = nodes_[l];
      const wz::Layer& layer = node.layer;
      const Geometry &in = node.in, &gd = node.grad;
      const bool onward = l > first_param_;
      const v8* x = l ? nodes_[l - 1].y : input_y_.data;
      const Geometry gdx = onward ? nodes_[l - 1].grad : Geometry();
      v8* dx = onward ? nodes_[l - 1].g : nullptr;
      const v8* dy = node.g;
      switch (layer.op) {
        case Op::Conv:
          if (node.pooled) {
            pooled_gradient(l, x, nb);
            break;
          }
          for (int b = 0; b < nb; ++b) {
            const v8* compact = without_halo(gd, dy + b * gd.size);
            for (const Span& strip : node.weights.strips)
              node.weights.add(strip, compact + strip.start * layer.out.w, x + b * in.size, part_.data, lanes_.data + node.lanes_at);
            // Row by row through all phases: they share cache lines.
            for (int r = 0; onward && r < node.backward[0].rows; ++r)
              for (size_t k = 0; k < node.backward.size(); ++k)
                if (r < node.backward[k].rows)
                  node.backward[k].row(r, dy + b * gd.size, back_.data + node.phase_at[k], nullptr,
                                       dx + b * gdx.size + r * node.backward[k].dst_row);
          }
          break;
        case Op::Linear:
          linear_gradient(node, x, n, first_tile);
          if (onward) {
            resize(node.backward[0], nb);
            node.backward[0].run(dy, back_.data + node.phase_at[0], nullptr, dx);
          }
          break;
        case Op::Rows: case Op::Tiles:
          for (int b = 0; b < nb; ++b) {
            const v8* from = dy + b * gd.size;
            v8* to = dx + b * gdx.size;
            over_steps(layer, gdx, [&](ptrdiff_t place, ptrdiff_t at) { to[place] = from[gd.origin + at]; });
          }
          break;
        case Op::LastStep:
          for (int b = 0; b < nb; ++b)
            for (int c = 0; c < gdx.c; ++c) {
              v8* to = dx + b * gdx.size + gdx.origin + c * gdx.plane;
              for (int t = 0; t + 1 < gdx.w; ++t) to[t] = splat(0.0f);
              to[gdx.w - 1] = dy[b * gd.size + c];
            }
          break;
        case Op::Gru: case Op::Lstm:
          for (int b = 0; b < nb; ++b)
            recurrent_backward(node.recurrent, layer.op, back_.data + node.back_at, node.saved.data + b * node.recurrent.saved_size(),
                               x + b * in.size, gd, dy + b * gd.size, dx ? dx + b * gdx.size : nullptr, part_.data,
                               lanes_.data + node.lanes_at, lanes_.data + node.state_lanes_at, scratch_);
          break;
        case Op::BatchNorm:
          batch_norm_backward(node, weights + layer.weight, gradient_.data + layer.weight, x, gdx, dx, n);
          break;
        case Op::MaxPool:
          if (l && nodes_[l - 1].pooled) break;
          for (int b = 0; b < nb; ++b) {
            const v8 *xb = x + b * in.size, *yb = node.y + b * node.out.size, *d = dy + b * gd.size;
            v8* to = dx + b * gdx.size;
            const bool pairs = layer.kernel == 2 && layer.stride == 2;
            const auto back = node.then_relu ? pairs ? max_pool_backward<2, true> : max_pool_backward<0, true>
                                        : pairs ? max_pool_backward<2, false> : max_pool_backward<0, false>;
            back(layer.kernel, layer.stride, in, xb, node.out, yb, gd, d, gdx, to);
          }
          break;
        case Op::AvgPool:
          for (int b = 0; b < nb; ++b) average_pool_backward(layer.kernel, layer.stride, gd, dy + b * gd.size, gdx, dx + b * gdx.size);
          break;
        case Op::GlobalAvgPool:
          for (int b = 0; b < nb; ++b) global_average_backward(dy + b * gd.size, gdx, dx + b * gdx.size);
          break;
        case Op::Flatten:
          if (dx != dy)
            for (int b = 0; b < nb; ++b) {
              const v8* from = dy + b * gd.size;
              over_runs(gdx, gdx, [&](ptrdiff_t to, ptrdiff_t, int w) { std::copy(from, from + w, dx + b * gdx.size + to), from += w; });
            }
          break;
        case Op::Add:
          for (int b = 0; b < nb; ++b)
            over_runs(gd, gdx, [&](ptrdiff_t from, ptrdiff_t to, int w) {
              std::copy(dy + b * gd.size + from, dy + b * gd.size + from + w, dx + b * gdx.size + to);
            });
          break;
        case Op::Dropout:
          if (node.active)
            for (int b = 0; b < nb; ++b)
              apply_dropout(gd, dy + b * gd.size, gdx, dx + b * gdx.size, node.bits.data + b * node.n_in(), node.scale);
          break;
        default:
          if (node.done_before) {
            if (gated_apart(nodes_, l))
              for (int b = 0; b < nb; ++b) gate(node.out, node.y + b * node.out.size, gd, dy + b * gd.size);
            break;
          }
          for (int b = 0; b < nb; ++b)
            activate_backward(layer.op, plan_.leaky_slope, in, x + b * in.size, node.out, node.y + b * node.out.size, gd,
                              dy + b * gd.size, dx + b * gdx.size);
      }
      // What the way through the layer after it left is there now: the ways around come on top.
      if (onward && nodes_[l - 1].forked)
        for (int a : adds_)
          if (nodes_[a].layer.number == l - 1)
            for (int b = 0; b < nb; ++b)
              accumulate(nodes_[a].grad, nodes_[a].g + b * nodes_[a].grad.size, gdx, dx + b * gdx.size);
    }
  }

  static void copy_compact(const Geometry& g, const v8* from, v8* to) {
    over_runs(g, g, [&](ptrdiff_t at, ptrdiff_t, int n) { to = std::copy(from + at, from + at + n, to); });
  }
  const v8* without_halo(const Geometry& g, const v8* from) {
    if (g.contiguous()) return from;
    copy_compact(g, from, compact_.data);
    return compact_.data;
  }

  // The first convolution and its max pool, a row of windows at a time. Behind it, `taken` says where the
  // gradient goes, so that neither the convolution's output nor its gradient leaves the first-level cache.
  void pooled_forward(int l, const float* packed, const float* bias, const v8* x, int nb) {
    Node &node = nodes_[l], &pool = nodes_[l + 1];
    const Geometry strip({node.layer.out.c, 2, node.layer.out.w}, 0);
    const auto reduce = pool.then_relu ? pool_pairs<true> : pool_pairs<false>;
    for (int b = 0; b < nb; ++b)
      for (int r = 0; r < pool.out.h; ++r) {
        for (int i = 0; i < 2; ++i) node.forward.row(2 * r + i, x + b * node.in.size, packed, bias, strip_.data + i * strip.row);
        reduce(strip, strip_.data, pool.out.one_row(r), pool.y_own.data + b * pool.out.size, taken(node, pool, b, r));
      }
  }
  void pooled_gradient(int l, const v8* x, int nb) {
    Node &node = nodes_[l], &pool = nodes_[l + 1];
    const Geometry strip({node.layer.out.c, (int)node.weights.y_plane / node.layer.out.w, node.layer.out.w}, 0);
    for (int b = 0; b < nb; ++b)
      for (const Span& rows : node.weights.strips) {
        for (int i = 0; i < rows.size; i += 2) {
          const int r = (rows.start + i) / 2;
          unpool_pairs(taken(node, pool, b, r), pool.grad.one_row(r), pool.g + b * pool.grad.size, strip, strip_.data + i * strip.row);
        }
        node.weights.add(rows, strip_.data, x + b * node.in.size, part_.data, lanes_.data + node.lanes_at);
      }
  }
  static v8i* taken(Node& node, const Node& pool, int b, int r) {
    const ptrdiff_t row = pool.out.c * taken_size(pool.out.w);
    return node.taken.data + ((ptrdiff_t)b * pool.out.h + r) * row;
  }

  void linear_gradient(Node& node, const v8* x, int n, bool first) {
    const int nb = blocks_of(n);
    const int64_t n_in = node.n_in(), n_out = node.layer.out.c, wide_in = padded(n_in), wide_out = padded(n_out);
    if (!node.by_rows) {
      lanes_to_rows(x, node.in.size, n_in, nb, wide_x_.data, wide_in);
      for (int i = 0; i < n; ++i) inner_rows_.data[i] = wide_x_.data + i * wide_in;
    }
    const float* const* rows = node.by_rows ? rows_.data : inner_rows_.data;
    lanes_to_rows(node.g, node.grad.size, n_out, nb, wide_y_.data, wide_out);
    float* g = wide_in == n_in ? gradient_.data + node.layer.weight : wide_.data + node.wide_at;
    for (const Span& i : node.outer_blocks.x)
      for (const Span& o : node.outer_blocks.o)
        OUTER[o.size - 1][i.size - 1](rows, n, LANES * i.start, wide_y_.data + o.start, wide_out,
                                      g + o.start * wide_in + LANES * i.start, wide_in, first);
    float* bias = wide_.data + node.wide_at + n_out * wide_in;
    for (int64_t o = 0; o < wide_out; o += LANES) {
      v8 sum = first ? splat(0.0f) : load(bias + o);
      for (int i = 0; i < n; ++i) sum = sum + load(wide_y_.data + i * wide_out + o);
      store(bias + o, sum);
    }
  }

  static void sum_lanes(const v8* lanes, const std::vector<int32_t>& to, float* g) {
    size_t i = 0;
    for (; i + 8 <= to.size(); i += 8) {
      v8 r[8];
      for (int k = 0; k < 8; ++k) r[k] = lanes[i + k];
      transpose(r);  // the tree of lane_sum, eight values at once
      const v8 sums = ((r[0] + r[4]) + (r[2] + r[6])) + ((r[1] + r[5]) + (r[3] + r[7]));
      for (int k = 0; k < 8; ++k) g[to[i + k]] = sums[k];
    }
    for (; i < to.size(); ++i) g[to[i]] = lane_sum(lanes[i]);
  }

  // Lane gradients and padded gradients → the flat vector.
  void collect() {
    for (Node& node : nodes_) {
      float* g = gradient_.data + node.layer.weight;
      if (node.layer.op == Op::Conv) {
        sum_lanes(lanes_.data + node.lanes_at, node.weights.unpacked, g);
      } else if (node.recurrent_layer()) {
        sum_lanes(lanes_.data + node.lanes_at, node.recurrent.by_inputs.unpacked, g);
        sum_lanes(lanes_.data + node.state_lanes_at, node.recurrent.by_state.unpacked, g);
      } else if (node.layer.op == Op::Linear) {
        const int64_t n_in = node.n_in(), n_out = node.layer.out.c, wide = padded(n_in);
        const float* from = wide_.data + node.wide_at;
        if (wide != n_in)
          for (int64_t o = 0; o < n_out; ++o) std::memcpy(g + o * n_in, from + o * wide, (size_t)n_in * sizeof(float));
        std::memcpy(g + n_out * n_in, from + n_out * wide, (size_t)n_out * sizeof(float));
      }
    }
  }

  // ── one step of one model ──────────────────────────────────────────────────────────

  float step(const wz::Window& w, int64_t m, int64_t t, int64_t at, int batch) {
    const int64_t P = plan_.n_params, units = plan_.input.units();
    const int64_t step_number = w.first_step + t;
    float* weights = w.weights + m * P;
    const int32_t* rows = w.rows + m * w.n_examples + at;
    const int32_t* targets = w.targets + m * w.n_examples + at;
    pack(weights, pack_.data, back_.data);
    if (lanes_size_) std::memset(static_cast<void*>(lanes_.data), 0, lanes_size_ * sizeof(v8));
    for (Node& node : nodes_) {
      node.g = node.g_in_y ? node.y_own.data : node.g_alias < 0 ? node.g_own.data : nodes_[node.g_alias].g;
      if (node.layer.op != Op::Dropout) continue;
      const double rate = node.layer.rate < 0 ? w.dropout_rate[m] : node.layer.rate;
      node.active = rate > 0;
      node.scale = (float)(1.0 / (1.0 - rate));
    }
    const int tile = LANES * (whole_batch_ ? blocks_of(batch) : tile_blocks_);
    double total = 0;
    for (int start = 0; start < batch; start += tile) {
      const int n = std::min(tile, batch - start);
      for (int i = 0; i < n; ++i) {
        samples_.data[i] = w.pool + (int64_t)rows[start + i] * units;
        targets_.data[i] = targets[start + i];
        right_.data[i] = rows[start + i];
        if (plan_.augmentation.any()) {
          float* to = augmented_.data + i * padded(units);
          AUGMENT(plan_.augmentation, w.augment_key[m], (uint64_t)step_number, start + i, plan_.input.c, plan_.input.h,
                      plan_.input.w, plan_.flat, samples_.data[i], to);
          samples_.data[i] = to;
        }
      }
      for (int i = n; i < blocks_of(n) * LANES; ++i) targets_.data[i] = 0, right_.data[i] = right_.data[0];
      show(n);
      for (Node& node : nodes_) {
        if (node.layer.op != Op::Dropout || !node.active) continue;
        const double rate = node.layer.rate < 0 ? w.dropout_rate[m] : node.layer.rate;
        const uint32_t threshold = (uint32_t)std::nearbyint(rate * 65536.0);  // halves to even, as Python's round
        for (int b = 0; b < blocks_of(n); ++b) {
          uint8_t* bits = node.bits.data + b * node.n_in();
          wz::dropout_bits(w.dropout_key[m], threshold, (uint64_t)step_number, (uint64_t)node.layer.number,
                           start + b * LANES, node.n_in(), fields_.data, bits);
          if (node.layer.kernel == 1) by_features(node.layer.in, bits);
        }
      }
      forward(weights, pack_.data, n, true, weights);
      total += w.values || w.classes ? loss_of_steps(w, n, batch) : loss(n, batch);
      backward(weights, n, start == 0);
    }
    collect();
    update(w, m, t);
    return (float)(total / ((double)batch * n_steps()));
  }

  void update(const wz::Window& w, int64_t m, int64_t t) {
    const double clip = w.optimizers.clip_norm[m];
    if (clip < HUGE_VAL) {
      double sum = 0;
      for (const auto& s : spans_) sum += squared_norm(gradient_.data + s.first, s.second);
      const double factor = clip / (std::sqrt(sum) + 1e-6);
      // Written so that a norm that is not a number spoils the gradient instead of hiding.
      if (!(factor >= 1.0)) {
        const float f = (float)factor;
        for (const auto& s : spans_)
          for (int64_t i = 0; i < s.second; ++i) gradient_.data[s.first + i] *= f;
      }
    }
    if (!w.factors) return update_within(rates_of(w, m, t), w, m, 0, plan_.n_params);
    for (int64_t k = 0; k < w.n_pieces; ++k)
      update_within(rates_of(w, m, t, w.factors[m * w.n_pieces + k]), w, m, w.pieces[k], w.pieces[k + 1]);
  }

  // The parameters between two places of the vector.
  void update_within(const Rates& rates, const wz::Window& w, int64_t m, int64_t begin, int64_t end) {
    for (const auto& s : spans_) {
      const int64_t from = std::max(s.first, begin), n = std::min(s.first + s.second, end) - from;
      const int64_t at = m * plan_.n_params + from;
      if (n > 0) update_span(rates, n, w.weights + at, w.slot1 + at, w.slot2 + at, gradient_.data + from);
    }
  }

  const wz::Plan plan_;
  std::vector<Node> nodes_;
  std::vector<std::pair<int64_t, int64_t>> spans_;  // (start, length) of parameters in the flat vector
  std::vector<int> adds_;  // layers that add an earlier output to their input
  Geometry input_;
  int input_rows_ = -1, first_param_ = 0, tile_blocks_ = 1;
  bool whole_batch_ = false;
  size_t pack_size_ = 0, back_size_ = 0, lanes_size_ = 0, wide_size_ = 0, reserved_ = 0;
  int64_t widest_in_ = 0, widest_out_ = 0;
  Buffer<v8> input_y_, lanes_, part_, compact_, strip_;
  Buffer<float> pack_, back_, wide_, gradient_, augmented_, padded_, wide_x_, wide_y_;
  Buffer<const float*> samples_, rows_, inner_rows_;
  Buffer<int32_t> targets_, right_;
  Buffer<uint8_t> ordered_;
  Scratch scratch_;
  Buffer<uint16_t> fields_;
};

}  // namespace

namespace wz {
#define WZ_NAME2(path) make_##path
#define WZ_NAME(path) WZ_NAME2(path)
Engine* WZ_NAME(WZ_PATH)(const Plan& plan) { return new NativeEngine(plan); }
}  // namespace wz
