// The top-k orthogonalizers beside the exact decomposition: time per matrix, and the objective <M, D> as a fraction of
// the sum of the k largest singular values.
//
//   bench/save_momenta build/examples/small_gpt/small_gpt TEXT momenta 200 24
//   topk_bench | cuda_topk_bench [--all] [--momenta=FOLDER] [--threads=N] [Google Benchmark's options]
//
// Cases: topk/momenta:inverse_768x768/k:32/solver:krylov; by:openblas_sgesdd in place of a solver is the thin
// decomposition on the CPU, by an OpenBLAS that is loaded at run time. Momenta are exponential means (0.95) of a fixed
// matrix of the named spectrum and Gaussian noise of three times its norm, anew in each step, or of noise alone; with
// --momenta, those that small_gpt had in its last steps. A solver walks through them, as it would in training, and then
// repeats the last step; that is timed, on the GPU as a graph. Counters: `warm`, the mean objective from the 21st step
// on, and `worst` the least of them; `first`, the objective of the first step, without anything to start from; `top`
// and `last`, the first and the k-th singular value of the last update.
#include <dlfcn.h>

#include <Eigen/Dense>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <matopt/core/pass.hpp>
#include <matopt/policy/orthogonalizer/block_krylov_polar.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>
#include <matopt/tensor_file.hpp>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/harness.hpp"

namespace {

using namespace matopt;
using bench::device;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// --- cases ---

constexpr std::size_t warm_steps = 20, measured_steps = 4;

struct sequence {
  std::vector<matrix> momenta;
  double bound(index_t k, std::size_t t) {
    if (singular_values.empty()) singular_values.resize(momenta.size());
    auto& s = singular_values[t];
    if (s.size() == 0) {
      const matrix& m = momenta[t];
      const Eigen::MatrixXd gram = m.rows() < m.cols()
                                       ? Eigen::MatrixXd(m.cast<double>() * m.cast<double>().transpose())
                                       : Eigen::MatrixXd(m.cast<double>().transpose() * m.cast<double>());
      s = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram, Eigen::EigenvaluesOnly)
              .eigenvalues()
              .reverse()
              .cwiseMax(0)
              .cwiseSqrt();
    }
    return s.head(k).sum();
  }

 private:
  std::vector<Eigen::VectorXd> singular_values;
};
using sequences = std::shared_ptr<std::vector<sequence>>;

matrix gaussian(std::mt19937& next, index_t m, index_t n) {
  std::normal_distribution<float> normal;
  return matrix::NullaryExpr(m, n, [&] { return normal(next); });
}
matrix orthonormal(std::mt19937& next, index_t m, index_t n) {
  const Eigen::MatrixXf x = gaussian(next, m, n);
  return Eigen::HouseholderQR<Eigen::MatrixXf>(x).householderQ() * Eigen::MatrixXf::Identity(m, n);
}
// singular(i): the i-th singular value, counted from 1; null for noise alone.
sequences synthetic(index_t m, index_t n, double (*singular)(double)) {
  std::mt19937 next(1);
  matrix fixed = matrix::Zero(m, n);
  float noise = 1;
  if (singular) {
    const index_t q = std::min(m, n);
    Eigen::VectorXf s(q);
    for (index_t i = 0; i < q; ++i) s(i) = static_cast<float>(singular(static_cast<double>(i + 1)));
    fixed = orthonormal(next, m, q) * s.asDiagonal() * orthonormal(next, n, q).transpose();
    noise = 3 * fixed.norm() / std::sqrt(static_cast<float>(m * n));
  }
  const auto list = std::make_shared<std::vector<sequence>>(1);
  matrix mean = matrix::Zero(m, n);
  for (std::size_t t = 0; t < 40 + warm_steps + measured_steps; ++t) {
    mean = 0.95F * mean + 0.05F * (fixed + noise * gaussian(next, m, n));
    if (t >= 40) list->front().momenta.push_back(mean);
  }
  return list;
}
// The hidden matrices of the checkpoints in a folder, by their shape.
std::map<std::string, sequences> from_training(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::map<std::string, sequence> by_name;
  for (const auto& file : files)
    for (const auto& [name, tensor] : tensor_file::load(file.string()).tensors)
      if (name.starts_with("optimizer.layer") && name.ends_with(".momentum")) {
        matrix m(tensor.shape[0], tensor.shape[1]);
        std::copy_n(reinterpret_cast<const float*>(tensor.data.data()), m.size(), m.data());
        by_name[name].momenta.push_back(std::move(m));
      }
  std::map<std::string, sequences> by_shape;
  for (auto& [name, s] : by_name) {
    auto& list =
        by_shape["small_gpt_" + std::to_string(s.momenta[0].rows()) + "x" + std::to_string(s.momenta[0].cols())];
    if (!list) list = std::make_shared<std::vector<sequence>>();
    list->push_back(std::move(s));
  }
  return by_shape;
}

