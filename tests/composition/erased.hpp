// Policies whose type is forgotten, so that a program can put any of them together at run time: each is compiled once,
// and the whole grid of compositions runs. What a type promises to the compiler is kept as flags.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/optimizer.hpp>

namespace matopt::test {

using real_pass = pass<eigen_backend, double>;
using layout_of_state = state_layout<double, double>;

// The learning rate of a step: one number, or one per column.
struct dynamic_rate {
  view<const double> values;
  bool by_column = false;
  dynamic_rate(matrix_broadcast<double> lr) : values(lr.values) {}
  dynamic_rate(column_broadcast<double> lr) : values(lr.values), by_column(true) {}
};

struct any_state {
  std::shared_ptr<void> own{};
  std::optional<dynamic_rate> rate{};
};

// What every slot has: state and its start.
class erased_policy {
 public:
  bool joins = false;  // the step looks at the policy's type: it hands over a formula, or takes the update its own way
  virtual ~erased_policy() = default;
  virtual std::string name() const = 0;
  virtual std::shared_ptr<void> lay_out_state(layout_of_state& l) const = 0;
  virtual void init(real_pass& e, void* s, view<double> w) const = 0;
};
struct erased_momentum : erased_policy {
  bool two_gradients = false, by_column = false, orthogonalizes_itself = false, remembers = true;
  virtual index_t phase(index_t step) const = 0;
  virtual dynamic_rate accumulate(real_pass& e, void* s, const gradient_pair<const double>& g,
                                  view<double> u) const = 0;
};
struct erased_orthogonalizer : erased_policy {
  bool keeps_rank = false, own_momentum = false, does_nothing = false;
  virtual void orthogonalize(real_pass& e, void* s, view<double> u) const = 0;
};
struct erased_normalizer : erased_policy {
  virtual void normalize(real_pass& e, void* s, view<double> u) const = 0;
};
struct erased_constraint : erased_policy {
  bool caps_rank = false, maps_gradient = false, column_rates = false, orthogonalizes_itself = false;
  virtual double rank_budget(index_t step, index_t q) const = 0;
  virtual view<const double> lift(real_pass& e, void* s, view<double> w, view<const double> g,
                                  view<double> u) const = 0;
  virtual void retract(real_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const = 0;
};

// --- a policy of a type, erased ---

// Decays are 0 by default, and would be tested as nothing.
template <class P>
P with_some_decay(P p) {
  if constexpr (requires { p.decay; })
    if (p.decay == 0) p.decay = 0.1;
  return p;
}

template <class P, class Base>
class typed : public Base {
 public:
  explicit typed(P p) : policy(with_some_decay(std::move(p))) { detail::validate(policy); }
  std::string name() const override { return P::name(); }
  std::shared_ptr<void> lay_out_state(layout_of_state& l) const override {
    auto s = std::make_shared<own_state>();
    lay_out(policy, l, *s);
    return s;
  }
  void init(real_pass& e, void* s, view<double> w) const override { start(e, s, w); }

 protected:
  using own_state = state_for<P, double, double>;
  static own_state& state(void* s) { return *static_cast<own_state*>(s); }

  P policy;

 private:
  template <class E>
  void start(E& e, void* s, view<double> w) const {
    const auto frame = e.frame();
    detail::init(policy, e, state(s), w);
  }
};

template <class P>
requires momentum_policy<P, eigen_backend, types<double>>
class typed_momentum final : public typed<P, erased_momentum> {
 public:
  explicit typed_momentum(P p) : typed<P, erased_momentum>(std::move(p)) {
    this->two_gradients = needs_reference<P>;
    this->by_column = rates_by_column<P>;
    this->orthogonalizes_itself = orthogonalizes<P>;
    this->remembers = !remembers_nothing<P>;
    using own = state_for<P, double, double>;
    using gradient = gradient_for<P, double>;
    if constexpr (detail::accumulates<P, real_pass, own, gradient, update_slot>)
      this->joins = true;
    else if constexpr (!needs_reference<P>)
      this->joins = !std::is_void_v<decltype(this->policy.accumulate(std::declval<real_pass&>(), std::declval<own&>(),
                                                                     std::declval<const gradient&>(), view<double>{}))>;
  }
  index_t phase(index_t step) const override { return detail::phase_of(this->policy, step, 0); }
  dynamic_rate accumulate(real_pass& e, void* s, const gradient_pair<const double>& g, view<double> u) const override {
    return run(e, s, g, u);
  }

