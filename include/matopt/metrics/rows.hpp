// Row norms of a matrix and Muown's coherence factor.
//
//   ||W||_2 = max_i ||W_i|| * coherence
//   coherence = sqrt(lambda_max(P D D^T P)),   P = Diag(||W_i||) / max_i ||W_i||,   D = W with unit rows
//
// 1 <= coherence <= sqrt(rows): 1 for orthogonal rows, sqrt(rows) for parallel ones of equal norm. Muon's drift of the
// spectral norm comes from the other factor (Muown, arXiv 2605.10797).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "spectrum.hpp"

namespace MATOPT_NAMESPACE {

// ||W_i|| of one matrix in host memory.
template <class T>
std::vector<double> row_norms(const view<T>& w) {
  std::vector<double> norms;
  for (index_t i = 0; i < w.rows; ++i) {
    double n = 0;
    for (index_t j = 0; j < w.cols; ++j) n = std::hypot(n, static_cast<double>(w(i, j)));
    norms.push_back(n);
  }
  return norms;
}

struct extremes {
  double least, greatest;
};
template <class T>
extremes row_norm_extremes(const view<T>& w) {
  const std::vector<double> n = row_norms(w);
  return {*std::min_element(n.begin(), n.end()), *std::max_element(n.begin(), n.end())};
}

// 0 for the zero matrix.
template <class T>
double row_coherence(const spectrum& s, const view<T>& w) {
  const double greatest = row_norm_extremes(w).greatest;
  return greatest > 0 ? s.spectral_norm() / greatest : 0;
}

}  // namespace MATOPT_NAMESPACE
