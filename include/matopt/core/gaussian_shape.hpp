// The shape nu of the generalised Gaussian that numbers look like, whose density is proportional to exp(-|x / s|^nu):
// 2 for Gauss, 1 for Laplace, less for heavier tails.
//
//   rho(nu) = Gamma(1 / nu) Gamma(3 / nu) / Gamma(2 / nu)^2 = N sum x^2 / (sum |x|)^2
//
// rho falls: rho(1/2) = 10/3, rho(1) = 2, rho(2) = pi/2. nu is looked for in [0.1, 3], the range of BackSlash (arXiv
// 2504.16968), by 40 bisections where others look it up in a table of step 0.01. ln Gamma by recurrence to 8 and
// Stirling's series, 1e-12 relative, the same on every backend.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "math.hpp"

namespace MATOPT_NAMESPACE::fn {

// The shape of a generalised Gaussian with sum x^2 = squares and sum |x| = sum over `count` entries; 2 of all zeros.
struct gaussian_shape {
  double count;
  template <class T>
  MATOPT_HD void operator()(T& shape, T squares, T sum) const {
    if (!(sum > T(0))) {
      shape = T(2);
      return;
    }
    const double wanted =
        math::log(count * (static_cast<double>(squares) / static_cast<double>(sum)) / static_cast<double>(sum));
    double low = 0.1, high = 3;
    for (int i = 0; i < 40; ++i) {
      const double nu = (low + high) / 2;
      (log_ratio(nu) > wanted ? low : high) = nu;
    }
    shape = T((low + high) / 2);
  }
  // log rho, which falls
  MATOPT_HD static double log_ratio(double nu) { return log_gamma(1 / nu) + log_gamma(3 / nu) - 2 * log_gamma(2 / nu); }
  MATOPT_HD static double log_gamma(double x) {
    double below = 1;  // Gamma(x) = Gamma(x + n) / (x (x + 1) ... (x + n - 1))
    for (; x < 8; x += 1) below *= x;
    const double y = 1 / (x * x);
    const double series = 1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y * (1.0 / 1680 - y * (1.0 / 1188))));
    return (x - 0.5) * math::log(x) - x + 0.91893853320467274178 + series / x - math::log(below);
  }
};

}  // namespace MATOPT_NAMESPACE::fn
