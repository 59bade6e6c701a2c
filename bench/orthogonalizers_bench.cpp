// Newton-Schulz orthogonalization: coefficient sets, element types, forms and shapes; how long, and how well.
//   orthogonalizers_bench | cuda_orthogonalizers_bench [--all] [--threads=N] [--shapes=48x768x768,1x4096x4096]
//                                                      [Google Benchmark's options]
//
// Cases: newton_schulz/shape:24x768x3072/set:keller/element:float16/form:gram. Each set with the steps that it is meant
// for, five if the name says nothing (/steps:3), and its norm (/norm:schatten8); from float to float in place (double:
// in double). Several inputs take turns, so that a large cache does not keep one. On the CPU also by:eigen and
// by:openblas, in float, standard form, every product whole.
//
// Counters besides the harness's: polar_error_* and smax_* of the three spectra in accuracy.hpp, for a matrix of
// accuracy_rows rows and the case's ratio of sides. fraction_of_peak counts symmetric products whole.
#include <matopt/core/pass.hpp>
#include <matopt/core/state_layout.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>

#include "common/accuracy.hpp"
#include "common/harness.hpp"
#ifndef __CUDACC__
#include "common/cpu_peers.hpp"
#endif

namespace {

using namespace bench;
using matopt::coefficient_set;
using matopt::newton_schulz;
using matopt::newton_schulz_form;

constexpr int accuracy_rows = 256, most_ratio = 4;

struct shape {
  index_t batch, m, n;
  bool quick = true;  // in the quick selection
  std::string text() const { return std::to_string(batch) + "x" + std::to_string(m) + "x" + std::to_string(n); }
  int ratio() const { return static_cast<int>(std::max(m, n) / std::min(m, n)); }
};

std::vector<shape> shapes() {
  if (!chosen().shapes.empty()) {
    std::vector<shape> out;
    for (const auto& s : chosen().shapes)
      out.push_back({static_cast<index_t>(s[0]), static_cast<index_t>(s[1]), static_cast<index_t>(s[2])});
    return out;
  }
  if (device::is_gpu)
    return {{1, 768, 768},   {1, 1024, 1024}, {1, 2048, 2048}, {1, 4096, 4096},  {1, 8192, 8192}, {1, 768, 3072},
            {1, 1024, 4096}, {1, 2048, 8192}, {48, 768, 768},  {16, 1024, 1024}, {8, 1024, 4096}, {24, 768, 3072}};
  return {{1, 256, 256},          {1, 768, 768},          {1, 1024, 1024},         {1, 768, 3072},
          {8, 256, 256},          {1, 2048, 2048, false}, {1, 1024, 4096, false},  {1, 4096, 4096, false},
          {1, 2048, 8192, false}, {48, 768, 768, false},  {16, 1024, 1024, false}, {8, 1024, 4096, false},
          {24, 768, 3072, false}};
}
// Where the quick selection compares coefficient sets.
bool compares_sets(const shape& s) {
  if (!chosen().shapes.empty()) return true;
  return device::is_gpu ? (s.batch == 16 || (s.batch == 1 && (s.n == 4096 && s.m == 1024)))
                        : (s.batch == 1 && (s.n == 256 || s.n == 3072));
}

// The type of the compute, and of the matrix.
template <class T>
using compute_of = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <class T>
using matrix_of = std::conditional_t<sizeof(T) == 2, T, compute_of<T>>;

template <class T, class B, class U>
void orthogonalize(matopt::pass<B, compute_of<T>> e, const newton_schulz<T>& policy, const matopt::view<U>& x) {
  matopt::no_state none;
  matopt::detail::orthogonalize(policy, e, none, x);
}
template <class T, class B, class U>
void orthogonalize(B& backend, matopt::arena& scratch, const newton_schulz<T>& policy, const matopt::view<U>& x) {
  matopt::pass<B, compute_of<T>> e(backend, scratch, nullptr, nullptr, x.batch, std::min(x.rows, x.cols));
  orthogonalize<T, B>(e, policy, x);
}
template <class T>
std::size_t scratch_bytes(const newton_schulz<T>& policy, const shape& s) {
  matopt::arena counting;
  const matopt::pass<device::backend, compute_of<T>> dry(matopt::dry_run{}, device::the_backend(), counting, s.batch,
                                                         std::min(s.m, s.n));
  orthogonalize<T, device::backend>(dry, policy, matopt::row_major<matrix_of<T>>(nullptr, s.m, s.n, s.batch));
  return counting.peak;
}
template <class T>
work work_of(const newton_schulz<T>& policy, const shape& s) {
  matopt::arena counting;
  counting_backend<T> counter;
  orthogonalize(counter, counting, policy, matopt::row_major<matrix_of<T>>(nullptr, s.m, s.n, s.batch));
  return counter.counted;
}

template <class T>
struct subject {
  using C = matrix_of<T>;
  subject(const newton_schulz<T>& policy, const shape& s) : scratch(device::memory(scratch_bytes(policy, s))) {
    const double bytes = static_cast<double>(s.batch * s.m * s.n) * sizeof(C);
    const int sets = device::is_gpu ? static_cast<int>(std::clamp(120.0 * (1 << 20) / bytes + 1, 3.0, 8.0)) : 1;
    for (int i = 0; i < sets; ++i) inputs.emplace_back(s.m, s.n, s.batch, static_cast<std::uint64_t>(i + 1));
    for (const auto& x : inputs)
      runs.emplace_back([this, policy, v = x.v()] {
        matopt::arena space{scratch.data()};
        orthogonalize(device::the_backend(), space, policy, v);
      });
  }
  void operator()() { runs[next++ % runs.size()](); }

