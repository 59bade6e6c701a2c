// The Newton-Schulz family: an approximate polar factor by products only.
//
//   X = M / (margin ||M||_F + eps)                       transposed if rows > cols, so that the products are small
//   repeat:  A = X X^T     B = b A + c A^2 + d A^3 + e A^4     X <- a X + B X      degree 5: Moonlight eq. 2
//
// Jordan et al.: Muon (kellerjordan.github.io/posts/muon, 2024); Moonlight (arXiv 2502.16982), eq. 2; coefficient sets
// in coefficients.hpp.
// Where public implementations differ: most add eps 1e-7 to the norm, which shortens the update of a gradient whose
// norm is not far above; torch.optim.Muon takes max(norm, eps); optax adds 1e-8. The default is 1e-36
// (negligible_norm); rules that reproduce a code have the eps of that code. Publicly the iteration runs in bfloat16;
// here it runs in `Element`, by default in what the backend says its products are best done in: float16 for float on
// NVIDIA GPUs (the speed of bfloat16 with an eighth of its rounding; normalised before it is converted, no finite input
// is out of range); on the CPU the compute type, or bfloat16 for float where the processor multiplies it faster (AMX,
// AVX512-BF16 of AMD): from 128 rows and columns, with the sets, steps and the form that bfloat16 bears.
// newton_schulz<float> is always in float. Zero gives zero. State: none. Scratch per matrix of m x n, m <= n: mn +
// 2 m^2 scalars (gram: mn + 4 m^2), of as many matrices as go through at a time; if Element is not the compute type mn
// more, and all but these where there is room in u's memory. FLOPs: 2 m^2 (2n + m) per quintic step; gram: 0.56 of that
// at n = 4 m, 0.67 to 0.72 in 16 bits. A step of degree 9: 2 m^2 (2n + 2m), and one elementwise pass over A. Needs:
// gemm. Ignores a rank budget, and so is refused with one.
//
// Coefficients of one's own (`rows`, as text ns_rows) take the place of a set: one row for each step, or one for all.
// validate() walks [1e-3, 1 + 2^-7] through them, which 16 bits may make of 1. It refuses rows that make a singular
// value negative, zero, or larger than 1.5 in the end or than 8 on the way (coefficient_report.hpp), and coefficients
// beyond 1e6; `unchecked` takes them all the same.
//
//   muon{.orthogonalizer = newton_schulz<>::preset(coefficient_set::degree9_4)}      // a set with its number of steps
//   muon{.orthogonalizer = newton_schulz<>::with_rows({{1.5, -0.5}, {1.875, -1.25, 0.375}})}
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string_view>
#include <type_traits>
#include <utility>

#include "../../core/policy.hpp"
#include "../detail/almost_orthogonal.hpp"
#include "../detail/gram_polynomial.hpp"
#include "../detail/norms.hpp"
#include "../detail/schatten.hpp"
#include "../detail/spare_memory.hpp"
#include "coefficient_rows.hpp"
#include "coefficients.hpp"

namespace MATOPT_NAMESPACE {

enum class eps_rule { add, max };
constexpr auto enum_names(eps_rule) { return std::array<std::string_view, 2>{"add", "max"}; }

// standard  the equations above. gram  the same polynomial by products of m x m matrices, for m < n:
//
//   R = X X^T     repeat:  Z = B(R)     Q <- Z Q + a Q     R <- Z (Z R + a R) + a (Z R + a R)     at last X <- Q X
//
// Dao-AILab (dao-ailab.github.io, 2026). R loses small eigenvalues to rounding and then diverges, so X and R are formed
// anew: in 16 bits after the second step (degree9_3: the first) and every third from there, otherwise after six steps,
// or fewer where these would make what is lost 3e6 times as large (no set in its usual steps). In bfloat16 even so much
// is lost that spectra which fall by decades end above 1.3; keller's five steps stay as bounded as in the standard form,
// with 0.8 to 1.7 of its distance to the exact iteration, if X and R are formed anew after every second.
// automatic: gram for n >= 1.5 m (cubic steps: 2.2 m), but standard in double, with rows of one's own, and in bfloat16
// for other sets (with polar_express the Gram form ended at 21) and for more than five steps.
enum class newton_schulz_form { automatic, standard, gram };
constexpr auto enum_names(newton_schulz_form) {
  return std::array<std::string_view, 3>{"automatic", "standard", "gram"};
}

template <class Element = void>
struct newton_schulz {
  static constexpr bool takes_norm = true, gives_parts = true;

