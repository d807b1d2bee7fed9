// The extension module `_kernels`: arrays in, arrays changed in place, the lock released.
//
// Checks of shapes are here, so that no wrong call can read outside an array, and of plans in
// check_plan.h; what else the numbers mean is checked on Python's side (zoo_builder/engines/native.py).

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <memory>
#include <stdexcept>

#include "check_plan.h"
#include "dispatch.h"

namespace nb = nanobind;

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using InOut = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

template <class A>
auto checked(const A& array, std::initializer_list<size_t> shape, const char* name) {
  bool same = array.ndim() == shape.size();
  size_t d = 0;
  for (size_t n : shape) same = same && array.shape(d++) == n;
  if (!same) throw std::invalid_argument(std::string("wrong shape of ") + name);
  return array.data();
}

void within(const int32_t* values, size_t n, int64_t end, const char* name) {
  for (size_t i = 0; i < n; ++i)
    if (values[i] < 0 || values[i] >= end) throw std::invalid_argument(std::string(name) + " out of range");
}

// Asks Python for pending signals, at most every 50 ms: a Ctrl-C is answered well within a second.
struct Signals {
  std::chrono::steady_clock::time_point next = std::chrono::steady_clock::now();
  bool raised = false;
  static bool check(void* self_) {
    auto* self = static_cast<Signals*>(self_);
    auto now = std::chrono::steady_clock::now();
    if (now < self->next) return false;
    self->next = now + std::chrono::milliseconds(50);
    nb::gil_scoped_acquire lock;
    self->raised = PyErr_CheckSignals() != 0;
    return self->raised;
  }
};

using Moves = std::tuple<int, int, bool>;  // shift, crop, flip

// A distortion is 11 numbers in the order of its struct, or none; mean and std are of its channels.
wz::Augmentation augmentation(const Moves& moves, const std::vector<double>& noise, const std::vector<double>& fill,
                              const std::vector<double>& distortion, const std::vector<double>& mean,
                              const std::vector<double>& std, int channels) {
  for (const std::vector<double>* values : {&noise, &fill, &mean, &std})
    if (values->size() > 64) throw std::invalid_argument("augmentation knows up to 64 channels");
  wz::Augmentation a;
  a.shift = std::get<0>(moves), a.crop = std::get<1>(moves), a.flip = std::get<2>(moves);
  a.n_noise = (int)noise.size(), a.n_fill = (int)fill.size();
  for (size_t i = 0; i < noise.size(); ++i) a.noise[i] = noise[i];
  a.fill[0] = 0;
  for (size_t i = 0; i < fill.size(); ++i) a.fill[i] = (float)fill[i];
  if (distortion.empty()) return a;
  if (distortion.size() != 11) throw std::invalid_argument("a distortion has 11 numbers");
  wz::Distortion& d = a.distortion;
  double* to[11] = {&d.translate, &d.rotate, &d.zoom, &d.shear, &d.brightness, &d.contrast[0], &d.contrast[1], &d.hue,
                    &d.saturation[0], &d.saturation[1], &d.noise};
  for (size_t i = 0; i < 11; ++i) {
    if (!(distortion[i] >= 0) || distortion[i] > 1e6) throw std::invalid_argument("no such distortion");
    *to[i] = distortion[i];
  }
  if (d.rotate > 180 || d.shear >= 90 || d.zoom >= 1 || d.hue > 0.5) throw std::invalid_argument("no such distortion");
  d.n_scale = (int)mean.size();
  for (size_t i = 0; i < mean.size() && i < std.size(); ++i) d.mean[i] = (float)mean[i], d.std[i] = (float)std[i];
  const auto fits = [&](size_t n) { return n == 1 || n == (size_t)channels; };
  if (d.colors() && !(fits(mean.size()) && mean.size() == std.size()))
    throw std::invalid_argument("a distortion needs mean and std of every channel");
  if (d.tints() && channels != 3) throw std::invalid_argument("hue and saturation need three channels");
  if (a.n_fill > 1 && a.n_fill != channels) throw std::invalid_argument("fill is of other channels");
  return a;
}

