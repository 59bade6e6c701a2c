// A case whose input is X and whose result is Y: an orthogonalizer with no rule around it.
#pragma once
#include <matopt/orthogonalizer_plan.hpp>

#include "case.hpp"
#include "matrices.hpp"

namespace replay {

// Orthogonalizes X of the case, and compares with Y if the case has it. `rank`: nothing, or the k of an
// orthogonalizer_plan.
template <class B, class T, class Orthogonalizer, class... Rank>
void direction(B& backend, const Orthogonalizer& orthogonalizer, const json& c, outcome& out, Rank... rank) {
  const matrix<T> x0 = matrix_of<T>("X", member(c, "X"));
  placed_matrix<B, T> x(backend, x0);
  matopt::orthogonalizer_plan<Orthogonalizer, B, T> plan(backend, orthogonalizer, x.view(), rank...);
  plan(x.view());
  const matopt::view<T> y = x.get();  // waits, so that the plan may go
  if (c.contains("Y")) out.error = distance(y, matrix_of<double>("Y", c.at("Y"), x0.rows, x0.cols));
  out.computed["Y"] = json_of(y);
}

}  // namespace replay
