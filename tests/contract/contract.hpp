// The contract table: every rule, type-erased, so that the checks are compiled once and a rule's own code in a file of
// its own. A new rule is one line in a rules_*.cpp.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <matopt/eigen.hpp>
#include <matopt/optimizer.hpp>

#include "../support/deferred_backend.hpp"
#include "../support/matrices.hpp"

namespace matopt::test {

// The eager backend, counting what it is asked for.
struct counting_backend : eigen_backend {
  using eigen_backend::eigen_backend;
  std::size_t asked = 0;
  buffer allocate(std::size_t bytes) {
    asked += bytes;
    return eigen_backend::allocate(bytes);
  }
};

template <class T>
class subject {
 public:
  virtual ~subject() = default;
  // r: the reference gradient, for rules that need one
  virtual void add(const std::string& name, view<T> w, view<const T> g, view<const T> r,
                   const parameter_options& o = {}) = 0;
  virtual bool needs_reference() const = 0;
  virtual void finalize() = 0;
  virtual void step(double lr, double gradient_scale = 1) = 0;
  virtual step_status poll_status() = 0;
  virtual void rebind(const std::string& name, view<const T> g) = 0;
  virtual memory_report memory() const = 0;
  virtual std::vector<state_tensor> state_tensors() const = 0;
  virtual void set_steps(index_t t) = 0;
  virtual index_t steps() const = 0;
  virtual index_t bucket_count() const = 0;
  virtual std::size_t asked() = 0;
  // Arrays that a late backend poisons until synchronize().
  virtual void track(void* p, std::size_t bytes) = 0;
  virtual void synchronize() = 0;
};

struct subject_options {
  int threads = 1;
  optimizer_options optimizer{};
};

template <class Backend, class T>
class subject_of final : public subject<T> {
  static constexpr bool late = requires(Backend b) { b.synchronize(); };
  using optimizer = any_optimizer<Backend, types<T>>;

 public:
  // make(backend, options): the optimizer
  template <class Make>
  subject_of(Make make, const subject_options& o) : backend_(o.threads), opt_(make(backend_, o.optimizer)) {}

  void add(const std::string& name, view<T> w, view<const T> g, view<const T> r, const parameter_options& o) override {
    opt_.add(name, w, g, r, o);
  }
  bool needs_reference() const override { return opt_.needs_reference(); }
  void finalize() override { opt_.finalize(); }
  void step(double lr, double gradient_scale = 1) override { opt_.step(lr, gradient_scale); }
  step_status poll_status() override { return opt_.poll_status(); }
  void rebind(const std::string& name, view<const T> g) override { opt_.rebind(name, g); }
  memory_report memory() const override { return opt_.memory(); }
  std::vector<state_tensor> state_tensors() const override { return opt_.state_tensors(); }
  void set_steps(index_t t) override { opt_.set_steps(t); }
  index_t steps() const override { return opt_.steps(); }
  index_t bucket_count() const override { return opt_.bucket_count(); }
  std::size_t asked() override {
    if constexpr (late)
      return backend_.inner().asked;
    else
      return backend_.asked;
  }
  void track(void* p, std::size_t bytes) override {
    if constexpr (late) backend_.track(p, bytes);
  }
  void synchronize() override {
    if constexpr (late) backend_.synchronize();
  }

 private:
  Backend backend_;
  optimizer opt_;
};

template <class Backend, class T, class Make>
std::unique_ptr<subject<T>> make_subject(Make make, const subject_options& o) {
  return std::make_unique<subject_of<Backend, T>>(make, o);
}

// Steps one parameter with mixed element types from W0 with the gradients given; the weight after it, in double.
using mixed_run = std::function<mat(const mat& w0, const std::vector<mat>& gradients, double lr)>;

struct contract_rule {
  std::string name;
  bool exact_at_rest = true;      // a zero update gives the same weights to the bit, not to rounding
  bool unique_trajectory = true;  // false where rounding decides between equally right steps (SOAP's equal eigenvalues)
  std::function<std::unique_ptr<subject<float>>(const subject_options&)> in_float{};
  std::function<std::unique_ptr<subject<double>>(const subject_options&)> in_double{}, late{};
  mixed_run in_double_types{};
  std::vector<std::pair<std::string, mixed_run>> mixed{};  // by the name of the coarsest element type

  template <class T>
  std::unique_ptr<subject<T>> make(const subject_options& o = {}) const {
    if constexpr (std::is_same_v<T, float>)
      return in_float(o);
    else
      return in_double(o);
  }
};

template <class Rule, class Types>
mixed_run make_mixed(const Rule& rule) {
  return [rule](const mat& w0, const std::vector<mat>& gradients, double lr) {
    stored<typename Types::weight> w(w0.rows, w0.cols);
    stored<typename Types::gradient> g(w0.rows, w0.cols), r(w0.rows, w0.cols);
    w.fill([&](index_t i, index_t j, index_t) { return w0(i, j); });
    counting_backend cpu(1);
    optimizer<Rule, counting_backend, Types> opt(cpu, rule);
    if constexpr (matopt::needs_reference<typename Rule::momentum_type>)
      opt.add("w", w.v(), g.cv(), r.cv());
    else
      opt.add("w", w.v(), g.cv());
    opt.finalize();
    for (const mat& next : gradients) {
      g.fill([&](index_t i, index_t j, index_t) { return next(i, j); });
      opt.step(lr);
    }
    return to_mat(w.cv());
  };
}

template <class Rule>
contract_rule describe_rule(std::string name, const Rule& rule = {}, bool exact_at_rest = true) {
  contract_rule r{std::move(name), exact_at_rest};
  const auto with = [rule]<class B, class T>(std::type_identity<B>, std::type_identity<T>) {
    return [rule](const subject_options& o) -> std::unique_ptr<subject<T>> {
      return make_subject<B, T>(
          [&](B& b, const optimizer_options& p) { return any_optimizer<B, types<T>>(b, rule, p); }, o);
    };
  };
  r.in_float = with(std::type_identity<counting_backend>{}, std::type_identity<float>{});
  r.in_double = with(std::type_identity<counting_backend>{}, std::type_identity<double>{});
  r.late = with(std::type_identity<deferred_backend<counting_backend>>{}, std::type_identity<double>{});
  r.in_double_types = make_mixed<Rule, types<double>>(rule);
  return r;
}

// One function per rules_*.cpp.
void append_muon(std::vector<contract_rule>& rules);
void append_adamw(std::vector<contract_rule>& rules);
void append_numuon(std::vector<contract_rule>& rules);
void append_numuon_exact(std::vector<contract_rule>& rules);
void append_numuon_warm(std::vector<contract_rule>& rules);
void append_muown(std::vector<contract_rule>& rules);
void append_angular(std::vector<contract_rule>& rules);
void append_numuown(std::vector<contract_rule>& rules);
void append_published(std::vector<contract_rule>& rules);  // all that are not above, each with its published defaults

inline const std::vector<contract_rule>& contract_rules() {
  static const std::vector<contract_rule> all = [] {
    std::vector<contract_rule> rules;
    append_muon(rules), append_adamw(rules), append_numuon(rules), append_numuon_exact(rules);
    append_numuon_warm(rules), append_muown(rules), append_angular(rules), append_numuown(rules);
    append_published(rules);
    return rules;
  }();
  return all;
}

}  // namespace matopt::test