// --- solvers ---

// One policy with its state, on one matrix after another.
template <class Policy>
class walker {
 public:
  walker(const Policy& policy, index_t m, index_t n, index_t k) : policy_(policy), rank_(k) {
    arena counted;
    state_layout<float, float> sizes(counted, m, n, 1, false);
    state_for<Policy, float, float> nowhere{};
    lay_out(policy, sizes, nowhere);
    state_memory_ = device::memory(counted.peak + 256),
    matrix_memory_ = device::memory(static_cast<std::size_t>(m * n) * sizeof(float));
    arena placed{state_memory_.data()};
    state_layout<float, float> places(placed, m, n, 1, false);
    lay_out(policy, places, state_);
    u_ = row_major(reinterpret_cast<float*>(matrix_memory_.data()), m, n);
    arena scratch;
    pass<device::backend, float> e(dry_run{}, device::the_backend(), scratch, 1, k);
    matopt::detail::orthogonalize(policy, e, nowhere, u_);
    scratch_ = device::memory(scratch.peak + 256), number_memory_ = device::memory(sizeof(step_numbers<float>));
  }
  void set(const matrix& momentum) {
    ++numbers_.counter;
    device::the_backend().upload(number_memory_.data(), &numbers_, sizeof numbers_);
    device::the_backend().upload(u_.data, momentum.data(), bytes());
    device::wait();
  }
  void orthogonalize() {
    arena scratch{scratch_.data()};
    pass<device::backend, float> e(device::the_backend(), scratch, nullptr,
                                   reinterpret_cast<step_numbers<float>*>(number_memory_.data()), 1, rank_);
    matopt::detail::orthogonalize(policy_, e, state_, u_);
  }
  void get(matrix& update) const {
    update.resize(u_.rows, u_.cols);
    device::the_backend().download(update.data(), u_.data, bytes());
    device::wait();
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(u_.rows * u_.cols) * sizeof(float); }

  Policy policy_;
  index_t rank_;
  device::backend::buffer state_memory_, matrix_memory_, scratch_, number_memory_;
  view<float> u_;
  state_for<Policy, float, float> state_{};
  step_numbers<float> numbers_{};
};

double objective(sequence& s, std::size_t t, index_t k, const matrix& update) {
  return s.momenta[t].cast<double>().cwiseProduct(update.cast<double>()).sum() / s.bound(k, t);
}

template <class Policy>
void solve(benchmark::State& state, const sequences& cases, index_t k, const Policy& policy) {
  double warm = 0, worst = 1e9, first = 0, top = 0, last = 1e9;
  std::vector<std::unique_ptr<walker<Policy>>> walkers;
  for (sequence& s : *cases) {
    const index_t m = s.momenta[0].rows(), n = s.momenta[0].cols();
    walkers.push_back(std::make_unique<walker<Policy>>(policy, m, n, k));
    walker<Policy>& walk = *walkers.back();
    matrix update;
    double mean = 0;
    for (std::size_t t = 0; t < s.momenta.size(); ++t) {
      walk.set(s.momenta[t]), walk.orthogonalize(), walk.get(update);
      if (t == 0) first += objective(s, t, k, update);
      if (t >= warm_steps) {
        const double now = objective(s, t, k, update);
        mean += now, worst = std::min(worst, now);
      }
    }
    warm += mean / static_cast<double>(s.momenta.size() - warm_steps);
    const Eigen::MatrixXd d = update.cast<double>();
    const Eigen::VectorXd squares =
        Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(
            d.rows() < d.cols() ? Eigen::MatrixXd(d * d.transpose()) : Eigen::MatrixXd(d.transpose() * d),
            Eigen::EigenvaluesOnly)
            .eigenvalues()
            .reverse();
    top = std::max(top, std::sqrt(squares(0))), last = std::min(last, std::sqrt(std::max(0.0, squares(k - 1))));
  }
  const double count = static_cast<double>(cases->size());
  std::vector<device::recorded> steps;  // recording runs it once, which is not timed
  for (std::size_t i = 0; i < cases->size(); ++i) {
    walkers[i]->set((*cases)[i].momenta.back());
    steps.emplace_back([walk = walkers[i].get()] { walk->orthogonalize(); });
  }
  for (auto _ : state) {
    double taken = 0;
    for (std::size_t i = 0; i < cases->size(); ++i) {
      walkers[i]->set((*cases)[i].momenta.back());
      taken += device::seconds(steps[i]);
    }
    state.SetIterationTime(taken / count);
  }
  state.counters["warm"] = warm / count, state.counters["worst"] = worst, state.counters["first"] = first / count;
  state.counters["top"] = top, state.counters["last"] = last;
}

// --- LAPACK ---

