// The Newton-Schulz family: an approximate polar factor by products only.
//
//   X = M / (margin ||M||_F + eps)                       transposed if rows > cols, so that the products are small
//   repeat:  A = X X^T     B = b A + c A^2     X <- a X + B X
//
// Jordan et al.: Muon (kellerjordan.github.io/posts/muon, 2024); coefficient sets in coefficients.hpp.
// Where public implementations differ: most add eps 1e-7 to the norm; torch.optim.Muon takes max(norm, eps); optax adds
// 1e-8. The default adds 1e-7. Publicly the iteration runs in bfloat16; here it runs in `Element`, by default in what
// the backend says its products are best done in: the compute type on the CPU, float16 for float on NVIDIA GPUs (the
// speed of bfloat16 with an eighth of its rounding; normalised before it is converted, no finite input is out of
// range). Zero gives zero. State: none. Scratch per matrix of m x n, m <= n: mn + 2 m^2 scalars (gram: mn + 4 m^2), and
// mn more if Element is not the compute type. FLOPs: 2 m^2 (2n + m) per quintic step; gram: 0.56 of that at n = 4 m,
// 0.67 in 16 bits. Needs: gemm. Ignores a rank budget, and so is refused with one.
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

// standard  the equations above. gram  the same polynomial by products of m x m matrices, for m < n:
//
//   R = X X^T     repeat:  Z = b R + c R^2     Q <- Z Q + a Q     R <- Z (Z R + a R) + a (Z R + a R)     at last X <- Q
//   X
//
// Dao-AILab (dao-ailab.github.io, 2026). In 16 bits R loses small eigenvalues and then diverges: after the second step,
// and every third from there, X and R are formed anew. automatic: gram for n >= 1.5 m (cubic steps: 2.2 m), but
// standard in double.
enum class newton_schulz_form { automatic, standard, gram };
constexpr auto enum_names(newton_schulz_form) {
  return std::array<std::string_view, 3>{"automatic", "standard", "gram"};
}

namespace fn {
struct shift {
  double by;
  template <class T>
  MATOPT_HD void operator()(T& y) const {
    y += T(by);
  }
};
}  // namespace fn

template <class Element = void>
struct newton_schulz {
  coefficient_set coefficients = coefficient_set::keller;
  index_t steps = 5;
  double eps = 1e-7;
  eps_rule rule = eps_rule::add;
  newton_schulz_form form = newton_schulz_form::automatic;

  static std::string name() { return "newton_schulz"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("ns_coefficients", self.coefficients);
    visit("ns_steps", self.steps, range{.low = 1, .high = 99});
    visit("ns_eps", self.eps, range{.low = 0});
    visit("ns_eps_rule", self.rule);
    visit("ns_form", self.form);
  }

  template <class E>
  using element = std::conditional_t<std::is_void_v<Element>, typename E::product, Element>;

  // In place.
  template <class E, class St, class C>
  requires(E::template can_multiply<element<E>>) void orthogonalize(E& e, St& s, view<C> u) const {
    const auto frame = e.frame();
    const auto x = orthogonalize(e, s, u, detail::frobenius(e, u));
    if (static_cast<const void*>(x.data) != static_cast<const void*>(u.data) || !u.data)
      e.for_each(fn::assign{}, u, as_const(x));
  }
  // Returns the result, which lies in u if that is of the iteration's type and in scratch otherwise; u is overwritten.
  template <class E, class St, class U, class C>
  requires(E::template can_multiply<element<E>>) auto orthogonalize(E& e, St&, view<U> u,
                                                                    const detail::scaled_norm<C>& norm) const {
    using T = element<E>;
    const bool tall = u.rows > u.cols;
    const view<U> m = tall ? u.t() : u;
    view<T> x;
    if constexpr (std::is_same_v<T, U>)
      x = m;
    else
      x = e.template take_like<T>(m);
    const auto frame = e.frame();
    const view<C> factors = detail::normalizing_factors(e, norm, norm_margin(coefficients), eps, rule == eps_rule::add);
    const index_t at_once = math::max(index_t{1}, math::min(m.batch, e.template product_batch<T>(m.rows, m.cols)));
    const view<T> other = e.template take_batch<T>(at_once, m.rows, m.cols, !m.row_contiguous());
    for (index_t first = 0; first < m.batch; first += at_once) {
      const index_t count = math::min(at_once, m.batch - first);
      const auto frame_of_part = e.frame();
      // The iteration changes sides in each step, and has to end in x.
      const bool gram = by_gram(m.rows, m.cols, std::is_same_v<T, double>);
      const index_t changes = gram ? 1 + restarts<T>() : steps;
      view<T> from = x.matrices(first, count), to = other.matrices(0, count);
      if (changes % 2 == 1) std::swap(from, to);
      detail::normalize_by(e, from, m.matrices(first, count), factors.matrices(first, count));
      if (gram)
        gram_steps(e, from, to);
      else
        standard_steps(e, from, to);
    }
    return tall ? x.t() : x;
  }

