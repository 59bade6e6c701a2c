// The grid momentum x orthogonalizer x normalizer x constraint: what may be combined, and that all of it runs.
//
// Whether a composition is a rule is decided by the concepts of core/policy.hpp, that is by the flags of its policies
// and nothing else; docs/capability-table.md says it in words and is compared with this program's own account of it.
// Run with MATOPT_WRITE_DOCS=1 to write it anew.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include <matopt/policy/constraint/decoupled_decay.hpp>
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/constraint/row_norm.hpp>
#include <matopt/policy/momentum/adaptive_rate.hpp>
#include <matopt/policy/momentum/mars.hpp>
#include <matopt/policy/normalizer/no_normalizer.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/policy/scale/scale.hpp>

#include "erased.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// The name of the concept that refuses, or nothing. The same three as in rule_for.
std::string refusal(const erased_momentum& m, const erased_orthogonalizer& o, const erased_constraint& c) {
  if (c.caps_rank && !o.keeps_rank) return "rank_budget_is_honoured";
  if (m.two_gradients && c.maps_gradient) return "reference_is_comparable";
  if (m.by_column && !c.column_rates) return "column_rates_are_taken";
  return "";
}

template <class M, class O, class C>
constexpr bool is_rule = rule_for<rule<M, O, no_normalizer, C, unit_scale>, eigen_backend, types<double>>;
static_assert(is_rule<ema, svd_polar, nuclear_budget<fixed_rank>>);
static_assert(!is_rule<ema, newton_schulz<>, nuclear_budget<fixed_rank>>);
static_assert(is_rule<two_gradients<>, svd_polar, decoupled_decay>);
static_assert(!is_rule<two_gradients<>, svd_polar, row_norm<>>);
static_assert(is_rule<column_rate<>, newton_schulz<>, decoupled_decay>);
static_assert(!is_rule<column_rate<>, newton_schulz<>, row_norm<>>);

using any_composition = rule<any_momentum, any_orthogonalizer, any_normalizer, any_constraint, unit_scale>;

// Least squares ||W - A||^2 / 2 on 5 x 4, with the gradient as the reference, too.
struct problem {
  static constexpr index_t rows = 5, cols = 4;
  std::vector<double> w, target, g, r;

  problem() : w(rows * cols), target(rows * cols), g(rows * cols), r(rows * cols) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double x = static_cast<double>(i);
      w[i] = 0.5 * std::sin(1.3 * x + 0.2), target[i] = 0.5 * std::cos(2.1 * x + 1) + 0.2 * std::sin(7 * x);
    }
  }
  double loss() const {
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) sum += (w[i] - target[i]) * (w[i] - target[i]) / 2;
    return sum;
  }
  // Steps, and the loss after the last.
  double run(const any_composition& rule, int steps, double lr) {
    eigen_backend& cpu = backend();
    any_optimizer<eigen_backend, types<double>> opt(cpu, rule);
    opt.add("w", row_major(w.data(), rows, cols), row_major<const double>(g.data(), rows, cols),
            row_major<const double>(r.data(), rows, cols));
    opt.finalize();
    std::set<std::string> names;
    for (const auto& s : opt.state_tensors()) names.insert(s.name);
    unique_names = names.size() == opt.state_tensors().size();
    for (int t = 0; t < steps; ++t) {
      r = g;
      for (std::size_t i = 0; i < w.size(); ++i) g[i] = w[i] - target[i];
      opt.step(lr);
    }
    state_is_finite = true;
    for (const auto& s : opt.state_tensors()) {
      std::vector<double> x(static_cast<std::size_t>(s.rows * s.cols));
      opt.read_state(s, x.data());
      for (const double v : x) state_is_finite &= math::finite(v);
    }
    return loss();
  }
  bool unique_names = true, state_is_finite = true;

 private:
  static eigen_backend& backend() {
    static eigen_backend cpu(1);
    return cpu;
  }
};

any_composition composition(const erased_momentum& m, const erased_orthogonalizer& o, const erased_normalizer& n,
                            const erased_constraint& c) {
  any_composition r;
  r.momentum.policy = &m, r.orthogonalizer.policy = &o, r.normalizer.policy = &n, r.constraint.policy = &c;
  return r;
}

template <class F>
void each_composition(F f) {
  for (const auto& m : all_momenta())
    for (const auto& o : all_orthogonalizers())
      for (const auto& n : all_normalizers())
        for (const auto& c : all_constraints())
          if (refusal(*m, *o, *c).empty()) f(*m, *o, *n, *c);
}

