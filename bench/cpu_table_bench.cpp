// Our rows of the table beside PyTorch on the CPU, as bench/cpu-table makes it: cpu_table_bench THREADS [FILTER]
// prints one line per row, its name and the median of its repeats in milliseconds. Compiled without flags for the
// processor, as a user's program is.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <matopt/adamw.hpp>
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>
#include <matopt/torch_muon.hpp>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace matopt;

struct group {
  index_t count, rows, cols;
};

std::string filter;

template <class Call>
void row(const std::string& name, Call call) {
  using clock = std::chrono::steady_clock;
  const auto seconds = [](auto since) { return std::chrono::duration<double>(clock::now() - since).count(); };
  const auto begin = clock::now();
  std::vector<double> times;
  for (int warm = 0; warm < 3; ++warm) call();
  while (times.size() < 9 || (seconds(begin) < 1.5 && times.size() < 500)) {
    const auto start = clock::now();
    call();
    times.push_back(seconds(start));
  }
  std::sort(times.begin(), times.end());
  std::cout << name << '\t' << 1e3 * times[times.size() / 2] << std::endl;
}
template <class Make>
void case_of(const std::string& name, Make make) {
  if (name.find(filter) != std::string::npos) make(name);
}

// One step of a rule over groups of matrices of equal shape.
template <class Rule, class Element>
void step(eigen_backend& cpu, const std::string& name, const std::vector<group>& groups, bool check, Rule rule = {}) {
  case_of(name, [&](const std::string& full) {
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
    row(full, [&] { opt.step(1e-4); });
  });
}

template <class Element>
void newton_schulz_steps(eigen_backend& cpu, const char* element, index_t rows, index_t cols) {
  const std::string shape = std::to_string(rows) + " x " + std::to_string(cols);
  case_of("Newton-Schulz, five steps, " + shape + "|" + element, [&](const std::string& name) {
    const newton_schulz<Element> policy;
    std::vector<float> x(static_cast<std::size_t>(rows * cols));
    const std::uint32_t zero = 0;
    const auto v = row_major(x.data(), rows, cols);
    cpu.random_normal(nullptr, v, 1, view<const std::uint32_t>{&zero, 1, 1, 1, 1});
    const auto run = [&]<class Backend>(Backend& backend, arena& scratch, view<float> u) {
      pass<Backend, float> e(backend, scratch, nullptr, nullptr, 1, std::min(rows, cols));
      no_state none;
      matopt::detail::orthogonalize(policy, e, none, u);
    };
    arena counting;
    dry_backend<eigen_backend> dry{cpu};
    run(dry, counting, row_major<float>(nullptr, rows, cols));
    auto memory = cpu.allocate(counting.peak);
    row(name, [&] {
      arena scratch{memory.data()};
      run(cpu, scratch, v);
    });
  });
}

const std::vector<group> twenty{{20, 1000, 1000}}, one{{1, 5000, 4000}}, small{{100, 64, 64}},
    gpt{{8, 768, 768}, {2, 3072, 768}, {2, 768, 3072}};

template <class Element>
void elementwise_rows(eigen_backend& cpu, const std::string& element) {
  for (const bool check : {false, true}) {
    const std::string how = element + (check ? ", checked" : "");
    step<adamw, Element>(cpu, "AdamW, 20 x (1000, 1000)|" + how, twenty, check);
    step<adamw, Element>(cpu, "AdamW, 1 x (5000, 4000)|" + how, one, check);
    step<adamw, Element>(cpu, "AdamW, 100 x (64, 64)|" + how, small, check);
    step<lion, Element>(cpu, "Lion, 20 x (1000, 1000)|" + how, twenty, check);
  }
}

}  // namespace

int main(int count, char** argument) {
  if (count < 2 || count > 3) {
    std::cerr << "cpu_table_bench THREADS [FILTER]\n";
    return 2;
  }
  eigen_backend cpu(std::atoi(argument[1]));
  if (count > 2) filter = argument[2];
  elementwise_rows<float>(cpu, "float");
  elementwise_rows<double>(cpu, "double");
  step<torch_muon, float>(cpu, "Muon, 100 x (64, 64)|as it comes", small, true);
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{768, 768}, {1024, 1024}, {768, 3072}}) {
    newton_schulz_steps<float>(cpu, "float", rows, cols);
    newton_schulz_steps<bfloat16>(cpu, "bfloat16", rows, cols);
  }
  const std::string model = "Muon, 8 x (768, 768) + 2 x (3072, 768) + 2 x (768, 3072)|";
  step<torch_muon, float>(cpu, model + "as it comes", gpt, true);
  step<torch_muon::with_orthogonalizer<newton_schulz<float>>, float>(cpu, model + "float", gpt, true);
  step<torch_muon::with_orthogonalizer<newton_schulz<bfloat16>>, float>(cpu, model + "bfloat16", gpt, true);
}
