// Our rows of the table beside PyTorch on the CPU, as bench/cpu-table makes it: cpu_table_bench THREADS first prints the
// names of its rows and an empty line. Then it reads names, one per line, and answers each with the median of its
// repeats in milliseconds. Compiled without flags for the processor, as a user's program is.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>
#include <matopt/torch_muon.hpp>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace matopt;

struct group {
  index_t count, rows, cols;
};

// A row's name, and what makes its memory and times its call.
std::vector<std::pair<std::string, std::function<double()>>> rows;

template <class Call>
double median_of(Call call) {
  using clock = std::chrono::steady_clock;
  const auto seconds = [](auto since) { return std::chrono::duration<double>(clock::now() - since).count(); };
  std::vector<double> times;
  for (int warm = 0; warm < 2; ++warm) call();
  const auto begin = clock::now();
  while (times.size() < 3 || (seconds(begin) < 0.5 && times.size() < 500)) {
    const auto start = clock::now();
    call();
    times.push_back(seconds(start));
  }
  std::sort(times.begin(), times.end());
  return 1e3 * times[times.size() / 2];
}

// One step of a rule over groups of matrices of equal shape.
template <class Rule, class Element>
void step(eigen_backend& cpu, const std::string& name, const std::vector<group>& groups, bool check, Rule rule = {}) {
  rows.emplace_back(name, [&cpu, groups, check, rule] {
    std::vector<std::vector<Element>> weights, gradients;
    optimizer_options options;
    if (!check) options.nonfinite = on_nonfinite::ignore;
    optimizer<Rule, eigen_backend, types<Element>> opt(cpu, rule, options);
    for (const group& g : groups)
      for (index_t i = 0; i < g.count; ++i) {
        const std::size_t size = static_cast<std::size_t>(g.rows * g.cols);
        weights.emplace_back(size), gradients.emplace_back(size);
        const auto place = static_cast<std::uint64_t>(weights.size());
        const std::uint32_t zero = 0;
        for (auto* values : {&weights.back(), &gradients.back()})
          cpu.random_normal(nullptr, row_major(values->data(), g.rows, g.cols),
                            2 * place + (values == &gradients.back()), view<const std::uint32_t>{&zero, 1, 1, 1, 1});
      }
    std::size_t at = 0;
    for (const group& g : groups)
      for (index_t i = 0; i < g.count; ++i, ++at)
        opt.add("w" + std::to_string(at), row_major(weights[at].data(), g.rows, g.cols),
                row_major<const Element>(gradients[at].data(), g.rows, g.cols));
    opt.finalize();
    return median_of([&] { opt.step(1e-4); });
  });
}

template <class Element>
void newton_schulz_steps(eigen_backend& cpu, const char* element, index_t m, index_t n) {
  const std::string shape = std::to_string(m) + " x " + std::to_string(n);
  rows.emplace_back("Newton-Schulz, five steps, " + shape + "|" + element, [&cpu, m, n] {
    const newton_schulz<Element> policy;
    std::vector<float> x(static_cast<std::size_t>(m * n));
    const std::uint32_t zero = 0;
    const auto v = row_major(x.data(), m, n);
    cpu.random_normal(nullptr, v, 1, view<const std::uint32_t>{&zero, 1, 1, 1, 1});
    const auto run = [&](pass<eigen_backend, float> e, view<float> u) {
      no_state none;
      matopt::detail::orthogonalize(policy, e, none, u);
    };
    arena counting;
    run({dry_run{}, cpu, counting, 1, std::min(m, n)}, row_major<float>(nullptr, m, n));
    auto memory = cpu.allocate(counting.peak);
    return median_of([&] {
      arena scratch{memory.data()};
      run({cpu, scratch, nullptr, nullptr, 1, std::min(m, n)}, v);
    });
  });
}

const std::vector<group> twenty{{20, 1000, 1000}}, one{{1, 5000, 4000}}, small{{100, 64, 64}},
    gpt{{8, 768, 768}, {2, 3072, 768}, {2, 768, 3072}};

// The check of gradients alone, and the reading of them alone, by a loop as simple as can be.
template <class Element>
void reading_rows(eigen_backend& cpu, const std::string& element) {
  static constexpr index_t side = 1000, size = side * side, count = 20;
  rows.emplace_back("Finite? 20 x (1000, 1000)|" + element, [&cpu] {
    const std::vector<Element> x(static_cast<std::size_t>(count * size), Element(0.5));
    std::vector<Element> flags(static_cast<std::size_t>(count));
    return median_of([&] {
      cpu.reduce(nullptr, fn::not_finite{1e30}, view<Element>{flags.data(), 1, 1, 1, 1, count, 1},
                 view<const Element>{x.data(), side, side, side, 1, count, size});
    });
  });
  rows.emplace_back("A plain read, 20 x (1000, 1000)|" + element, [&cpu] {
    const std::vector<Element> x(static_cast<std::size_t>(count * size), Element(0.5));
    std::vector<Element> sums(static_cast<std::size_t>(count * 10));
    return median_of([&] {
      cpu.pool().parallel_for(count * 10, [&](index_t part) {
        constexpr index_t wide = 32;
        Element sum[wide] = {};
        const Element* const p = x.data() + part * (size / 10);
        for (index_t i = 0; i < size / 10; i += wide)
          for (index_t j = 0; j < wide; ++j) sum[j] += p[i + j];
        sums[static_cast<std::size_t>(part)] = std::accumulate(sum, sum + wide, Element(0));
      });
    });
  });
}

template <class Element>
void elementwise_rows(eigen_backend& cpu, const std::string& element) {
  for (const bool check : {false, true}) {
    const std::string how = element + (check ? ", checked" : "");
    step<adamw, Element>(cpu, "AdamW, 20 x (1000, 1000)|" + how, twenty, check);
    step<adamw, Element>(cpu, "AdamW, 1 x (5000, 4000)|" + how, one, check);
    step<adamw, Element>(cpu, "AdamW, 100 x (64, 64)|" + how, small, check);
    step<lion, Element>(cpu, "Lion, 20 x (1000, 1000)|" + how, twenty, check);
  }
  reading_rows<Element>(cpu, element);
}

}  // namespace

int main(int count, char** argument) {
  if (count != 2) {
    std::cerr << "cpu_table_bench THREADS\n";
    return 2;
  }
  eigen_backend cpu(std::atoi(argument[1]));
  elementwise_rows<float>(cpu, "float");
  elementwise_rows<double>(cpu, "double");
  step<torch_muon, float>(cpu, "Muon, 100 x (64, 64)|as it comes", small, true);
  for (const auto& [m, n] : {std::pair<index_t, index_t>{768, 768}, {1024, 1024}, {768, 3072}}) {
    newton_schulz_steps<float>(cpu, "float", m, n);
    newton_schulz_steps<bfloat16>(cpu, "bfloat16", m, n);
  }
  const std::string model = "Muon, 8 x (768, 768) + 2 x (3072, 768) + 2 x (768, 3072)|";
  step<torch_muon, float>(cpu, model + "as it comes", gpt, true);
  step<torch_muon::with_orthogonalizer<newton_schulz<float>>, float>(cpu, model + "float", gpt, true);
  step<torch_muon::with_orthogonalizer<newton_schulz<bfloat16>>, float>(cpu, model + "bfloat16", gpt, true);

  for (const auto& [name, time] : rows) std::cout << name << '\n';
  std::cout << std::endl;
  for (std::string wanted; std::getline(std::cin, wanted);)
    for (const auto& [name, time] : rows)
      if (name == wanted) std::cout << time() << std::endl;
}