 private:
  bool by_gram(index_t m, index_t n, bool in_double) const {
    if (form != newton_schulz_form::automatic) return form == newton_schulz_form::gram;
    // Cubic steps have one product less to save.
    const bool cubic = matopt::coefficients(coefficients, 0).c == 0;
    return !in_double && (cubic ? 5 * n >= 11 * m : 2 * n >= 3 * m);
  }
  // Before which steps x and its Gram matrix are formed anew.
  template <class T>
  static bool restarts_before(index_t i) {
    return sizeof(T) == 2 && i >= 2 && (i - 2) % 3 == 0;
  }
  template <class T>
  index_t restarts() const {
    index_t n = 0;
    for (index_t i = 0; i < steps; ++i) n += restarts_before<T>(i);
    return n;
  }
  // x ends as the result, which may lie in y.
  template <class E, class T>
  void standard_steps(E& e, view<T>& x, view<T>& y) const {
    using A = arithmetic_t<T>;
    const index_t n = x.rows;
    const view<T> gram = e.template take_batch<T>(x.batch, n, n), poly = e.template take_batch<T>(x.batch, n, n);
    for (index_t i = 0; i < steps; ++i, std::swap(x, y)) {
      const auto [a, b, c] = matopt::coefficients(coefficients, i);
      e.gemm_symmetric(A(1), x, x.t(), A(0), gram, gram);
      if (c == 0) {
        e.gemm(A(b), gram, x, A(a), x, y);
      } else {
        e.gemm_symmetric(A(c), gram, gram, A(b), gram, poly);
        e.gemm(A(1), poly, x, A(a), x, y);
      }
    }
  }
  template <class E, class T>
  void gram_steps(E& e, view<T>& x, view<T>& y) const {
    using A = arithmetic_t<T>;
    const index_t n = x.rows;
    const auto square = [&] { return e.template take_batch<T>(x.batch, n, n); };
    view<T> r = square(), z = square(), q = square(), t = square();
    bool fresh = true;  // Q = I
    e.gemm_symmetric(A(1), x, x.t(), A(0), r, r);
    for (index_t i = 0; i < steps; ++i) {
      if (restarts_before<T>(i)) {
        e.gemm(A(1), q, x, A(0), y, y);
        std::swap(x, y);
        e.gemm_symmetric(A(1), x, x.t(), A(0), r, r);
        fresh = true;
      }
      const auto [a, b, c] = matopt::coefficients(coefficients, i);
      e.gemm_symmetric(A(c), r, r, A(b), r, z);
      if (i + 1 < steps && !restarts_before<T>(i + 1)) {
        e.gemm_symmetric(A(1), r, z, A(a), r, t);
        e.gemm_symmetric(A(1), z, t, A(a), t, r);
      }
      if (fresh) {
        e.for_each(fn::shift{a}, z.diagonal());
        std::swap(q, z);
      } else {
        e.gemm_symmetric(A(1), q, z, A(a), q, t);
        std::swap(q, t);
      }
      fresh = false;
    }
    e.gemm(A(1), q, x, A(0), y, y);
    std::swap(x, y);
  }
};

}  // namespace matopt