 private:
  template <class E>
  dynamic_rate run(E& e, void* s, const gradient_pair<const double>& g, view<double> u) const {
    if constexpr (needs_reference<P>)
      detail::accumulate_all(this->policy, e, this->state(s), g, u);
    else
      detail::accumulate_all(this->policy, e, this->state(s), static_cast<const view<const double>&>(g), u);
    return detail::rate(this->policy, e, this->state(s));
  }
};
template <class P>
requires orthogonalizer_policy<P, eigen_backend, types<double>>
class typed_orthogonalizer final : public typed<P, erased_orthogonalizer> {
 public:
  explicit typed_orthogonalizer(P p) : typed<P, erased_orthogonalizer>(std::move(p)) {
    this->keeps_rank = honours_rank<P>;
    this->own_momentum = replaces_momentum<P>;
    using own = state_for<P, double, double>;
    this->does_nothing = detail::leaves_direction<P, real_pass, own>;
    if constexpr (takes_norm<P> || detail::orthogonalizes_as<P, real_pass, own, update_slot>)
      this->joins = true;
    else
      this->joins = !std::is_void_v<decltype(this->policy.orthogonalize(std::declval<real_pass&>(),
                                                                        std::declval<own&>(), view<double>{}))>;
  }
  void orthogonalize(real_pass& e, void* s, view<double> u) const override {
    detail::orthogonalize(this->policy, e, this->state(s), u);
  }
};
template <class P>
requires normalizer_policy<P, eigen_backend, types<double>>
class typed_normalizer final : public typed<P, erased_normalizer> {
 public:
  explicit typed_normalizer(P p) : typed<P, erased_normalizer>(std::move(p)) {
    using own = state_for<P, double, double>;
    if constexpr (detail::normalizes<P, real_pass, own, update_slot>)
      this->joins = true;
    else
      this->joins = !std::is_void_v<decltype(this->policy.normalize(std::declval<real_pass&>(), std::declval<own&>(),
                                                                    view<double>{}))>;
  }
  void normalize(real_pass& e, void* s, view<double> u) const override { run(e, s, u); }

