// What main.cpp does on the CPU and main.cu on a GPU: a training run on llm.c's memory by four rules, and checks of
// what it does. There is no network here, for the gradient is what a trainer brings: it is a function of the weights
// and the step, such as a trainer's is.
#pragma once
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <random>
#include <string>
#include <vector>

#include "gpt2_optimizer.hpp"

namespace llm_c {

inline constexpr gpt2_shape tiny{.positions = 16, .vocabulary = 96, .layers = 3, .channels = 32};

// A model as llm.c has it. `grads` is null until the first backward pass.
template <class Backend>
struct gpt2 {
  using memory = decltype(std::declval<Backend&>().allocate(std::size_t{1}));

  explicit gpt2(Backend& b) : backend(&b), size(static_cast<std::size_t>(parameter_count(tiny))), weights(size) {
    for (std::size_t i = 0; i < size; ++i) weights[i] = 0.1F * std::sin(0.37F * static_cast<float>(i % 9973));
    params_memory.emplace(backend->allocate(size * sizeof(float)));
    upload();
  }
  float* params() { return reinterpret_cast<float*>(params_memory->data()); }
  float* grads() { return grads_memory ? reinterpret_cast<float*>(grads_memory->data()) : nullptr; }

  // The pull towards a target, and noise. Returns the norm of all gradients.
  double backward(int step) {
    if (!grads_memory) grads_memory.emplace(backend->allocate(size * sizeof(float)));
    download();
    gradients.resize(size);
    double sum = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const auto x = static_cast<float>(i % 7919);
      gradients[i] = weights[i] - std::cos(0.11F * x) + 0.3F * std::sin(1.7F * x + static_cast<float>(step));
      sum += static_cast<double>(gradients[i]) * static_cast<double>(gradients[i]);
    }
    backend->upload(grads(), gradients.data(), size * sizeof(float));
    return std::sqrt(sum);
  }
  void download() { backend->download(weights.data(), params(), size * sizeof(float)); }
  void upload() { backend->upload(params(), weights.data(), size * sizeof(float)); }

  Backend* backend;
  std::size_t size;
  std::vector<float> weights, gradients;  // on the host
  std::optional<memory> params_memory, grads_memory;
};

inline double factor_of(int step) { return std::min(1.0, (step + 1) / 5.0); }  // a warmup
inline double clipped(double norm) { return norm > 1 ? 1 / norm : 1; }

template <class Backend>
void train(gpt2<Backend>& model, gpt2_optimizer<Backend>& opt, int from, int to) {
  for (int step = from; step < to; ++step) {
    const double norm = model.backward(step);
    opt.update(model.params(), model.grads(), factor_of(step), clipped(norm));
  }
  model.download();
}

// AdamW's formula in double, on the gradients that the run had: the largest difference, relative to the largest weight.
template <class Backend>
double difference_to_adamw(Backend& backend) {
  gpt2<Backend> model(backend);
  constexpr double lr = 3e-3, decay = 0.1, beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  const matopt::adamw rule{.momentum = {.beta1 = beta1, .beta2 = beta2, .eps = eps}, .constraint = {.decay = decay}};
  gpt2_optimizer<Backend> opt(backend, tiny, rule, lr, lr, decay);
  std::vector<double> w(model.weights.begin(), model.weights.end()), m(model.size), v(model.size);
  for (int step = 0; step < 40; ++step) {
    const double scale = clipped(model.backward(step)), rate = lr * factor_of(step);
    opt.update(model.params(), model.grads(), factor_of(step), scale);
    for (const tensor& t : tensors(tiny))
      for (index_t k = t.offset; k < t.offset + t.size(); ++k) {
        const auto i = static_cast<std::size_t>(k);
        const double g = scale * static_cast<double>(model.gradients[i]);
        m[i] = beta1 * m[i] + (1 - beta1) * g, v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        const double direction =
            m[i] / (1 - std::pow(beta1, step + 1)) / (std::sqrt(v[i] / (1 - std::pow(beta2, step + 1))) + eps);
        w[i] -= rate * (direction + (t.kind == matopt::role::vector ? 0 : decay) * w[i]);
      }
  }
  model.download();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < model.size; ++i)
    worst = std::max(worst, std::abs(w[i] - static_cast<double>(model.weights[i]))),
    largest = std::max(largest, std::abs(w[i]));
  return worst / largest;
}