  coefficient_set coefficients = coefficient_set::keller;
  index_t steps = 5;
  double eps = negligible_norm;
  matopt::eps_rule eps_rule = matopt::eps_rule::add;
  newton_schulz_form form = newton_schulz_form::automatic;
  // Schatten norms: X <- X ||X||_F / S, S the norm of X. Nothing changes where one singular value outweighs the others;
  // a flat spectrum begins nearer to 1, and needs fewer steps. They cost no product more, but a pass over X and two
  // over A; for schatten8 a pass takes the place of the first step's second product.
  //
  // aol: AOL, which divides each row in place of the matrix (Turbo-Muon, arXiv 2512.04632): short rows begin as large
  // as long ones, and one step less is enough. The direction differs from that of the other bounds unless the rows (the
  // columns, if m > n) are orthogonal. It costs two passes over X and two over A. eps is compared with the root of
  // sum_j |A_ij| whatever eps_rule says, so the published 1e-7 under the root is 3.1623e-4 here.
  spectral_bound bound = spectral_bound::frobenius;
  coefficient_rows rows{};
  bool unchecked = false;

  // A coefficient set as it is meant: its number of steps, and the norm.
  static newton_schulz preset(coefficient_set set) {
    const bool by_rows = set == coefficient_set::turbo || set == coefficient_set::flash;
    return {.coefficients = set,
            .steps = usual_steps(set),
            .bound = by_rows                            ? spectral_bound::aol
                     : set == coefficient_set::quintic4 ? spectral_bound::schatten8
                                                        : spectral_bound::frobenius};
  }
  // As many steps as rows.
  static newton_schulz with_rows(coefficient_rows own) {
    newton_schulz o;
    o.steps = own.size(), o.rows = std::move(own);
    return o;
  }

  static std::string name() { return "newton_schulz"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("ns_coefficients", self.coefficients);
    visit("ns_steps", self.steps, range{.low = 1, .high = 99});
    visit("ns_eps", self.eps, range{.low = 0});
    visit("ns_eps_rule", self.eps_rule);
    visit("ns_form", self.form);
    visit("ns_bound", self.bound);
    visit("ns_rows", self.rows);
    visit("ns_unchecked", self.unchecked);
  }
  void validate() const { rows.require("ns_rows", "ns_steps", steps, unchecked); }

  template <class E>
  using element = std::conditional_t<std::is_void_v<Element>, typename E::product, Element>;

  template <class E, class To>
  using result = std::conditional_t<std::is_same_v<To, detail::anywhere>, view<element<E>>, void>;

  // Anywhere, the result is u if that is of the iteration's type, and otherwise lies in scratch or in u's memory.
  template <class E, class St, class U, class C, class To>
  requires(E::template can_multiply<element<E>>) result<E, To> orthogonalize(E& e, St&, view<U> u,
                                                                             const detail::scaled_norm<C>& norm, To to)
  const {
    using T = element<E>;
    if constexpr (may_narrow<E, U>)
      if (narrows(e, u)) {
        narrowed(e, u, norm);
        if constexpr (std::is_same_v<To, detail::anywhere>)
          return u;
        else if constexpr (std::is_same_v<To, detail::in_place>)
          return;
        else
          return to(u, index_t{0}, u.batch);
      }
    if constexpr (std::is_same_v<To, detail::anywhere>) {
      return iterate<T>(e, u, norm, spare<T>(u), to);
    } else if constexpr (std::is_same_v<To, detail::in_place>) {
      const auto frame = e.frame();
      const auto x = iterate<T>(e, u, norm, detail::spare_memory<U>{}, detail::anywhere{});
      if (static_cast<const void*>(x.data) != static_cast<const void*>(u.data) || !u.data)
        e.for_each(fn::assign{}, u, as_const(x));
    } else {
      const auto frame = e.frame();
      iterate<T>(e, u, norm, spare<T>(u), to);
    }
  }

 private:
  // What the iteration needs besides x: of all members, or of as many as go through it at a time.
  template <class T>
  struct workspace {
    view<T> other, square[4];

