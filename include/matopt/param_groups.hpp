// param_groups: hidden matrices take a matrix rule, everything else takes another (AdamW), each with its own rate.
//
//   param_groups groups(optimizer<muon, eigen_backend>(cpu), 0.02, optimizer<adamw, eigen_backend>(cpu), 3e-3);
//   groups.add("blocks.0.attention.qkv", w, g, role::hidden, {.row_blocks = {128, 128, 128}});
//   groups.add("token_embedding", e, ge, role::embedding);
//   groups.finalize();
//   groups.step(schedule.factor(t));      one schedule: its factor multiplies every rate
//   groups.step(factor, gradient_scale);  and every gradient times the same scale, if both optimizers have
//                                         optimizer_options::scales_gradient
//
// If needs_reference(role), a parameter of that role is added with a second gradient, as optimizer.hpp says:
// add(name, w, g, reference, role). For other roles it may be given, and is not looked at.
//
// The caller states the role; shape never decides, for an embedding is a matrix too. Per parameter, `lr_scale` and
// `decay` replace the group's. table() prints who got what. Errors: those of optimizer.
#pragma once
#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optimizer.hpp"

namespace matopt {

enum class role { hidden, embedding, head, vector };
constexpr auto enum_names(role) { return std::array<std::string_view, 4>{"hidden", "embedding", "head", "vector"}; }

template <class Matrix, class Rest>
class param_groups {
  using W = typename Matrix::element_types::weight;
  using G = typename Matrix::element_types::gradient;

 public:
  struct assignment {
    std::string name;
    role kind;
    std::string rule;
    index_t rows, cols;
    double lr;
    std::string decay;  // "rule" if it is the rule's own
  };