// Augmented images (B, channels, rows, columns) of one model at one step.
void augment(In<float> images, InOut<float> out, uint64_t k0, uint64_t k1, uint64_t step, const Moves& moves,
             const std::vector<double>& noise, const std::vector<double>& fill, const std::vector<double>& distortion,
             const std::vector<double>& mean, const std::vector<double>& std) {
  if (images.ndim() != 4) throw std::invalid_argument("images have four dimensions");
  const size_t B = images.shape(0), C = images.shape(1), H = images.shape(2), W = images.shape(3);
  const wz::Augmentation a = augmentation(moves, noise, fill, distortion, mean, std, (int)C);
  if (a.n_noise > 1 && (size_t)a.n_noise != C) throw std::invalid_argument("noise is of other channels");
  if (a.shift < 0 || a.crop < 0 || (a.crop > 0 && (size_t)a.crop >= std::min(H, W)))
    throw std::invalid_argument("no such augmentation");
  const float* from = images.data();
  float* to = const_cast<float*>(checked(out, {B, C, H, W}, "out"));
  const size_t units = C * H * W;
  nb::gil_scoped_release unlocked;
  for (size_t i = 0; i < B; ++i)
    wz::augment_plain(a, wz::Key{{k0, k1}}, step, (int64_t)i, (int)C, (int)H, (int)W, false, from + i * units, to + i * units);
}

// One layer: op, in (c, h, w), out (c, h, w), kernel, stride, pad, number, weight.
using LayerRow = std::vector<int64_t>;

class Kernels {
 public:
  Kernels(const std::string& path, const std::vector<LayerRow>& layers, const std::vector<double>& rates, bool flat,
          int64_t n_params, int loss, std::tuple<double, double, double> constants,
          const Moves& moves, const std::vector<double>& noise, const std::vector<double>& fill,
          const std::vector<double>& distortion, const std::vector<double>& mean, const std::vector<double>& std) {
    if (layers.empty() || layers.size() != rates.size()) throw std::invalid_argument("a plan needs layers and their rates");
    for (size_t i = 0; i < layers.size(); ++i) {
      const LayerRow& r = layers[i];
      if (r.size() != 12) throw std::invalid_argument("a layer has 12 numbers");
      for (size_t j = 0; j < 11; ++j)
        if (r[j] < INT32_MIN || r[j] > INT32_MAX) throw std::invalid_argument("a layer's number does not fit an int");
      plan_.layers.push_back({(wz::Op)r[0], {(int)r[1], (int)r[2], (int)r[3]}, {(int)r[4], (int)r[5], (int)r[6]},
                              (int)r[7], (int)r[8], (int)r[9], rates[i], (int)r[10], r[11]});
    }
    plan_.input = plan_.layers[0].in;
    plan_.flat = flat, plan_.n_params = n_params, plan_.loss = (wz::Loss)loss;
    plan_.norm_eps = (float)std::get<0>(constants), plan_.norm_momentum = (float)std::get<1>(constants);
    plan_.leaky_slope = (float)std::get<2>(constants);
    plan_.augmentation = augmentation(moves, noise, fill, distortion, mean, std, plan_.input.c);
    wz::check(plan_);
    wz::Make make = wz::factory(path);
    if (!make) throw std::invalid_argument("this CPU has no path '" + path + "'");
    engine_.reset(make(plan_));
  }