// Whether a run that is stopped, saved and resumed in a new process's memory ends with the bits of one that is not.
template <class Backend, class Rule>
bool resumes(Backend& backend, const std::string& name, const Rule& rule, double lr) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("llm_c." + std::to_string(std::random_device{}()))).string();
  gpt2<Backend> whole(backend), first(backend), second(backend);
  gpt2_optimizer<Backend> whole_opt(backend, tiny, rule, lr, 3e-3, 0.1), first_opt(backend, tiny, rule, lr, 3e-3, 0.1),
      second_opt(backend, tiny, rule, lr, 3e-3, 0.1);
  const std::vector<float> start = whole.weights;
  train(whole, whole_opt, 0, 30);
  train(first, first_opt, 0, 17);
  first_opt.save(path);
  second.weights = first.weights, second.upload();  // the trainer's part of the checkpoint
  second_opt.load(path);
  train(second, second_opt, 17, 30);
  std::filesystem::remove(path);
  double moved = 0;
  for (std::size_t i = 0; i < start.size(); ++i)
    moved = std::max(moved, std::abs(static_cast<double>(whole.weights[i] - start[i])));
  const bool equal = whole.weights == second.weights && second_opt.steps() == 30, all = bool(whole_opt.poll_status());
  std::printf("%-8s 30 steps, the largest change of a weight %.3f; resumed after 17: %s\n", name.c_str(), moved,
              equal ? "the same bits" : "OTHER WEIGHTS");
  return equal && all && moved > 0.01 && moved < 10;
}

// Whether the matrices of a layer step as the same matrices do by themselves, each with memory of its own.
template <class Backend>
bool splits(Backend& backend) {
  gpt2<Backend> model(backend);
  gpt2_optimizer<Backend> opt(backend, tiny, matopt::muon{}, 0.02, 3e-3, 0.1);
  const std::vector<float> before = model.weights;
  model.backward(0);
  opt.update(model.params(), model.grads(), 1);
  model.download();
  double worst = 0;
  const tensor qkv = tensors(tiny)[4], up = tensors(tiny)[10];
  for (const auto& [at, rows] :
       {std::pair{qkv.offset + (3 + 2) * tiny.channels * tiny.channels, tiny.channels},  // layer 1, value
        std::pair{up.offset + 2 * up.rows * up.cols, up.rows}}) {                        // layer 2
    const auto bytes = static_cast<std::size_t>(rows * tiny.channels) * sizeof(float);
    auto w = backend.allocate(bytes), g = backend.allocate(bytes);
    std::vector<float> alone(static_cast<std::size_t>(rows * tiny.channels));
    backend.upload(w.data(), before.data() + at, bytes), backend.upload(g.data(), model.gradients.data() + at, bytes);
    matopt::optimizer<matopt::muon, Backend> one(backend);
    one.add("w", matopt::row_major(reinterpret_cast<float*>(w.data()), rows, tiny.channels),
            matopt::row_major<const float>(reinterpret_cast<const float*>(g.data()), rows, tiny.channels));
    one.finalize();
    one.step(0.02);
    backend.download(alone.data(), w.data(), bytes);
    for (std::size_t i = 0; i < alone.size(); ++i)
      worst =
          std::max(worst, std::abs(static_cast<double>(alone[i] - model.weights[static_cast<std::size_t>(at) + i])));
  }
  std::printf("a value matrix of layer 1 and a matrix of layer 2 by themselves: %.1e apart\n", worst);
  return worst < 2e-4;  // an entry moves by 4e-3; on a GPU products are in float16
}

template <class Backend>
int run(Backend& backend) {
  matopt::numuon numuon;
  numuon.constraint.rank.total = 30;
  const double adamw = difference_to_adamw(backend);
  std::printf("adamw    40 steps, %.1e from the formula in double\n", adamw);
  bool good = adamw < 2e-6;
  good &= resumes(backend, "adamw", matopt::adamw{}, 3e-3);
  good &= resumes(backend, "muon", matopt::muon{}, 0.02);
  good &= resumes(backend, "numuon", numuon, 0.02);
  good &= resumes(backend, "muown", matopt::muown{}, 0.02);
  good &= splits(backend);
  std::printf("%s\n", good ? "all as it has to be" : "something is wrong");
  return good ? 0 : 1;
}

}  // namespace llm_c