    workspace members(index_t first, index_t count, index_t of) const {
      const auto part = [&](view<T> v) { return detail::members(v, first, count, of); };
      return {part(other), {part(square[0]), part(square[1]), part(square[2]), part(square[3])}};
    }
  };
  // u's memory once it is converted to T.
  template <class T, class U>
  static detail::spare_memory<U> spare(view<U> u) {
    return std::is_same_v<T, U> ? detail::spare_memory<U>{} : detail::spare_memory<U>(u);
  }
  // Whether a backend that chooses at run time has the iteration run in bfloat16.
  template <class E, class U>
  static constexpr bool may_narrow =
      std::is_void_v<Element>&& E::may_prefer_bfloat16&& std::is_same_v<U, typename E::compute>;
  template <class E, class U>
  bool narrows(const E& e, const view<U>& u) const {
    if constexpr (may_narrow<E, U>)
      return math::min(u.rows, u.cols) >= least_narrowed && form != newton_schulz_form::gram &&
             bound == spectral_bound::frobenius && steps <= 5 && bears_narrow_numbers() &&
             e.prefers_bfloat16(relative_arithmetic(math::min(u.rows, u.cols), math::max(u.rows, u.cols)));
    else
      return false;
  }
  odd_polynomial row(index_t i) const { return rows.empty() ? matopt::coefficients(coefficients, i) : rows[i]; }
  double margin() const { return rows.empty() ? norm_margin(coefficients) : 1; }
  bool bears_narrow_numbers() const { return rows.empty() && bears_bfloat16(coefficients); }
  // With shorter sides the conversions take most of the time.
  static constexpr index_t least_narrowed = 128;
  // Multiply-adds of quintic steps, in units of m^3; symmetric products count half.
  template <class T>
  double arithmetic(index_t m, index_t n) const {
    const double ratio = static_cast<double>(n) / static_cast<double>(m), number = static_cast<double>(steps);
    if (!by_gram<T>(m, n)) return number * (3 * ratio + 1);
    const auto stretches = static_cast<double>(1 + restarts<T>());
    return stretches * 3 * ratio + 4 * number - 3 * stretches;
  }
  double relative_arithmetic(index_t m, index_t n) const {
    return arithmetic<bfloat16>(m, n) / arithmetic<float>(m, n);
  }
  template <class E, class U, class C>
  void narrowed(E& e, view<U> u, const detail::scaled_norm<C>& norm) const {
    const auto frame = e.frame();
    const auto x = iterate<bfloat16>(e, u, norm, detail::spare_memory<U>{}, detail::anywhere{});
    e.for_each(fn::assign{}, u, as_const(x));
  }

  template <class T, class E, class U, class C, class Use>
  view<T> iterate(E& e, view<U> u, const detail::scaled_norm<C>& norm, detail::spare_memory<U> spare,
                  const Use& use) const {
    constexpr bool keeps = std::is_same_v<Use, detail::anywhere>;
    const bool tall = u.rows > u.cols;
    const view<U> m = tall ? u.t() : u;
    const index_t at_once = math::max(index_t{1}, math::min(m.batch, e.template product_batch<T>(m.rows, m.cols)));
    const bool gram = by_gram<T>(m.rows, m.cols);
    // The iteration begins outside u, which is still read, and goes from one of x and other to the other one in each
    // step. It ends in x unless it would have to begin in u's memory for that. x has room for all members only if
    // results stay in it.
    const index_t changes = gram ? 1 + restarts<T>() : steps;
    const bool begins_in_x = spare.template fits<T>(m.rows, m.cols) || changes % 2 == 0;
    const bool ends_in_x = !begins_in_x || changes % 2 == 0;
    view<T> x;
    if constexpr (std::is_same_v<T, U>)
      x = m;
    else
      x = e.template take_batch<T>(keeps && ends_in_x ? m.batch : at_once, m.rows, m.cols, !m.row_contiguous());
    const auto frame = e.frame();
    const view<C> wanted = detail::normalizing_factors(e, norm, margin(), eps, eps_rule == matopt::eps_rule::add);
    view<C> factors = wanted, ratio = wanted;
    if (bound == spectral_bound::aol) {
      factors = ratio = e.take(m.rows, 1);  // the lengths of rows
      detail::row_norms(e, ratio, m);
    } else if (bound != spectral_bound::frobenius) {
      // Powers of ||X||_F = 1 are in range; margin and eps follow with the other norm.
      factors = detail::normalizing_factors(e, norm, 1, 0, true), ratio = e.take(1, 1);
      e.for_each(fn::divide{}, ratio, as_const(wanted.col_block(1, 1)), as_const(factors.col_block(1, 1)));
    }
    workspace<T> all;
    all.other = spare.template take<T>(e, at_once, m.rows, m.cols, !m.row_contiguous());
    for (int i = 0; i < (gram ? 4 : 2); ++i) all.square[i] = spare.template take<T>(e, at_once, m.rows, m.rows);
    for (index_t first = 0; first < m.batch; first += at_once) {
      const index_t count = math::min(at_once, m.batch - first);
      const workspace<T> own = all.members(first, count, m.batch);
      const view<const C> own_ratio = ratio.matrices(first, count);
      view<T> from = detail::members(x, first, count, m.batch), to = own.other;
      if (!begins_in_x) std::swap(from, to);
      if (bound == spectral_bound::aol)
        detail::to_unit_rows(e, from, m.matrices(first, count), own_ratio);
      else
        detail::normalize_by(e, from, m.matrices(first, count), factors.matrices(first, count));
      if (gram)
        gram_steps(e, from, to, own, own_ratio);
      else
        standard_steps(e, from, to, own, own_ratio);
      if constexpr (!keeps) use(tall ? from.t() : from, first, count);
    }
    if (!ends_in_x) x = all.other;
    return tall ? x.t() : x;
  }

