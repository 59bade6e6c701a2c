// Policies whose type is forgotten, so that a program can put any of them together at run time: each is compiled once,
// and the whole grid of compositions runs. What a type promises to the compiler is kept as flags.
#pragma once
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/optimizer.hpp>

namespace matopt::test {

using real_pass = pass<eigen_backend, double>;
using dry_pass = pass<dry_backend<eigen_backend>, double>;
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
};

// What every slot has: state and its start.
class erased_policy {
 public:
  bool joins = false;  // the step looks at the policy's type: it hands over a formula, or takes the update its own way
  virtual ~erased_policy() = default;
  virtual std::string name() const = 0;
  virtual std::shared_ptr<void> lay_out_state(layout_of_state& l) const = 0;
  virtual void init(real_pass& e, void* s, view<double> w) const = 0;
  virtual void init(dry_pass& e, void* s, view<double> w) const = 0;
};
struct erased_momentum : erased_policy {
  bool two_gradients = false, by_column = false;
  virtual index_t phase(index_t step) const = 0;
  virtual dynamic_rate accumulate(real_pass& e, void* s, const gradient_pair<const double>& g,
                                  view<double> u) const = 0;
  virtual dynamic_rate accumulate(dry_pass& e, void* s, const gradient_pair<const double>& g, view<double> u) const = 0;
};
struct erased_orthogonalizer : erased_policy {
  bool keeps_rank = false;
  virtual void orthogonalize(real_pass& e, void* s, view<double> u) const = 0;
  virtual void orthogonalize(dry_pass& e, void* s, view<double> u) const = 0;
};
struct erased_normalizer : erased_policy {
  virtual void normalize(real_pass& e, void* s, view<double> u) const = 0;
  virtual void normalize(dry_pass& e, void* s, view<double> u) const = 0;
};
struct erased_constraint : erased_policy {
  bool caps_rank = false, maps_gradient = false, column_rates = false;
  virtual double rank_budget(index_t step, index_t q) const = 0;
  virtual view<const double> lift(real_pass& e, void* s, view<double> w, view<const double> g,
                                  view<double> u) const = 0;
  virtual view<const double> lift(dry_pass& e, void* s, view<double> w, view<const double> g, view<double> u) const = 0;
  virtual void retract(real_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const = 0;
  virtual void retract(dry_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const = 0;
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
  explicit typed(P p) : policy(with_some_decay(std::move(p))) {
    if constexpr (requires { policy.validate(); }) policy.validate();
  }
  std::string name() const override { return P::name(); }
  std::shared_ptr<void> lay_out_state(layout_of_state& l) const override {
    auto s = std::make_shared<own_state>();
    lay_out(policy, l, *s);
    return s;
  }
  void init(real_pass& e, void* s, view<double> w) const override { start(e, s, w); }
  void init(dry_pass& e, void* s, view<double> w) const override { start(e, s, w); }

 protected:
  using own_state = state_for<P, double, double>;
  static own_state& state(void* s) { return *static_cast<own_state*>(s); }

  P policy;

 private:
  template <class E>
  void start(E& e, void* s, view<double> w) const {
    const auto frame = e.frame();
    if constexpr (requires { policy.init(e, state(s), w); }) policy.init(e, state(s), w);
  }
};

template <class P>
requires momentum_policy<P, eigen_backend, types<double>>
class typed_momentum final : public typed<P, erased_momentum> {
 public:
  explicit typed_momentum(P p) : typed<P, erased_momentum>(std::move(p)) {
    this->two_gradients = needs_reference<P>;
    this->by_column = rates_by_column<P>;
    this->joins = detail::has_formula<P, real_pass, state_for<P, double, double>, view<const double>>;
  }
  index_t phase(index_t step) const override { return detail::phase_of(this->policy, step); }
  dynamic_rate accumulate(real_pass& e, void* s, const gradient_pair<const double>& g, view<double> u) const override {
    return run(e, s, g, u);
  }
  dynamic_rate accumulate(dry_pass& e, void* s, const gradient_pair<const double>& g, view<double> u) const override {
    return run(e, s, g, u);
  }

 private:
  template <class E>
  dynamic_rate run(E& e, void* s, const gradient_pair<const double>& g, view<double> u) const {
    if constexpr (needs_reference<P>)
      return detail::accumulate(this->policy, e, this->state(s), g, u);
    else
      return detail::accumulate(this->policy, e, this->state(s), static_cast<const view<const double>&>(g), u);
  }
};
template <class P>
requires orthogonalizer_policy<P, eigen_backend, types<double>>
class typed_orthogonalizer final : public typed<P, erased_orthogonalizer> {
 public:
  explicit typed_orthogonalizer(P p) : typed<P, erased_orthogonalizer>(std::move(p)) {
    this->keeps_rank = honours_rank<P>;
    this->joins = detail::has_plain_formula<P> || requires(const P o, real_pass& e, state_for<P, double, double>& s,
                                                           view<double> u, detail::scaled_norm<double> n) {
      o.orthogonalize(e, s, u, n);
    };
  }
  void orthogonalize(real_pass& e, void* s, view<double> u) const override {
    this->policy.orthogonalize(e, this->state(s), u);
  }
  void orthogonalize(dry_pass& e, void* s, view<double> u) const override {
    this->policy.orthogonalize(e, this->state(s), u);
  }
};
template <class P>
requires normalizer_policy<P, eigen_backend, types<double>>
class typed_normalizer final : public typed<P, erased_normalizer> {
 public:
  explicit typed_normalizer(P p) : typed<P, erased_normalizer>(std::move(p)) {
    this->joins = detail::has_plain_formula<P> || leaves_update<P> ||
                  detail::has_formula<P, real_pass, state_for<P, double, double>, view<const double>>;
  }
  void normalize(real_pass& e, void* s, view<double> u) const override {
    detail::normalize(this->policy, e, this->state(s), u);
  }
  void normalize(dry_pass& e, void* s, view<double> u) const override {
    detail::normalize(this->policy, e, this->state(s), u);
  }
};
template <class P>
requires constraint_policy<P, eigen_backend, types<double>>
class typed_constraint final : public typed<P, erased_constraint> {
 public:
  explicit typed_constraint(P p) : typed<P, erased_constraint>(std::move(p)) {
    this->caps_rank = limits_rank<P>;
    this->maps_gradient = changes_gradient<P>;
    this->column_rates = takes_column_rates<P>;
    using own = state_for<P, double, double>;
    this->joins = detail::has_retract_formula<P, real_pass, own, double> || only_reads_update<P> ||
                  detail::has_lift_formula<P, real_pass, own, double, view<const double>>;
  }
  double rank_budget(index_t step, index_t q) const override {
    if constexpr (limits_rank<P>)
      return this->policy.rank_budget(step, q);
    else
      return static_cast<double>(q);
  }
  view<const double> lift(real_pass& e, void* s, view<double> w, view<const double> g, view<double> u) const override {
    return this->policy.lift(e, this->state(s), w, g, u);
  }
  view<const double> lift(dry_pass& e, void* s, view<double> w, view<const double> g, view<double> u) const override {
    return this->policy.lift(e, this->state(s), w, g, u);
  }
  void retract(real_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const override {
    run(e, s, w, u, lr, scale);
  }
  void retract(dry_pass& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const override {
    run(e, s, w, u, lr, scale);
  }

 private:
  template <class E>
  void run(E& e, void* s, view<double> w, view<double> u, dynamic_rate lr, double scale) const {
    if (!lr.by_column)
      detail::retract(this->policy, e, this->state(s), w, u, matrix_broadcast<double>{lr.values}, scale);
    else if constexpr (takes_column_rates<P>)
      detail::retract(this->policy, e, this->state(s), w, u, column_broadcast<double>{lr.values}, scale);
    else
      throw std::logic_error("rates per column that nobody takes");
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
struct any_momentum : any_policy<erased_momentum> {
  static constexpr bool needs_reference = true, rates_by_column = true;
  static constexpr index_t phases = 3;
  index_t phase(index_t step) const { return policy->phase(step); }
  template <class E>
  dynamic_rate accumulate(E& e, any_state& s, const gradient_pair<const double>& g, view<double> u) const {
    return policy->accumulate(e, s.own.get(), g, u);
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
  view<const double> lift(E& e, any_state& s, view<double> w, view<const double> g, view<double> u) const {
    return policy->lift(e, s.own.get(), w, g, u);
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
