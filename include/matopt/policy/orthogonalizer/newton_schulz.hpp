// The Newton-Schulz family: an approximate polar factor by products only.
//
//   X = M / (margin ||M||_F + eps)                       transposed if rows > cols, so that the products are small
//   repeat:  A = X X^T     B = b A + c A^2     X <- a X + B X
//
// Jordan et al.: Muon (kellerjordan.github.io/posts/muon, 2024); coefficient sets in coefficients.hpp.
// Where public implementations differ: most add eps 1e-7 to the norm; torch.optim.Muon takes max(norm, eps); optax adds
// 1e-8. The default adds 1e-7. Publicly the iteration runs in bfloat16; here it runs in `Element`, the compute type by
// default. The norm is formed relative to the largest entry: no finite input overflows or vanishes. Zero gives zero.
// State: none. Scratch per matrix of m x n, m <= n: mn + 2 m^2 scalars. FLOPs: 2 m^2 (2n + m) per quintic step.
// Needs: gemm. Ignores a rank budget, and so is refused with one.
#pragma once
#include <array>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../../core/policy.hpp"
#include "../detail/norms.hpp"
#include "coefficients.hpp"

namespace matopt {

enum class eps_rule { add, max };
constexpr auto enum_names(eps_rule) { return std::array<std::string_view, 2>{"add", "max"}; }

namespace fn {
// y = x / (margin n + eps), or x / max(margin n, eps), with n = largest sqrt(squares) and 0 for n = 0
struct normalize {
  double margin, eps;
  bool add;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T largest, T squares) const {
    if (!(largest > T(0))) {
      y = T(0);
      return;
    }
    const T n = T(margin) * math::sqrt(squares), e = T(eps) / largest;
    y = (x / largest) / (add ? n + e : math::max(n, e));
  }
};
}  // namespace fn

template <class Element = void>
struct newton_schulz {
  coefficient_set coefficients = coefficient_set::keller;
  index_t steps = 5;
  double eps = 1e-7;
  eps_rule rule = eps_rule::add;

  static std::string name() { return "newton_schulz"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("ns_coefficients", self.coefficients);
    visit("ns_steps", self.steps, range{.low = 1, .high = 99});
    visit("ns_eps", self.eps, range{.low = 0});
    visit("ns_eps_rule", self.rule);
  }

  template <class E, class St, class C>
  void orthogonalize(E& e, St&, view<C> u) const {
    using T = std::conditional_t<std::is_void_v<Element>, C, Element>;
    const auto frame = e.frame();
    const view<C> m = u.rows > u.cols ? u.t() : u;
    const index_t n = m.rows;
    view<T> x, y = e.template take_like<T>(m);
    if constexpr (std::is_same_v<T, C>)
      x = m;
    else
      x = e.template take_like<T>(m);
    const view<T> gram = e.template take<T>(n, n), poly = e.template take<T>(n, n);

    const auto norm = detail::frobenius(e, m);
    e.for_each(fn::normalize{norm_margin(coefficients), eps, rule == eps_rule::add}, x, as_const(m),
               per_matrix(norm.largest), per_matrix(norm.squares));
    for (index_t i = 0; i < steps; ++i, std::swap(x, y)) {
      const auto [a, b, c] = matopt::coefficients(coefficients, i);
      e.gemm_symmetric(T(1), x, x.t(), T(0), gram, gram);
      if (c == 0) {
        e.gemm(T(b), gram, x, T(a), x, y);
      } else {
        e.gemm_symmetric(T(c), gram, gram, T(b), gram, poly);
        e.gemm(T(1), poly, x, T(a), x, y);
      }
    }
    if (static_cast<const void*>(x.data) != static_cast<const void*>(m.data) || !m.data)
      e.for_each(fn::assign{}, m, as_const(x));
  }
};

}  // namespace matopt