std::string table() {
  std::ostringstream out;
  std::size_t rules = 0;
  std::map<std::string, std::size_t> refused;
  for (const auto& m : all_momenta())
    for (const auto& o : all_orthogonalizers())
      for (const auto& c : all_constraints()) {
        const std::string why = refusal(*m, *o, *c);
        (why.empty() ? rules : refused[why]) += all_normalizers().size();
      }
  std::size_t all = rules;
  for (const auto& [unused, count] : refused) all += count;
  out << "# What may be combined\n\nWritten by the test `composition`, which also runs every composition that is a "
         "rule.\n\n"
      << all_momenta().size() << " momenta x " << all_orthogonalizers().size() << " orthogonalizers x "
      << all_normalizers().size() << " normalizers x " << all_constraints().size() << " constraints = " << all
      << " compositions; " << rules
      << " are rules. The others do not compile, by the first of these concepts that fails:\n\n"
      << "| concept | refuses | compositions |\n|---|---|---|\n"
      << "| `rank_budget_is_honoured` | a constraint that caps the rank, with an orthogonalizer that would ignore it | "
      << refused["rank_budget_is_honoured"] << " |\n"
      << "| `reference_is_comparable` | a momentum that takes a reference gradient, with a constraint that maps "
         "gradients | "
      << refused["reference_is_comparable"] << " |\n"
      << "| `column_rates_are_taken` | a learning rate per column, with a constraint that has no use for it | "
      << refused["column_rates_are_taken"] << " |\n\n";
  out << "| momentum | reference gradient | rate per column |\n|---|---|---|\n";
  for (const auto& m : all_momenta())
    out << "| `" << m->name() << "` | " << (m->two_gradients ? "needs one" : "") << " | "
        << (m->by_column ? "returns one" : "") << " |\n";
  out << "\n| orthogonalizer | rank budget |\n|---|---|\n";
  for (const auto& o : all_orthogonalizers())
    out << "| `" << o->name() << "` | " << (o->keeps_rank ? "honours it" : "") << " |\n";
  out << "\n| normalizer |\n|---|\n";
  for (const auto& n : all_normalizers()) out << "| `" << n->name() << "` |\n";
  out << "\n| constraint | rank | maps gradients | rate per column |\n|---|---|---|---|\n";
  for (const auto& c : all_constraints())
    out << "| `" << c->name() << "` | " << (c->caps_rank ? "capped" : "") << " | " << (c->maps_gradient ? "yes" : "")
        << " | " << (c->column_rates ? "taken" : "") << " |\n";
  return out.str();
}

}  // namespace

TEST_CASE("composition: docs/capability-table.md is what the concepts say", "[composition]") {
  const std::string path = MATOPT_SOURCE_DIR "/docs/capability-table.md";
  if (std::getenv("MATOPT_WRITE_DOCS")) std::ofstream(path) << table();
  std::ifstream in(path);
  std::stringstream written;
  written << in.rdbuf();
  CHECK(written.str() == table());
}

TEST_CASE("composition: every rule of the grid takes finite steps", "[composition]") {
  std::size_t rules = 0;
  each_composition([&](const auto& m, const auto& o, const auto& n, const auto& c) {
    ++rules;
    problem p;
    const double loss = p.run(composition(m, o, n, c), 3, 0.01);
    if (!math::finite(loss) || !p.state_is_finite || !p.unique_names) {
      CAPTURE(m.name(), o.name(), n.name(), c.name(), loss);
      CHECK(math::finite(loss));
      CHECK(p.state_is_finite);
      CHECK(p.unique_names);
    }
  });
  CHECK(rules > 10000);
}

// Each momentum with each orthogonalizer and normalizer on the free weight: a descent direction, at one of a few rates.
TEST_CASE("composition: the loss falls", "[composition]") {
  const auto& free_weight = *all_constraints().front();
  for (const auto& m : all_momenta())
    for (const auto& o : all_orthogonalizers())
      for (const auto& n : all_normalizers()) {
        if (!refusal(*m, *o, free_weight).empty()) continue;
        double best = 1;
        for (const double lr : {0.3, 0.03, 0.003}) {
          problem p;
          const double start = p.loss();
          best = std::min(best, p.run(composition(*m, *o, *n, free_weight), 40, lr) / start);
        }
        CAPTURE(m->name(), o->name(), n->name(), best);
        CHECK(best < 0.95);
      }
}