  void advance(InOut<float> weights, InOut<float> slot1, InOut<float> slot2, In<float> pool, int64_t first_step,
               In<int64_t> batch_sizes, In<int32_t> rows, In<int32_t> targets, std::vector<In<double>> rates,
               In<uint8_t> active, In<int32_t> kind, In<uint8_t> nesterov, std::vector<In<double>> settings,
               In<double> dropout_rate, In<uint64_t> dropout_key, In<uint64_t> augment_key, InOut<float> losses,
               nb::object values, nb::object classes, nb::object factors, nb::object pieces) {
    wz::Window w{};
    const size_t P = (size_t)plan_.n_params, M = weights.shape(0), T = batch_sizes.shape(0), n = rows.shape(1);
    const size_t units = (size_t)plan_.input.units();
    w.n_models = (int64_t)M, w.n_steps = (int64_t)T, w.n_examples = (int64_t)n;
    w.weights = checked(weights, {M, P}, "weights");
    w.slot1 = checked(slot1, {M, P}, "slot1"), w.slot2 = checked(slot2, {M, P}, "slot2");
    w.pool = checked(pool, {pool.shape(0), units}, "pool");
    w.first_step = first_step;
    w.batch_sizes = checked(batch_sizes, {T}, "batch_sizes");
    w.rows = checked(rows, {M, n}, "rows"), w.targets = checked(targets, {M, n}, "targets");
    if (rates.size() != 3 || settings.size() != 7) throw std::invalid_argument("3 rates and 7 settings are needed");
    w.lr = checked(rates[0], {M, T}, "lr"), w.bias1 = checked(rates[1], {M, T}, "bias1");
    w.bias2 = checked(rates[2], {M, T}, "bias2");
    w.active = checked(active, {M}, "active");
    wz::Optimizers& o = w.optimizers;
    o.kind = checked(kind, {M}, "kind"), o.nesterov = checked(nesterov, {M}, "nesterov");
    const double** fields[7] = {&o.momentum, &o.beta1, &o.beta2, &o.eps, &o.alpha, &o.weight_decay, &o.clip_norm};
    for (int i = 0; i < 7; ++i) *fields[i] = checked(settings[(size_t)i], {M}, "an optimizer's setting");
    w.dropout_rate = checked(dropout_rate, {M}, "dropout_rate");
    w.dropout_key = reinterpret_cast<const wz::Key*>(checked(dropout_key, {M, 2}, "dropout_key"));
    w.augment_key = reinterpret_cast<const wz::Key*>(checked(augment_key, {M, 2}, "augment_key"));
    w.losses = checked(losses, {M, T}, "losses");
    const size_t N = pool.shape(0), C = (size_t)plan_.layers.back().out.c, S = (size_t)plan_.layers.back().out.w;
    In<float> of_values;
    In<int64_t> of_classes;
    if (!values.is_none()) {
      of_values = nb::cast<In<float>>(values);
      w.values = checked(of_values, {N, S, C}, "values");
      if (plan_.loss != wz::Loss::MeanSquare) throw std::invalid_argument("values are learned by their squares alone");
    } else if (!classes.is_none()) {
      of_classes = nb::cast<In<int64_t>>(classes);
      w.classes = checked(of_classes, {N, S}, "classes");
      for (size_t i = 0; i < N * S; ++i)
        if (w.classes[i] < 0 || w.classes[i] >= (int64_t)C) throw std::invalid_argument("classes out of range");
    } else if (S > 1) {
      throw std::invalid_argument("the network gives a sequence, and what is right at each step is not said");
    }
    In<double> of_factors;
    In<int64_t> of_pieces;
    if (factors.is_none() != pieces.is_none()) throw std::invalid_argument("factors need pieces, and pieces factors");
    if (!factors.is_none()) {
      of_factors = nb::cast<In<double>>(factors), of_pieces = nb::cast<In<int64_t>>(pieces);
      const size_t K = of_factors.ndim() == 2 ? of_factors.shape(1) : 0;
      w.factors = checked(of_factors, {M, K}, "factors"), w.pieces = checked(of_pieces, {K + 1}, "pieces");
      w.n_pieces = (int64_t)K;
      if (w.pieces[0] != 0 || w.pieces[K] != plan_.n_params) throw std::invalid_argument("pieces must fill the vector");
      for (size_t k = 0; k < K; ++k)
        if (w.pieces[k] > w.pieces[k + 1]) throw std::invalid_argument("pieces must follow one another");
      for (size_t k = 0; k < M * K; ++k)
        if (!(w.factors[k] > 0.0)) throw std::invalid_argument("a factor must be above 0");
    }
    int64_t total = 0;
    for (size_t t = 0; t < T; ++t) {
      if (w.batch_sizes[t] < 1) throw std::invalid_argument("a batch needs an example");
      if (w.batch_sizes[t] > (int64_t)n) throw std::invalid_argument("more examples in batches than rows");
      total += w.batch_sizes[t];
    }
    if (first_step < 0) throw std::invalid_argument("first_step is negative");
    if (total > (int64_t)n) throw std::invalid_argument("more examples in batches than rows");
    for (size_t m = 0; m < M; ++m) {
      if (!w.active[m]) continue;
      if (o.kind[m] < 0 || o.kind[m] > (int)wz::Rule::RmsProp) throw std::invalid_argument("no such update rule");
      if (!(w.dropout_rate[m] >= 0.0 && w.dropout_rate[m] < 1.0)) throw std::invalid_argument("a dropout rate must be in [0, 1)");
      within(w.rows + m * n, (size_t)total, (int64_t)pool.shape(0), "rows");
      within(w.targets + m * n, (size_t)total, plan_.layers.back().out.c, "targets");
    }
    call([&](wz::Stop stop, void* context) { return engine_->advance(w, stop, context); });
  }

