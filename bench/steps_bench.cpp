// Whole optimizer steps over the matrices of a model, and their memory: every rule.
//   steps_bench | cuda_steps_bench [--all] [--most-seconds=S] [--threads=N] [Google Benchmark's options]
//
// Cases: step/model:gpt2_124m/rule:muon, and memory/model:.../rule:..., which allocates nothing and runs once. Weights,
// gradients and state are float; gradients are normal random numbers. On the GPU a step is recorded and replayed. What
// a smaller model took tells what a larger one will take; rules expected to pass --most-seconds per step are left out.
//
// Counters besides the harness's: MiB = state_MiB + scratch_MiB, what the optimizer takes beyond weights and gradients;
// launches of a recorded step. flops are those of products and decompositions, bytes those of one touch of each operand
// of each verb, both averages over 60 steps. fraction_of_peak is of the type that chains of products run in.
#include <chrono>
#include <optional>
#include <set>

#include "common/models.hpp"
#include "common/rules.hpp"

MATOPT_BENCH_FAMILY(extern, matopt::add_muon_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_normalized_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_adaptive_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_estimator_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_baseline_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_constrained_rules)
MATOPT_BENCH_FAMILY(extern, matopt::add_eigenbasis_rules)
MATOPT_BENCH_FAMILY(extern, bench::add_variants)

namespace {

using namespace bench;
using device_optimizer = matopt::any_optimizer<device::backend>;

template <class B>
const registry<B>& rules() {
  static const registry<B> all = [] {
    registry<B> r;
    matopt::add_published_rules(r);
    add_variants(r);
    return r;
  }();
  return all;
}

// What the quick selection steps on the larger models.
bool is_usual(const std::string& rule) {
  static const std::set<std::string> usual{"adamw",         "muon",          "muon_standard_form",
                                           "muon_bfloat16", "muon_tfloat32", "moonlight",
                                           "muown",         "muon_vs",       "normuon"};
  return usual.contains(rule);
}
bool runs(const model& m, const std::string& rule) {
  const bool small = m.name == "many_tiny" || m.name == "gpt2_block_256";
  if (chosen().all) return true;
  if (!device::is_gpu) return small;
  return small || m.name == "gpt2_124m" || (is_usual(rule) && m.name != "gpt2_block");
}

// The caller's matrices: weights, gradients, and gradients to compare with for rules that estimate from two.
template <class Memory>
struct matrices {
  model of;
  Memory weights, gradients, references;