  template <class T>
  bool by_gram(index_t m, index_t n) const {
    if (form != newton_schulz_form::automatic) return form == newton_schulz_form::gram;
    if (std::is_same_v<T, double> || !rows.empty()) return false;
    if (std::is_same_v<T, bfloat16> && (!bears_narrow_numbers() || steps > 5)) return false;
    // Of a cubic step the Gram form saves one product less.
    return row(0).degree() == 3 ? 5 * n >= 11 * m : 2 * n >= 3 * m;
  }
  // Before which steps x and its Gram matrix are formed anew.
  template <class T>
  bool restarts_before(index_t i) const {
    if (sizeof(T) != 2) return detail::gram_restarts_before([&](index_t k) { return row(k).a; }, i);
    if (std::is_same_v<T, bfloat16> && bears_narrow_numbers()) return i > 0 && i % 2 == 0;
    const index_t first = coefficients == coefficient_set::degree9_3 ? 1 : 2;
    return i >= first && (i - first) % 3 == 0;
  }
  // a = x x^T of the first step, after x is divided by the norm; whether square is a^2, then. ratio: for aol the
  // lengths of rows, otherwise of the norms.
  template <class E, class T, class C>
  bool first_product(E& e, view<T> x, view<T> a, view<T> square, view<const C> ratio) const {
    if (bound == spectral_bound::aol)
      detail::almost_orthogonalize(e, x, a, ratio, margin(), eps);
    else if (bound == spectral_bound::frobenius)
      e.gemm_symmetric(arithmetic_t<T>(1), x, x.t(), arithmetic_t<T>(0), a, a);
    else
      detail::divide_by_schatten_norm(e, bound, x, a, square, ratio);
    return bound == spectral_bound::schatten8;
  }
  template <class T>
  index_t restarts() const {
    index_t n = 0;
    for (index_t i = 0; i < steps; ++i) n += restarts_before<T>(i);
    return n;
  }
  // x ends as the result, which may lie in y.
  template <class E, class T, class C>
  void standard_steps(E& e, view<T>& x, view<T>& y, const workspace<T>& own, view<const C> ratio) const {
    using A = arithmetic_t<T>;
    const view<T> gram = own.square[0], poly = own.square[1];
    const bool squared = first_product(e, x, gram, poly, ratio);
    for (index_t i = 0; i < steps; ++i, std::swap(x, y)) {
      const odd_polynomial p = row(i);
      if (i > 0) e.gemm_symmetric(A(1), x, x.t(), A(0), gram, gram);  // Moonlight eq. 2: X X^T
      if (p.degree() == 3) {
        e.gemm(A(p.b), gram, x, A(p.a), x, y);
      } else {
        const view<T> w = p.degree() > 5 ? gram : poly;
        detail::gram_polynomial(e, p, gram, w, poly, squared && i == 0);  // eq. 2: b X X^T + c (X X^T)^2
        e.gemm(A(1), w, x, A(p.a), x, y);                                 // eq. 2; Polar Express: X_t = p_t(X_{t-1})
      }
    }
  }
  template <class E, class T, class C>
  void gram_steps(E& e, view<T>& x, view<T>& y, const workspace<T>& own, view<const C> ratio) const {
    using A = arithmetic_t<T>;
    view<T> r = own.square[0], z = own.square[1], q = own.square[2], t = own.square[3];
    bool fresh = true;  // Q = I
    const bool squared = first_product(e, x, r, t, ratio);
    for (index_t i = 0; i < steps; ++i) {
      if (restarts_before<T>(i)) {
        e.gemm_symmetric(A(1), x, x.t(), A(0), r, r);
        fresh = true;
      }
      const odd_polynomial p = row(i);
      detail::gram_polynomial(e, p, r, z, t, squared && i == 0);
      const bool last = i + 1 == steps || restarts_before<T>(i + 1);  // before X is formed
      if (!last) {
        e.gemm_symmetric(A(1), r, z, A(p.a), r, t);
        e.gemm_symmetric(A(1), z, t, A(p.a), t, r);
      }
      if (!fresh) {
        e.gemm_symmetric(A(1), q, z, A(p.a), q, t);
        std::swap(q, t);
      } else if (!last) {
        e.for_each(fn::shift{p.a}, z.diagonal());
        std::swap(q, z);
      }
      if (last) {
        // After a single step no Q is needed, whose diagonal would be rounded.
        if (fresh)
          e.gemm(A(1), z, x, A(p.a), x, y);
        else
          e.gemm(A(1), q, x, A(0), y, y);
        std::swap(x, y);
      }
      fresh = false;
    }
  }
};

}  // namespace MATOPT_NAMESPACE
