// factored: a weight W (m x n) as the product of two thin matrices, and how large that is.
//
//   W ~ left right,   left m x k,   right k x n,   k = floor(keep m n / (m + n))
//
// `keep` is the fraction of parameters that remain (the papers' compression rate is 1 - keep). Where k (m + n) >= m n
// the dense matrix is not larger and should stay: rank_for() then returns min(m, n).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <string>

#include "../core/dense.hpp"
#include "../core/error.hpp"
#include "../core/settings.hpp"

namespace MATOPT_NAMESPACE {

// The rank for a keep ratio, at least 1; min(rows, cols), meaning dense, if a factored form would save nothing.
inline index_t rank_for(double keep, index_t rows, index_t cols) {
  if (!(keep > 0 && keep <= 1)) throw bad_value("keep", detail::text(keep), "(0, 1]");
  const double m = static_cast<double>(rows), n = static_cast<double>(cols);
  const auto k = std::max<index_t>(1, static_cast<index_t>(std::floor(keep * m * n / (m + n) + 1e-9)));
  return keep == 1 || k * (rows + cols) >= rows * cols ? std::min(rows, cols) : k;
}

struct factored {
  dense<double> left, right;
  double ridge = 0;  // relative to the mean of the diagonal; what whitening had to add to be possible

  index_t rank() const { return left.cols(); }
  index_t rows() const { return left.rows(); }
  index_t cols() const { return right.cols(); }
  // What is stored: the two factors, or the dense matrix where that is not larger.
  index_t parameters() const { return std::min(rank() * (rows() + cols()), rows() * cols()); }
  index_t bytes(index_t per_element) const { return parameters() * per_element; }

  dense<double> product() const {
    dense<double> w(rows(), cols());
    for (index_t i = 0; i < rows(); ++i)
      for (index_t r = 0; r < rank(); ++r)
        for (index_t j = 0; j < cols(); ++j) w(i, j) += left(i, r) * right(r, j);
    return w;
  }
};

}  // namespace MATOPT_NAMESPACE