  void evaluate(In<float> weights, In<float> images, nb::object rows, InOut<float> logits) {
    wz::Evaluation e{};
    const size_t P = (size_t)plan_.n_params, M = weights.shape(0), units = (size_t)plan_.input.units();
    const size_t C = (size_t)plan_.layers.back().out.c * (size_t)plan_.layers.back().out.w;
    e.n_models = (int64_t)M;
    e.weights = checked(weights, {M, P}, "weights");
    e.images = checked(images, {images.shape(0), units}, "images");
    e.n_shown = (int64_t)images.shape(0);
    In<int32_t> table;
    if (!rows.is_none()) {
      table = nb::cast<In<int32_t>>(rows);
      e.rows = checked(table, {M, table.shape(1)}, "rows");
      e.n_shown = (int64_t)table.shape(1);
      within(e.rows, M * table.shape(1), (int64_t)images.shape(0), "rows");
    }
    e.logits = checked(logits, {M, (size_t)e.n_shown, C}, "logits");
    call([&](wz::Stop stop, void* context) { return engine_->evaluate(e, stop, context); });
  }

 private:
  template <class F>
  void call(F f) {
    Signals signals;
    {
      nb::gil_scoped_release unlocked;
      f(&Signals::check, &signals);
    }
    if (signals.raised) throw nb::python_error();
  }

  wz::Plan plan_;
  std::unique_ptr<wz::Engine> engine_;
};

void score(const std::string& path, In<float> logits, In<int64_t> labels, int loss, InOut<double> losses,
           InOut<int64_t> correct) {
  wz::Scoring s;
  const wz::Score run = wz::scorer(path);
  if (!run) throw std::invalid_argument("no such build of the kernels: " + path);
  if (loss != 0 && loss != 1) throw std::invalid_argument("no such loss");
  if (logits.ndim() != 3 || labels.ndim() != 3) throw std::invalid_argument("logits and labels have three dimensions");
  const size_t M = logits.shape(0), n = logits.shape(1), C = logits.shape(2), K = labels.shape(0), L = labels.shape(1);
  if (C < 1 || (L != 1 && L != M)) throw std::invalid_argument("wrong shape of logits or labels");
  s.models = (int64_t)M, s.n = (int64_t)n, s.classes = (int64_t)C, s.sets = (int64_t)K, s.label_rows = (int64_t)L;
  s.mse = loss == 1;
  s.logits = logits.data();
  s.labels = checked(labels, {K, L, n}, "labels");
  s.losses = checked(losses, {K, M}, "losses");
  s.correct = checked(correct, {K, M, C}, "correct");
  for (size_t i = 0; i < K * L * n; ++i)
    if (s.labels[i] < 0 || s.labels[i] >= s.classes) throw std::invalid_argument("label out of range");
  nb::gil_scoped_release unlocked;
  run(s);
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.def("paths", &wz::usable_paths, "Names of the builds this CPU can run, best first.");
  m.def("philox", [](uint64_t k0, uint64_t k1, uint64_t i, uint64_t a, uint64_t b, uint64_t c) {
    uint64_t out[4];
    wz::philox(wz::Key{{k0, k1}}, i, a, b, c, out);
    return std::vector<uint64_t>(out, out + 4);
  }, "Block i of a stream: four words.");
  m.def("normals", [](In<uint64_t> words, InOut<double> out) {
    const uint64_t* from = checked(words, {out.shape(0)}, "words");
    wz::normals(from, (int64_t)out.shape(0), out.data());
  }, "Standard normals of raw words.");
  m.def("dropout_bits", [](uint64_t k0, uint64_t k1, uint32_t threshold, uint64_t step, uint64_t layer, int64_t first,
                           InOut<uint8_t> bits) {
    std::vector<uint16_t> fields(bits.shape(0) + 16);
    wz::dropout_bits(wz::Key{{k0, k1}}, threshold, step, layer, first, (int64_t)bits.shape(0), fields.data(), bits.data());
  }, "Fills one byte per unit: bit k is set where the unit of sample first + k stays.");
  m.def("augment", &augment, "Fills augmented images of one model at one step.");
  m.def("score", &score, "Fills sums of losses (sets, models) and right answers (sets, models, classes) of logits.");
  nb::class_<Kernels>(m, "Kernels")
      .def(nb::init<const std::string&, const std::vector<LayerRow>&, const std::vector<double>&, bool, int64_t, int,
                    std::tuple<double, double, double>, const Moves&, const std::vector<double>&,
                    const std::vector<double>&, const std::vector<double>&, const std::vector<double>&,
                    const std::vector<double>&>(),
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg("distortion") = std::vector<double>(), nb::arg("mean") = std::vector<double>(),
           nb::arg("std") = std::vector<double>())
      .def("advance", &Kernels::advance, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg("values") = nb::none(), nb::arg("classes") = nb::none(), nb::arg("factors") = nb::none(),
           nb::arg("pieces") = nb::none())
      .def("evaluate", &Kernels::evaluate, nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
}