using sgesdd_function = void (*)(const char*, const int*, const int*, float*, const int*, float*, float*, const int*,
                                 float*, const int*, float*, const int*, int*, int*, std::size_t);
sgesdd_function sgesdd() {
  static const sgesdd_function found = [] {
    if (__builtin_cpu_supports("avx512f")) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    void* const library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    const auto function = library ? reinterpret_cast<sgesdd_function>(dlsym(library, "sgesdd_")) : nullptr;
    if (!function) {
      std::fprintf(stderr, "sgesdd is left out: no libopenblas.so.0 that has it\n");
      return function;
    }
    const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
    const int threads = bench::chosen().threads > 0 ? bench::chosen().threads : static_cast<int>(cores);
    if (const auto set = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"))) set(threads);
    return function;
  }();
  return found;
}
// Thin decomposition and the product of its leading vectors.
void solve_exactly(benchmark::State& state, const sequences& cases, index_t k) {
  using column_matrix = Eigen::MatrixXf;
  double warm = 0;
  const auto run = [&](const matrix& m, column_matrix& d) {
    column_matrix a = m;
    const int rows = static_cast<int>(m.rows()), cols = static_cast<int>(m.cols()), q = std::min(rows, cols);
    column_matrix u(rows, q), v(q, cols);
    Eigen::VectorXf s(q);
    std::vector<int> integers(static_cast<std::size_t>(8 * q));
    float best_size = 0;
    int ask = -1, info = 0;
    sgesdd()("S", &rows, &cols, a.data(), &rows, s.data(), u.data(), &rows, v.data(), &q, &best_size, &ask,
             integers.data(), &info, 1);
    std::vector<float> work(static_cast<std::size_t>(best_size));
    const int size = static_cast<int>(work.size());
    const auto start = std::chrono::steady_clock::now();  // of the CPU, also where the solvers run on a GPU
    sgesdd()("S", &rows, &cols, a.data(), &rows, s.data(), u.data(), &rows, v.data(), &q, work.data(), &size,
             integers.data(), &info, 1);
    d.noalias() = u.leftCols(k) * v.topRows(k);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  column_matrix d;
  for (sequence& s : *cases) {
    run(s.momenta.back(), d);
    warm += objective(s, s.momenta.size() - 1, k, d);
  }
  for (auto _ : state) {
    double taken = 0;
    for (const sequence& s : *cases) taken += run(s.momenta.back(), d);
    state.SetIterationTime(taken / static_cast<double>(cases->size()));
  }
  state.counters["warm"] = warm / static_cast<double>(cases->size());
}

void add(const std::string& name, const sequences& cases, index_t k) {
  const auto as = [&](const char* solver, auto run) {
    bench::add("topk/momenta:" + name + "/k:" + std::to_string(k) + "/" + solver, run);
  };
  if (sgesdd()) as("by:openblas_sgesdd", [=](benchmark::State& s) { solve_exactly(s, cases, k); });
  as("solver:krylov", [=](benchmark::State& s) { solve(s, cases, k, block_krylov_polar<>{}); });
  as("solver:krylov_warm", [=](benchmark::State& s) { solve(s, cases, k, block_krylov_polar<true>{}); });
  as("solver:subspace_1", [=](benchmark::State& s) { solve(s, cases, k, subspace_polar{.iterations = 1}); });
  as("solver:subspace_2", [=](benchmark::State& s) { solve(s, cases, k, subspace_polar{.iterations = 2}); });
  as("solver:newton_schulz", [=](benchmark::State& s) { solve(s, cases, k, newton_schulz<>{}); });
}

void add_cases(const std::string& momenta) {
  Eigen::setNbThreads(1);
  const bool all = bench::chosen().all;
  const auto shapes = [&](const std::string& spectrum, double (*singular)(double)) {
    const auto square = synthetic(768, 768, singular);
    add(spectrum + "_768x768", square, 32), add(spectrum + "_768x768", square, 192);
    if (all) add(spectrum + "_768x3072", synthetic(768, 3072, singular), 192);
  };
  shapes("gauss", nullptr);
  shapes("inverse", [](double i) { return 1 / i; });
  if (all) {
    shapes("inverse_root", [](double i) { return 1 / std::sqrt(i); });
    shapes("rank_16", [](double i) { return i <= 16 ? 1.0 : 0.0; });
  }
  if (momenta.empty()) return;
  for (const auto& [name, cases] : from_training(momenta)) {
    const index_t n = std::min(cases->front().momenta[0].rows(), cases->front().momenta[0].cols());
    add(name, cases, n / 16), add(name, cases, n / 4), add(name, cases, n / 2);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string momenta;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option.starts_with("--momenta="))
      momenta = option.substr(10);
    else
      argv[kept++] = argv[i];
  }
  return bench::run(kept, argv, [&] { add_cases(momenta); });
}
