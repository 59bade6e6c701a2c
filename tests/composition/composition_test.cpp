// The grid momentum x orthogonalizer x normalizer x constraint: what may be combined, and that all of it runs.
//
// Whether a composition is a rule is decided by the concepts of core/policy.hpp, from the flags of its policies.
// docs/capability-table.md says it in words; this program asks the concepts about every combination of flags, and
// compares. Run with MATOPT_WRITE_DOCS=1 to write the page anew.
#include <catch2/catch.hpp>

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include <matopt/policy/constraint/decoupled_decay.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/nuclear_budget.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>
#include <matopt/policy/momentum/adaptive_rate.hpp>
#include <matopt/policy/momentum/mars.hpp>
#include <matopt/policy/normalizer/no_normalizer.hpp>
#include <matopt/policy/orthogonalizer/dion_polar.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <matopt/policy/scale/scale.hpp>

#include "fused.hpp"

using namespace matopt;
using namespace matopt::test;

namespace {

// Policies that do nothing and have these flags, for the concepts to judge.
struct without_state {
  static std::string name() { return ""; }
};
template <bool TwoGradients, bool ByColumn, bool Orthogonalizes = false, bool Remembers = true>
struct momentum_with : without_state {
  static constexpr bool needs_reference = TwoGradients, rates_by_column = ByColumn;
  static constexpr bool orthogonalizes = Orthogonalizes, remembers_nothing = !Remembers;
  template <class E, class St, class G, class U>
  void accumulate(E&, St&, const G&, view<U>) const {}
};
template <bool KeepsRank, bool OwnMomentum = false, bool DoesNothing = false>
struct orthogonalizer_with : without_state {
  static constexpr bool honours_rank = KeepsRank, replaces_momentum = OwnMomentum;
  template <class E, class St, class U>
  requires(DoesNothing || detail::is_view<U>) void orthogonalize(E&, St&, U) const {}
};
template <bool CapsRank, bool MapsGradient, bool ColumnRates, bool Orthogonalizes = false>
struct constraint_with : without_state {
  static constexpr bool takes_column_rates = ColumnRates, orthogonalizes = Orthogonalizes;
  double rank_budget(index_t, index_t) const requires CapsRank { return 1; }
  template <class E, class St, class W, class G>
  view<G> lift(E&, St&, view<W>, view<G> g) const requires MapsGradient {
    return g;
  }
  template <class E, class St, class W, class U, class Rate>
  void retract(E&, St&, view<W>, view<U>, Rate, double) const {}
};

// What the concepts say of each combination of the six flags, each a bit of the index.
template <std::size_t Flags>
const char* judged() {
  constexpr auto on = [](int i) { return (Flags >> i & 1) != 0; };
  using M = momentum_with<on(0), on(1)>;
  using O = orthogonalizer_with<on(2)>;
  using C = constraint_with<on(3), on(4), on(5)>;
  using all_five = rule<M, O, no_normalizer, C, unit_scale>;
  if constexpr (rule_for<all_five, eigen_backend, types<double>>) {
    return "";
  } else if constexpr (!rank_budget_is_honoured<O, C>) {
    return "rank_budget_is_honoured";
  } else if constexpr (!reference_is_comparable<M, C, eigen_backend, types<double>>) {
    return "reference_is_comparable";
  } else {
    static_assert(!column_rates_are_taken<M, C>, "rule_for refuses for a reason that this table does not know");
    return "column_rates_are_taken";
  }
}

// And of the flags that say who orthogonalizes and who remembers.
template <std::size_t Flags>
const char* judged_once() {
  constexpr auto on = [](int i) { return (Flags >> i & 1) != 0; };
  using M = momentum_with<false, false, on(0), on(1)>;
  using O = orthogonalizer_with<false, on(2), on(3)>;
  using C = constraint_with<false, false, false, on(4)>;
  using all_five = rule<M, O, no_normalizer, C, unit_scale>;
  if constexpr (rule_for<all_five, eigen_backend, types<double>>) {
    return "";
  } else if constexpr (!momentum_is_kept_once<M, O>) {
    return "momentum_is_kept_once";
  } else {
    static_assert(!orthogonalized_once<M, O, C, eigen_backend, types<double>>,
                  "rule_for refuses for a reason that this table does not know");
    return "orthogonalized_once";
  }
}

template <class M, class O, class C>
constexpr bool is_rule = rule_for<rule<M, O, no_normalizer, C, unit_scale>, eigen_backend, types<double>>;
static_assert(is_rule<ema, svd_polar, nuclear_budget<fixed_rank>>);
static_assert(!is_rule<ema, newton_schulz<>, nuclear_budget<fixed_rank>>);
static_assert(is_rule<two_gradients<>, svd_polar, decoupled_decay>);
static_assert(!is_rule<two_gradients<>, svd_polar, weight_normalization<>>);
static_assert(is_rule<column_rate<>, newton_schulz<>, decoupled_decay>);
static_assert(!is_rule<column_rate<>, newton_schulz<>, weight_normalization<>>);
static_assert(is_rule<no_momentum, dion_polar, decoupled_decay> &&
              is_rule<sign_of<no_momentum>, dion_polar, weight_normalization<>>);
static_assert(!is_rule<ema, dion_polar, decoupled_decay> && !is_rule<mars<>, dion_polar, decoupled_decay>);
static_assert(is_rule<polar_first<svd_polar>, no_orthogonalizer, decoupled_decay>);
static_assert(!is_rule<polar_first<svd_polar>, newton_schulz<>, decoupled_decay>);
static_assert(!is_rule<polar_first<svd_polar>, sign_direction, decoupled_decay>);
static_assert(!is_rule<sign_of<polar_first<svd_polar>>, newton_schulz<>, decoupled_decay>);
static_assert(is_rule<ema, no_orthogonalizer, projected<spectral_sphere<>>>);
static_assert(!is_rule<ema, newton_schulz<>, projected<spectral_sphere<>>>);
static_assert(!is_rule<ema, newton_schulz<>, master_weights<projected<norm_control, projected<spectral_sphere<>>>>>);
static_assert(!is_rule<polar_first<svd_polar>, no_orthogonalizer, projected<spectral_sphere<>>>);

}  // namespace

