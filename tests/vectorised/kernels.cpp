// Compiled, never run: the loops of every elementwise formula and reduction of every published rule, as the CPU backend
// runs them, and nothing else. vectorised_test.py reads the instructions.
#include <matopt/core/backend.hpp>
#include <matopt/eigen/operand.hpp>
#include <matopt/engine/rule_registry.hpp>

extern "C" void* somewhere();  // not known to the compiler

// A backend whose verbs are the loops over one line, along rows and along columns.
struct recorder {
  struct buffer {
    std::byte* data() { return nullptr; }
  };
  template <class T>
  static constexpr bool multiplies = std::is_same_v<T, matopt::bfloat16>;

  buffer allocate(std::size_t) { return {}; }
  void upload(void*, const void*, std::size_t) {}
  void download(void*, const void*, std::size_t) {}

  template <class F, class... V>
  void for_each(const matopt::status_word*, F, V...) {
    using kernels = matopt::lines::map_kernels<F, V...>;
    keep(kernels::straight), keep(kernels::transposed);
    (keep_elements<typename kernels::A>(V{}), ...);
  }
  template <class F, class T, class... V>
  void reduce(const matopt::status_word*, F, matopt::view<T>, V...) {
    using kernels = matopt::lines::reduce_kernels<F, V...>;
    keep(kernels::straight), keep(kernels::transposed);
    (keep_elements<typename kernels::A>(V{}), ...);
  }
  template <class F, class T, class... V>
  void reduce_rows(const matopt::status_word* guard, F f, matopt::view<T> out, V... v) {
    reduce(guard, f, out, v...);
  }
  template <class Kernel>
  static void keep(Kernel kernel) {
    *static_cast<Kernel volatile*>(somewhere()) = kernel;
  }
  template <class A, class V>
  static void keep_elements(const V&) {
    using elements = matopt::lines::elements<A, std::remove_const_t<typename matopt::element_of<V>::type>>;
    keep(elements::load), keep(elements::store);
  }

  template <class... A>
  void gemm(A&&...) {}
  template <class... A>
  void gemm_symmetric(A&&...) {}
  template <class... A>
  void random_normal(A&&...) {}
  template <class T>
  std::size_t svd_workspace(matopt::index_t, matopt::index_t, matopt::index_t) const {
    return 0;
  }
  template <class... A>
  void svd(A&&...) {}
  template <class T>
  std::size_t orthonormalize_workspace(matopt::index_t, matopt::index_t, matopt::index_t) const {
    return 0;
  }
  template <class... A>
  void orthonormalize(A&&...) {}
  template <class T>
  std::size_t orthonormal_basis_workspace(matopt::index_t, matopt::index_t, matopt::index_t) const {
    return 0;
  }
  template <class... A>
  void orthonormal_basis(A&&...) {}
  template <class... A>
  void cholesky(A&&...) {}
  template <class... A>
  void solve_lower(A&&...) {}
  template <class... A>
  void quantize(A&&...) {}
  template <class... A>
  void dequantize(A&&...) {}
};

// In place of the engine: one step of each rule, with and without a gradient scale.
template <class Types>
class matopt::rule_registry<recorder, Types> {
 public:
  template <class Rule>
  rule_registry& add(const char*) {
    using W = typename Types::weight;
    using G = typename Types::gradient;
    auto& e = *static_cast<pass<recorder, typename Types::compute>*>(somewhere());
    auto& s = *static_cast<typename Rule::template state<Types>*>(somewhere());
    const auto& rule = *static_cast<const Rule*>(somewhere());
    const auto w = *static_cast<view<W>*>(somewhere());
    const auto g = *static_cast<view<const G>*>(somewhere());
    rule.init(e, s, w);
    detail::run_step(rule, true, e, s, w, g, g);
    return *this;
  }
};

#include <matopt/policy/constraint/cautious_decay.hpp>
#include <matopt/policy/constraint/clamped_decay.hpp>
#include <matopt/policy/constraint/frank_wolfe.hpp>
#include <matopt/policy/constraint/look_ahead.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/norm_sphere.hpp>
#include <matopt/policy/constraint/projected.hpp>
#include <matopt/policy/constraint/radial_brake.hpp>
#include <matopt/policy/constraint/relative_update.hpp>
#include <matopt/policy/constraint/row_sphere.hpp>
#include <matopt/policy/constraint/spectral_normalize.hpp>
#include <matopt/policy/constraint/tail_average.hpp>
#include <matopt/published_rules.hpp>

// Constraints of no published rule.
template <class R>
void add_constraints(R& r) {
  using namespace matopt;
  const auto add = [&]<class... C>(C...) { (r.template add<adamw::with_constraint<C>>(""), ...); };
  add(cautious_decay{}, clamped_decay{}, frank_wolfe{}, row_sphere<>{}, master_weights<>{}, projected<norm_control>{},
      projected<hyperball>{}, projected<oblique>{}, projected<relative_update>{}, projected<radial_brake>{},
      projected<norm_brake>{}, projected<spectral_normalize<>>{}, projected<look_ahead>{}, projected<tail_average>{});
}

void steps(matopt::rule_registry<recorder, matopt::types<MATOPT_ELEMENTS>>& rules) {
  matopt::add_published_rules(rules);
  add_constraints(rules);
}
// The check of finite gradients, which is the engine's.
void check(recorder& r, matopt::view<matopt::status_word> flag, matopt::view<const MATOPT_ELEMENTS> g,
           matopt::matrix_broadcast<matopt::arithmetic_t<MATOPT_ELEMENTS>> s) {
  using C = matopt::arithmetic_t<MATOPT_ELEMENTS>;
  r.reduce(nullptr, matopt::fn::not_finite{1e30}, flag, g);
  r.reduce(nullptr, matopt::fn::not_both_finite{1e30}, flag, g, g);
  r.reduce(nullptr, matopt::fn::scaled_not_finite<C>{1e30}, flag, g, s);
  r.reduce(nullptr, matopt::fn::scaled_not_both_finite<C>{1e30}, flag, g, g, s);
  r.reduce(nullptr, matopt::fn::any{}, flag, flag);
  r.for_each(nullptr, matopt::fn::raise{}, flag, matopt::as_const(flag));
}