  param_groups(Matrix matrix, double matrix_lr, Rest rest, double rest_lr)
      : matrix_(std::move(matrix)), rest_(std::move(rest)), matrix_lr_(matrix_lr), rest_lr_(rest_lr) {
    for (const auto& [name, lr] : {std::pair{"matrix_lr", matrix_lr}, std::pair{"rest_lr", rest_lr}})
      if (const range legal{.low = 0}; !legal.contains(lr))
        throw bad_value(name, detail::text(lr), detail::text(legal));
  }

  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g, role kind,
           const parameter_options& o = {}) {
    assign(name, w, g, nullptr, kind, o);
  }
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           view<const std::type_identity_t<G>> reference, role kind, const parameter_options& o = {}) {
    assign(name, w, g, &reference, kind, o);
  }
  bool needs_reference(role kind) const {
    return kind == role::hidden ? estimates_from_two(matrix_) : estimates_from_two(rest_);
  }

  const std::vector<assignment>& assignments() const { return assignments_; }
  std::string table() const {
    std::ostringstream out;
    for (const auto& a : assignments_)
      out << a.name << "  " << detail::text(a.kind) << "  " << a.rows << "x" << a.cols << "  lr " << a.lr << "  decay "
          << a.decay << "  " << a.rule << '\n';
    return out.str();
  }

  memory_report memory() const {
    memory_report sum;
    each([&](const auto& o) {
      const memory_report m = o.memory();
      sum.state.insert(sum.state.end(), m.state.begin(), m.state.end());
      sum.control += m.control, sum.state_bytes += m.state_bytes, sum.scratch_bytes += m.scratch_bytes;
    });
    return sum;
  }
  void finalize() {
    if (assignments_.empty()) throw bad_order("finalize() before any add()");
    if (matrix_.size() > 0) matrix_.finalize();
    if (rest_.size() == 0) return;
    try {
      rest_.finalize();
    } catch (...) {  // both, or none
      if (matrix_.size() > 0) matrix_.release();
      throw;
    }
  }

  void step(double factor = 1, double gradient_scale = 1) {
    begin_step(factor, gradient_scale);
    enqueue();
  }
  void begin_step(double factor = 1, double gradient_scale = 1) {
    if (const range legal{.low = 0}; !legal.contains(factor))
      throw bad_value("factor", detail::text(factor), detail::text(legal));
    // Both are asked before one of them begins.
    if (matrix_.size() > 0) matrix_.check_lr(matrix_lr_ * factor), matrix_.check_gradient_scale(gradient_scale);
    if (rest_.size() > 0) rest_.check_lr(rest_lr_ * factor), rest_.check_gradient_scale(gradient_scale);
    if (matrix_.size() > 0) matrix_.begin_step(matrix_lr_ * factor, gradient_scale);
    if (rest_.size() > 0) rest_.begin_step(rest_lr_ * factor, gradient_scale);
  }
  // A gradient that is not finite in one group makes both skip the step.
  void enqueue() {
    if (matrix_.size() > 0 && rest_.size() > 0) {
      const view<status_word> a = matrix_.enqueue_check(), b = rest_.enqueue_check();
      matrix_.backend().for_each(nullptr, fn::raise{}, a, as_const(b));
      matrix_.backend().for_each(nullptr, fn::assign{}, b, as_const(a));
      matrix_.enqueue_update();
      rest_.enqueue_update();
    } else {
      each([](auto& o) { o.enqueue(); });
    }
  }
  step_status poll_status() {
    step_status both;
    each([&](auto& o) {
      const step_status s = o.poll_status();
      both.skipped = s.skipped;  // the same in each
      both.parameters.insert(both.parameters.end(), s.parameters.begin(), s.parameters.end());
    });
    return both;
  }
  void rebind(const std::string& name, view<const std::type_identity_t<G>> g) {
    is_hidden(name) ? matrix_.rebind(name, g) : rest_.rebind(name, g);
  }
  void rebind_reference(const std::string& name, view<const std::type_identity_t<G>> r) {
    is_hidden(name) ? rebind_reference(matrix_, name, r) : rebind_reference(rest_, name, r);
  }

  // --- state, for checkpoints ---
  std::vector<state_tensor> state_tensors() const {
    std::vector<state_tensor> all;
    each([&](const auto& o) {
      const auto tensors = o.state_tensors();
      all.insert(all.end(), tensors.begin(), tensors.end());
    });
    return all;
  }
  void read_state(const state_tensor& t, void* host) const { matrix_.read_state(t, host); }
  void write_state(const state_tensor& t, const void* host) { matrix_.write_state(t, host); }
  std::string signature() const { return matrix_.signature() + " + " + rest_.signature(); }
  index_t steps() const { return matrix_.size() > 0 ? matrix_.steps() : rest_.steps(); }
  void set_steps(index_t steps) {
    each([&](auto& o) { o.set_steps(steps); });
  }

  Matrix& matrix() { return matrix_; }
  Rest& rest() { return rest_; }

 private:
  template <class O>
  static bool estimates_from_two(const O& o) {
    if constexpr (requires { o.needs_reference(); })  // a rule chosen at run time
      return o.needs_reference();
    else
      return matopt::needs_reference<typename O::rule_type::momentum_type>;
  }
  template <class O>
  static void add_to(O& to, const std::string& name, view<W> w, view<const G> g, const view<const G>* reference,
                     const parameter_options& o) {
    if (estimates_from_two(to)) {
      if (!reference)
        throw bad_value("reference gradient of \"" + name + '"', "missing", "given: this rule estimates from two");
      if constexpr (requires { to.add(name, w, g, *reference, o); }) to.add(name, w, g, *reference, o);
    } else {
      if constexpr (requires { to.add(name, w, g, o); }) to.add(name, w, g, o);
    }
  }
  template <class O>
  static void rebind_reference(O& of, const std::string& name, view<const G> r) {
    if constexpr (requires { of.rebind_reference(name, r); })
      of.rebind_reference(name, r);
    else
      throw bad_value("reference gradient of \"" + name + '"', "given", "not given: this rule estimates from one");
  }
  void assign(const std::string& name, view<W> w, view<const G> g, const view<const G>* reference, role kind,
              const parameter_options& o) {
    for (const auto& a : assignments_)
      if (a.name == name) throw bad_value("parameter name", '"' + name + '"', "a name not used before");
    const bool hidden = kind == role::hidden;
    hidden ? add_to(matrix_, name, w, g, reference, o) : add_to(rest_, name, w, g, reference, o);
    assignments_.push_back({name, kind, hidden ? matrix_.signature() : rest_.signature(), w.rows, w.cols,
                            (hidden ? matrix_lr_ : rest_lr_) * o.lr_scale, o.decay ? detail::text(*o.decay) : "rule"});
  }
  bool is_hidden(const std::string& name) const {
    const auto at =
        std::find_if(assignments_.begin(), assignments_.end(), [&](const auto& a) { return a.name == name; });
    if (at == assignments_.end()) throw error("no parameter \"" + name + '"');
    return at->kind == role::hidden;
  }
  template <class F>
  void each(F f) {
    if (matrix_.size() > 0) f(matrix_);
    if (rest_.size() > 0) f(rest_);
  }
  template <class F>
  void each(F f) const {
    if (matrix_.size() > 0) f(matrix_);
    if (rest_.size() > 0) f(rest_);
  }

  Matrix matrix_;
  Rest rest_;
  double matrix_lr_, rest_lr_;
  std::vector<assignment> assignments_;
};

}  // namespace matopt
