// Grassmann distance between the leading left singular subspaces of two matrices.
//
//   theta_i = arccos s_i(U_A^T U_B),   d = sqrt(sum theta_i^2)     at most sqrt(k) pi / 2
//
// NuMuon, arXiv 2603.03597, section 5 (text and figures; the appendix says right vectors). Errors: bad_value for an
// illegal k.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <string>

#include "../core/thin_svd.hpp"

namespace MATOPT_NAMESPACE {

template <class B>
double grassmann_distance(B& backend, const thin_svd& a, const thin_svd& b, index_t k) {
  const index_t most = std::min(a.u.cols(), b.u.cols());
  if (k < 1 || k > most) throw bad_value("k", std::to_string(k), "[1, " + std::to_string(most) + "]");
  dense<double> overlap(k, k);
  for (index_t i = 0; i < k; ++i)
    for (index_t j = 0; j < k; ++j)
      for (index_t r = 0; r < a.u.rows(); ++r) overlap(i, j) += a.u(r, i) * b.u(r, j);
  const thin_svd angles = thin_svd::of(backend, overlap);
  double sum = 0;
  for (index_t i = 0; i < k; ++i) sum += std::pow(std::acos(std::clamp(angles.s(i, 0), 0.0, 1.0)), 2);
  return std::sqrt(sum);
}

}  // namespace MATOPT_NAMESPACE