 private:
  template <class E>
  void run(E& e, void* s, view<double> u) const {
    const auto frame = e.frame();
    if constexpr (detail::normalizes<P, E, state_for<P, double, double>, update_slot>)
      run_formula(e, detail::remains([&] { return this->policy.normalize(e, this->state(s), update_slot{}); }), u);
    else
      run_formula(e, detail::remains([&] { return this->policy.normalize(e, this->state(s), u); }), u);
  }
};
template <class P>
requires constraint_policy<P, eigen_backend, types<double>>
class typed_constraint final : public typed<P, erased_constraint> {
 public:
  explicit typed_constraint(P p) : typed<P, erased_constraint>(std::move(p)) {
    this->caps_rank = limits_rank<P>;
    this->maps_gradient = changes_gradient<P, eigen_backend, types<double>>;
    this->orthogonalizes_itself = orthogonalizes<P>;
    this->column_rates = takes_column_rates<P>;
    using own = state_for<P, double, double>;
    this->joins =
        !decorator<P> && (detail::retracts<P, real_pass, own, double, update_slot, matrix_broadcast<double>> ||
                          only_reads_update<P> || this->maps_gradient);
  }
  double rank_budget(index_t step, index_t q) const override {
    if constexpr (limits_rank<P>)
      return this->policy.rank_budget(step, q);
    else
      return static_cast<double>(q);
  }
  view<const double> lift(real_pass& e, void* s, view<double> w, view<const double> g, view<double> u) const override {
    return lifted(e, s, w, g, u);
  }
  void retract(real_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const override {
    run(e, s, w, u, lr, scale);
  }

 private:
  template <class E>
  view<const double> lifted(E& e, void* s, view<double> w, view<const double> g, view<double> u) const {
    if constexpr (detail::lifts<P, E, state_for<P, double, double>, double, view<const double>>) {
      const auto result = detail::lift(this->policy, e, this->state(s), w, g);
      run_formula(e, result, u);
      if (changes_gradient<P, eigen_backend, types<double>>) return u;
    }
    return g;
  }
  template <class E>
  void run(E& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const {
    if (!lr.by_column)
      run(e, s, w, u, matrix_broadcast<double>{lr.values}, scale);
    else if constexpr (takes_column_rates<P>)
      run(e, s, w, u, column_broadcast<double>{lr.values}, scale);
    else
      throw std::logic_error("rates per column that nobody takes");
  }
  template <class E, class Rate>
  void run(E& e, void* s, view<double> w, view<double> u, Rate lr, double scale) const {
    run_formula(e, detail::retract(this->policy, e, this->state(s), w, u, lr, scale), u);
    detail::finish(this->policy, e, this->state(s), w, lr, scale);
  }
};

// --- the slots of a rule that hold any of them ---

template <class Base>
struct any_policy {
  const Base* policy = nullptr;

  static std::string name() { return "any"; }
  template <class S, class C>
  using state = any_state;
  void layout(layout_of_state& l, any_state& s) const { s.own = policy->lay_out_state(l); }
  template <class E>
  void init(E& e, any_state& s, view<double> w) const {
    policy->init(e, s.own.get(), w);
  }
};
// The gradient as an any_constraint lifted it, which says to the compiler that it only looks at it: so any of them may
// stand in a rule with a reference gradient.
inline std::optional<view<const double>> lifted_gradient;

struct any_momentum : any_policy<erased_momentum> {
  static constexpr bool needs_reference = true, rates_by_column = true;
  static constexpr index_t phases = 3;
  index_t phase(index_t step) const { return policy->phase(step); }
  template <class E>
  void accumulate(E& e, any_state& s, const gradient_pair<const double>& g, view<double> u) const {
    const view<const double> lifted = lifted_gradient.value_or(g);
    lifted_gradient.reset();
    s.rate = policy->accumulate(e, s.own.get(), {lifted, g.reference}, u);
  }
  template <class E>
  void accumulate(E& e, any_state& s, const view<const double>& g, view<double> u) const {
    accumulate(e, s, gradient_pair<const double>{g, g}, u);
  }
  template <class E>
  dynamic_rate rate(E&, any_state& s) const {
    return *s.rate;
  }
};
struct any_orthogonalizer : any_policy<erased_orthogonalizer> {
  static constexpr bool honours_rank = true;
  template <class E>
  void orthogonalize(E& e, any_state& s, view<double> u) const {
    policy->orthogonalize(e, s.own.get(), u);
  }
};
struct any_normalizer : any_policy<erased_normalizer> {
  template <class E>
  void normalize(E& e, any_state& s, view<double> u) const {
    policy->normalize(e, s.own.get(), u);
  }
};
struct any_constraint : any_policy<erased_constraint> {
  static constexpr bool takes_column_rates = true;
  double rank_budget(index_t step, index_t q) const { return policy->rank_budget(step, q); }
  template <class E>
  void lift(E& e, any_state& s, view<double> w, view<const double> g) const {
    lifted_gradient = policy->lift(e, s.own.get(), w, g, e.take_like(w));
  }
  template <class E>
  void retract(E& e, any_state& s, view<double> w, view<double> u, dynamic_rate lr, double scale) const {
    policy->retract(e, s.own.get(), w, u, lr, scale);
  }
};

// --- what may be combined ---

// The name of the concept that refuses, or nothing: what the concepts say of types with these flags.
std::string refusal(const erased_momentum& m, const erased_orthogonalizer& o, const erased_constraint& c);

// --- the lists; one translation unit each ---
using momenta = std::vector<std::unique_ptr<erased_momentum>>;
using orthogonalizers = std::vector<std::unique_ptr<erased_orthogonalizer>>;
using normalizers = std::vector<std::unique_ptr<erased_normalizer>>;
using constraints = std::vector<std::unique_ptr<erased_constraint>>;
const momenta& all_momenta();
const orthogonalizers& all_orthogonalizers();
const normalizers& all_normalizers();
const constraints& all_constraints();

template <class P>
void add(momenta& list, P p = {}) {
  list.push_back(std::make_unique<typed_momentum<P>>(std::move(p)));
}
template <class P>
void add(orthogonalizers& list, P p = {}) {
  list.push_back(std::make_unique<typed_orthogonalizer<P>>(std::move(p)));
}
template <class P>
void add(normalizers& list, P p = {}) {
  list.push_back(std::make_unique<typed_normalizer<P>>(std::move(p)));
}
template <class P>
void add(constraints& list, P p = {}) {
  list.push_back(std::make_unique<typed_constraint<P>>(std::move(p)));
}

}  // namespace matopt::test