  template <class Optimizer>
  void add_to(Optimizer& opt) const {
    index_t at = 0;
    const auto part = [&](const Memory& m) { return reinterpret_cast<float*>(m.data()) + at; };
    for (std::size_t i = 0; i < of.groups.size(); ++i) {
      const auto [count, rows, cols] = of.groups[i];
      const auto w = matopt::row_major(part(weights), rows, cols, count);
      const matopt::view<const float> g = matopt::row_major(part(gradients), rows, cols, count);
      const std::string name = "w" + std::to_string(i);
      if (opt.needs_reference())
        opt.add(name, w, g, matopt::row_major<const float>(part(references), rows, cols, count));
      else
        opt.add(name, w, g);
      at += count * rows * cols;
    }
  }
};
struct random_part {  // what the optimizers step on
  numbers<float> all;
  std::byte* data() const { return reinterpret_cast<std::byte*>(all.v().data); }
};
const matrices<random_part>& matrices_of(const model& m) {
  static std::optional<matrices<random_part>> last;
  if (!last || last->of.name != m.name) {
    last.reset();
    const auto part = [&](std::uint64_t seed) { return random_part{numbers<float>(1, m.elements(), 1, seed)}; };
    last.emplace(matrices<random_part>{m, part(1), part(2), part(3)});
  }
  return *last;
}
// What is only counted needs no memory.
const matrices<reserved>& addresses_of(const model& m) {
  static std::optional<matrices<reserved>> last;
  if (!last || last->of.name != m.name) {
    const auto part = [&] { return reserved(static_cast<std::size_t>(m.elements()) * sizeof(float)); };
    last.emplace(matrices<reserved>{m, part(), part(), part()});
  }
  return *last;
}

struct subject {
  subject(const model& m, const std::string& rule) : opt(rules<device::backend>().make(rule, device::the_backend())) {
    matrices_of(m).add_to(opt);
    opt.finalize();
    fast.emplace(opt);
  }
  void step() { fast->step(1e-3); }
  device_optimizer opt;
  std::optional<device::stepper<device_optimizer>> fast;
};

// Average over so many steps that rules with a rhythm come round.
work work_of(const model& m, const std::string& rule) {
  constexpr int steps = 60;
  counter c;
  auto opt = rules<counter>().make(rule, c);
  addresses_of(m).add_to(opt);
  opt.finalize();
  opt.step(1e-3);
  c.counted = {};
  for (int i = 0; i < steps; ++i) opt.step(1e-3);
  return {c.counted.flops / steps, c.counted.bytes / steps};
}

void count_memory(benchmark::State& state, const device_optimizer& opt) {
  const matopt::memory_report report = opt.memory();
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  state.counters["MiB"] = mib(report.total());
  state.counters["state_MiB"] = mib(report.state_bytes);
  state.counters["scratch_MiB"] = mib(report.scratch_bytes);
}

// What one step of a rule took on the largest model so far, and what it had to do.
struct observation {
  index_t elements;
  work w;
  double seconds;
};
std::map<std::string, observation>& observations() {
  static std::map<std::string, observation> seen;
  return seen;
}
double expected_seconds(const std::string& rule, const work& w) {
  const auto seen = observations().find(rule);
  if (seen == observations().end()) return 0;
  const auto& [elements, before, seconds] = seen->second;
  return seconds * std::max(before.flops > 0 ? w.flops / before.flops : 0, w.bytes / before.bytes);
}
// Makes the subject and steps it until its steps take what later ones will: the first may begin state and loads
// kernels, the second records.
void warm_up(const model& m, const std::string& rule, const work& w) {
  subject& s = kept<subject>(m.name + rule, [&] { return new subject(m, rule); });
  double taken = 0;
  for (int i = 0; i < 4 && taken < (i < 2 ? chosen().most_seconds : 0.1); ++i)
    taken = device::seconds([&] { s.step(); });
  if (m.name != "many_tiny") observations()[rule] = {m.elements(), w, taken};  // its time says nothing of large ones
}
// Climbs over smaller models, as far as is needed to tell that `m` is worth starting; false if it is not.
bool worth_starting(const model& m, const std::string& rule, const work& w) {
  if (m.name == "many_tiny") return true;  // nor does that of large ones say anything of it
  for (const model& smaller : models()) {
    const auto seen = observations().find(rule);
    if (seen != observations().end()) {
      if (expected_seconds(rule, w) <= chosen().most_seconds) break;
      if (smaller.elements() <= seen->second.elements) continue;
    }
    if (smaller.elements() >= m.elements()) break;
    if (smaller.name == "many_tiny") continue;
    const work less = work_of(smaller, rule);
    if (expected_seconds(rule, less) > chosen().most_seconds) break;
    warm_up(smaller, rule, less);
  }
  return expected_seconds(rule, w) <= chosen().most_seconds;
}

void step_case(benchmark::State& state, const model& m, const std::string& rule) {
  const std::string key = m.name + rule;
  const work w = work_of(m, rule);
  if (last_kept().name != key) {
    if (!worth_starting(m, rule, w)) {
      const std::string expected = std::to_string(expected_seconds(rule, w));
      return state.SkipWithError(("left out: expected to take " + expected + " s, see --most-seconds").c_str());
    }
    warm_up(m, rule, w);
  }
  subject& s = kept<subject>(key, [&] { return new subject(m, rule); });
  count_memory(state, s.opt);
  measure(state, [&] { s.step(); });
  if (s.fast->launches() > 0) state.counters["launches"] = static_cast<double>(s.fast->launches());
  const bool says_product = rule == "muon_bfloat16" || rule == "muon_tfloat32";
  using product = matopt::detail::product_type<device::backend, float>::type;
  count(state, w, says_product ? rule.substr(5) : element_name<product>);
  if (!s.opt.poll_status()) state.SkipWithError("a gradient was not finite");
}

void memory_case(benchmark::State& state, const model& m, const std::string& rule) {
  auto opt = rules<device::backend>().make(rule, device::the_backend());
  if constexpr (device::is_gpu)
    matrices_of(m).add_to(opt);  // the backend asks what kind of memory it is
  else
    addresses_of(m).add_to(opt);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    count_memory(state, opt);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  state.counters["weights_MiB"] = static_cast<double>(m.elements()) * sizeof(float) / (1 << 20);
}

void add_cases() {
  const std::vector<std::string> names = rules<device::backend>().names();
  for (const model& m : models())
    for (const std::string& rule : names)
      if (runs(m, rule))
        add("step/model:" + m.name + "/rule:" + rule, [=](benchmark::State& s) { step_case(s, m, rule); });
  for (const model& m : models())
    for (const std::string& rule : names)
      if (chosen().all || m.name == "gpt2_124m")
        add("memory/model:" + m.name + "/rule:" + rule, [=](benchmark::State& s) {
          memory_case(s, m, rule);
        })->Iterations(1);
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, add_cases); }
