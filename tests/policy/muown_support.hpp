// What the Muown tests share: the rules with an exact polar factor, and the specification's input generators.
#pragma once
#include <matopt/angular_muown.hpp>
#include <matopt/muown.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>

#include "../support/stepper.hpp"

namespace matopt::test {

using exact = muown::with_orthogonalizer<svd_polar>;
using angular = angular_muown::with_orthogonalizer<svd_polar>;

// The generators of the specification.
inline mat w_start(index_t m, index_t n) {
  mat w(m, n);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j)
      w(i, j) = static_cast<double>((5 * i + 3 * j * j + 2 * i * j + 1) % 13 - 6) / 10 + 0.05;
  return w;
}
inline mat gradient(index_t m, index_t n, index_t t) {
  mat g(m, n);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j)
      g(i, j) = static_cast<double>(
                    (7 * i * i + 11 * j + 13 * i * j + 5 * t * (i + 1) + 3 * t * t * (j + 1) + 2 * j * j) % 17 - 8) /
                8;
  return g;
}
template <class Rule>
mat run(const Rule& rule, const mat& w0, double lr, index_t steps, const parameter_options& o = {}) {
  stepper<Rule> s(rule, w0, o);
  for (index_t t = 0; t < steps; ++t) s.step(gradient(w0.rows, w0.cols, t), lr);
  return s.weight();
}
inline exact decayed(double decay, decay_target on = decay_target::weight) {
  return {.constraint = {.decay = decay, .decay_on = on}};
}

}  // namespace matopt::test