std::string matopt::test::refusal(const erased_momentum& m, const erased_orthogonalizer& o,
                                  const erased_constraint& c) {
  static constexpr auto table = []<std::size_t... I>(std::index_sequence<I...>) { return std::array{&judged<I>...}; }
  (std::make_index_sequence<64>{});
  const bool flags[] = {m.two_gradients, m.by_column, o.keeps_rank, c.caps_rank, c.maps_gradient, c.column_rates};
  std::size_t index = 0;
  for (std::size_t i = 0; i < 6; ++i) index |= static_cast<std::size_t>(flags[i]) << i;
  const std::string why = table[index]();
  if (!why.empty()) return why;
  static constexpr auto once = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::array{&judged_once<I>...};
  }
  (std::make_index_sequence<32>{});
  const bool more[] = {m.orthogonalizes_itself, m.remembers, o.own_momentum, o.does_nothing, c.orthogonalizes_itself};
  index = 0;
  for (std::size_t i = 0; i < 5; ++i) index |= static_cast<std::size_t>(more[i]) << i;
  return once[index]();
}

namespace {

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
  out << "# What may be combined\n\nThis page is written by the test `composition`, which runs every composition that "
         "is a "
         "rule, each policy by itself. For any two policies of different slots that may be combined, it also runs a "
         "rule as a user's program does, with the formulas joined into common passes, and compares the weights.\n\n"
      << all_momenta().size() << " momenta x " << all_orthogonalizers().size() << " orthogonalizers x "
      << all_normalizers().size() << " normalizers x " << all_constraints().size() << " constraints = " << all
      << " compositions; " << rules
      << " are rules. The others do not compile. This table counts them by the first concept that fails:\n\n"
      << "| concept | refuses | compositions |\n|---|---|---|\n"
      << "| `rank_budget_is_honoured` | a constraint that caps the rank, with an orthogonalizer that would ignore it | "
      << refused["rank_budget_is_honoured"] << " |\n"
      << "| `reference_is_comparable` | a momentum that takes a reference gradient, with a constraint that maps "
         "gradients | "
      << refused["reference_is_comparable"] << " |\n"
      << "| `column_rates_are_taken` | a learning rate per column, with a constraint that has no use for it | "
      << refused["column_rates_are_taken"]
      << " |\n| `momentum_is_kept_once` | a momentum, with an orthogonalizer that has a buffer in its place | "
      << refused["momentum_is_kept_once"]
      << " |\n| `orthogonalized_once` | a momentum or a constraint that orthogonalizes, with an orthogonalizer or with "
         "each "
         "other | "
      << refused["orthogonalized_once"] << " |\n\n";
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

// With the types kept, formulas are joined into common passes; what is computed is the same.
TEST_CASE("composition: any two policies of different slots step alike, joined and apart", "[composition]") {
  fused_account account;
  run_first_momenta(account), run_last_momenta(account);
  CHECK(account.differing == std::vector<std::string>{});
  CHECK(account.rules > 120);

  // Every type that the step looks at is in the lists of fused.hpp ...
  const auto count = []<class... P>(std::tuple<P...>*) { return (std::size_t{!forgotten<P>} + ...); };
  const auto joining = [](const auto& list) {
    std::size_t n = 0;
    for (const auto& policy : list) n += policy->joins;
    return n;
  };
  CHECK(joining(all_momenta()) == count(static_cast<typed_momenta*>(nullptr)));
  CHECK(joining(all_orthogonalizers()) == count(static_cast<typed_orthogonalizers*>(nullptr)));
  CHECK(joining(all_normalizers()) == count(static_cast<typed_normalizers*>(nullptr)));
  CHECK(joining(all_constraints()) == count(static_cast<typed_constraints*>(nullptr)));

  // ... and any two have met that no concept keeps apart.
  std::vector<std::string> missing;
  const auto met = [&](const std::string& x, const std::string& y) {
    if (!account.pairs.count({x, y})) missing.push_back(x + ", " + y);
  };
  const auto may_meet = [](const auto& allowed) {
    bool any = false;
    for (const auto& x : allowed) any |= x.empty();
    return any;
  };
  for (const auto& m : all_momenta()) {
    for (const auto& o : all_orthogonalizers()) {
      std::vector<std::string> why;
      for (const auto& c : all_constraints()) why.push_back(refusal(*m, *o, *c));
      if (may_meet(why)) met(m->name(), "orthogonalizer " + o->name());
    }
    for (const auto& n : all_normalizers()) met(m->name(), "normalizer " + n->name());
    for (const auto& c : all_constraints()) {
      std::vector<std::string> why;
      for (const auto& o : all_orthogonalizers()) why.push_back(refusal(*m, *o, *c));
      if (may_meet(why)) met(m->name(), c->name());
    }
  }
  for (const auto& o : all_orthogonalizers()) {
    for (const auto& n : all_normalizers()) met("orthogonalizer " + o->name(), "normalizer " + n->name());
    for (const auto& c : all_constraints()) {
      std::vector<std::string> why;
      for (const auto& m : all_momenta()) why.push_back(refusal(*m, *o, *c));
      if (may_meet(why)) met("orthogonalizer " + o->name(), c->name());
    }
  }
  for (const auto& n : all_normalizers())
    for (const auto& c : all_constraints()) met("normalizer " + n->name(), c->name());
  CHECK(missing == std::vector<std::string>{});
}
