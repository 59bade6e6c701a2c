// The polar factor, to the rounding of what the backend does its products best in.
//
//   16 bits, q = min(m, n) >= 64    newton_schulz<>: X = M / S8, seven steps of the Polar Express
//   otherwise                       svd_polar: to the rounding of the type
//
// Amsel et al.: The Polar Express (arXiv 2505.16932). Products are in 16 bits on NVIDIA GPUs, for floats: what is above
// 1e-3 sigma_1 then comes to 1 within the rounding of float16, and what is below, the size of that rounding in M
// itself, to less than 1. In double, on the CPU, and with a rank budget the factor is exact, noise left out. svd_polar
// is exact everywhere, and takes about eight times as long there. State: none. Needs: svd, gemm.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../../core/policy.hpp"
#include "newton_schulz.hpp"
#include "svd_polar.hpp"

namespace MATOPT_NAMESPACE {

struct polar_factor {
  static constexpr bool honours_rank = svd_polar::honours_rank;

  static std::string name() { return "polar_factor"; }

  template <class E, class St, class T>
  requires E::can_factor void orthogonalize(E& e, St& s, view<T> m) const {
    if constexpr (sizeof(typename E::product) < sizeof(T))
      if (e.rank() == all_directions && detail::polar_by_products_pays(m.rows, m.cols))
        return detail::orthogonalize(by_products, e, s, m);
    svd_polar{}.orthogonalize(e, s, m);
  }

 private:
  static constexpr newton_schulz<> by_products{
      .coefficients = coefficient_set::polar_express, .steps = 7, .bound = spectral_bound::schatten8};
};

}  // namespace MATOPT_NAMESPACE
