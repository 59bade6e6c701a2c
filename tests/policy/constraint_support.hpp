// What the constraint tests share: a rule that hands the gradient to the constraint as it is.
#pragma once
#include <catch2/catch.hpp>

#include <matopt/muon.hpp>
#include <matopt/policy/constraint/projected.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "../support/stepper.hpp"

namespace matopt::test {

template <class Constraint>
using bare = rule<ema, no_orthogonalizer, no_normalizer, Constraint, unit_scale>;

template <class Constraint>
bare<Constraint> bare_rule(const Constraint& c) {
  return {.momentum = {.beta = 0}, .constraint = c};
}
// W after one step with the update u.
template <class T = double, class Constraint>
mat stepped(const Constraint& c, const mat& w, const mat& u, double lr) {
  stepper<bare<Constraint>, T> s(bare_rule(c), w);
  return s.step(u, lr);
}
inline mat zeros(index_t rows, index_t cols) { return mat(rows, cols); }
// x * y + z entry by entry through f
template <class F>
mat entrywise(const mat& x, const mat& y, F f) {
  mat z = x;
  for (std::size_t i = 0; i < z.a.size(); ++i) z.a[i] = f(x.a[i], y.a[i]);
  return z;
}
inline bool same(const mat& a, const mat& b) { return same_bits(a.a, b.a); }

}  // namespace matopt::test