  device::backend::buffer scratch;
  std::vector<numbers<C>> inputs;
  std::vector<device::recorded> runs;
  std::size_t next = 0;
};

template <class T>
std::vector<accuracy> accuracy_of(const newton_schulz<T>& policy, int ratio) {
  using C = matrix_of<T>;
  const int rows = accuracy_rows, cols = accuracy_rows * ratio;
  const shape s{static_cast<index_t>(spectra.size()), rows, cols};
  const std::size_t each = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
  const spectrum_inputs& given = inputs_of(rows, cols);
  std::vector<C> host;
  for (const auto& input : given.input)
    for (const double x : input) host.push_back(static_cast<C>(static_cast<compute_of<T>>(x)));
  auto memory = device::memory(host.size() * sizeof(C)), scratch = device::memory(scratch_bytes(policy, s));
  device::the_backend().upload(memory.data(), host.data(), host.size() * sizeof(C));
  matopt::arena space{scratch.data()};
  orthogonalize(device::the_backend(), space, policy,
                matopt::row_major(reinterpret_cast<C*>(memory.data()), s.m, s.n, s.batch));
  device::the_backend().download(host.data(), memory.data(), host.size() * sizeof(C));
  std::vector<accuracy> out;
  for (std::size_t i = 0; i < spectra.size(); ++i) {
    const C* const from = host.data() + i * each;
    out.push_back(compare(std::vector<double>(from, from + each), given.polar[i], rows, cols));
  }
  return out;
}

template <class T>
void add_ours(const shape& s, coefficient_set set, newton_schulz_form form) {
  const auto text = [](auto e) { return std::string(enum_names(e)[static_cast<std::size_t>(e)]); };
  newton_schulz<T> policy = newton_schulz<T>::preset(set);
  policy.form = form;
  std::string how = "/set:" + text(set);
  if (policy.steps != 5) how += "/steps:" + std::to_string(policy.steps);
  if (policy.bound != matopt::spectral_bound::frobenius) how += "/norm:" + text(policy.bound);
  how += std::string("/element:") + element_name<T> + "/form:" + text(form);
  const std::string name = "newton_schulz/shape:" + s.text() + how;
  add(name, [=](benchmark::State& state) {
    const work w = work_of(policy, s);
    if (const double expected = w.flops / measured().flops.at(element_name<T>); expected > chosen().most_seconds)
      return state.SkipWithError("left out: would take longer than --most-seconds");
    const int ratio = std::clamp(s.ratio(), 1, most_ratio);
    static std::map<std::string, std::vector<accuracy>> known;
    auto& a = known[how + std::to_string(ratio)];
    if (a.empty()) a = accuracy_of(policy, ratio);
    auto& o = kept<subject<T>>(name, [&] { return new subject<T>(policy, s); });
    measure(state, [&] { o(); });
    count(state, w, element_name<T>);
    for (std::size_t i = 0; i < spectra.size(); ++i) {
      state.counters[std::string("polar_error_") + spectra[i]] = a[i].polar_error;
      state.counters[std::string("smax_") + spectra[i]] = a[i].smax;
    }
    state.counters["accuracy_rows"] = accuracy_rows;
    state.counters["accuracy_cols"] = accuracy_rows * ratio;
    state.counters["scratch_MiB"] = static_cast<double>(scratch_bytes(policy, s)) / (1 << 20);
  });
}

template <class T>
void add_element(const shape& s) {
  const coefficient_set sets[] = {coefficient_set::keller,
                                  coefficient_set::you,
                                  coefficient_set::polar_express,
                                  coefficient_set::polar_express_1_02,
                                  coefficient_set::polar_express_angular,
                                  coefficient_set::cubic,
                                  coefficient_set::cubic5,
                                  coefficient_set::cans,
                                  coefficient_set::deepseek,
                                  coefficient_set::degree9_4,
                                  coefficient_set::degree9_3,
                                  coefficient_set::quintic4};
  static_assert(std::size(sets) == enum_names(coefficient_set{}).size(), "every set");
  constexpr bool usual = std::is_same_v<T, matopt::float16> || (!device::is_gpu && std::is_same_v<T, float>);
  for (const coefficient_set set : sets) {
    const bool quick = s.quick && (set == coefficient_set::keller || (usual && compares_sets(s)));
    if (!quick && !chosen().all) continue;
    add_ours<T>(s, set, newton_schulz_form::standard);
    if (s.n != s.m) add_ours<T>(s, set, newton_schulz_form::gram);
  }
}

#ifndef __CUDACC__
template <class Multiply>
void add_peer(const std::string& by, const shape& s, Multiply multiply) {
  if (s.batch > 1 || !(s.quick || chosen().all)) return;
  const std::string name = "newton_schulz/by:" + by + "/shape:" + s.text() + "/set:keller/element:float/form:standard";
  add(name, [=](benchmark::State& state) {
    newton_schulz<float> policy;
    policy.form = newton_schulz_form::standard;
    const work w = work_of(policy, s);
    if (w.flops / measured().flops.at("float") > chosen().most_seconds)
      return state.SkipWithError("left out: would take longer than --most-seconds");
    row_major_matrix x = random_matrix(s.m, s.n), y(s.m, s.n), gram(s.m, s.m), poly(s.m, s.m);
    const auto run = [&] {
      x /= x.norm() + 1e-7F;
      for (index_t i = 0; i < 5; ++i) {
        const matopt::odd_polynomial p = matopt::coefficients(coefficient_set::keller, i);
        multiply(static_cast<float>(p.a), static_cast<float>(p.b), static_cast<float>(p.c), x, y, gram, poly);
        x.swap(y);
      }
    };
    run();  // not timed: it wakes the threads
    measure(state, run);
    count(state, w, "float");
  });
}
void add_peers(const shape& s) {
  using matrix = row_major_matrix;
  add_peer("eigen", s, [](float a, float b, float c, const matrix& x, matrix& y, matrix& gram, matrix& poly) {
    gram.noalias() = x * x.transpose();
    poly = b * gram;
    poly.noalias() += c * gram * gram;
    y = a * x;
    y.noalias() += poly * x;
  });
  const openblas& blas = openblas::get(device::the_backend().threads());
  if (!blas.found()) return;
  add_peer("openblas", s, [&blas](float a, float b, float c, const matrix& x, matrix& y, matrix& gram, matrix& poly) {
    blas(1, x, x, true, 0, gram);
    poly = gram;
    blas(c, gram, gram, false, b, poly);
    y = x;
    blas(1, poly, x, false, a, y);
  });
}
#endif

void add_cases() {
#ifndef __CUDACC__
  prepare_peers(device::the_backend().threads(), chosen().pin);
#endif
  for (const shape& s : shapes()) {
    device::elements::each([&]<class T>(T) { add_element<T>(s); });
#ifndef __CUDACC__
    add_peers(s);
#endif
  }
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, add_cases); }
