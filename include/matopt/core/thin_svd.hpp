// thin_svd: the decomposition A = U diag(s) V^T as an owning result, by a backend's svd verb, on host memory.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "backend.hpp"
#include "dense.hpp"
#include "error.hpp"
#include "math.hpp"

namespace MATOPT_NAMESPACE {

struct thin_svd {
  dense<double> u, s, v;  // m x q, q x 1 descending, n x q; q = min(m, n)

  // Errors: bad_value if an entry of `a` is not finite.
  template <class B>
  requires factoring_backend<B, double>
  static thin_svd of(B& backend, const dense<double>& a) {
    const view<const double> v = a.view();
    for (index_t i = 0; i < v.rows; ++i)
      for (index_t j = 0; j < v.cols; ++j)
        if (!math::finite(v(i, j)))
          throw bad_value("an entry of a matrix to decompose", "not finite", "finite numbers");
    const index_t q = std::min(a.rows(), a.cols());
    thin_svd r{dense<double>(a.rows(), q), dense<double>(q, 1), dense<double>(a.cols(), q)};
    auto workspace = backend.allocate(backend.template svd_workspace<double>(a.rows(), a.cols(), 1));
    backend.svd(nullptr, v, r.u.view(), r.s.view(), r.v.view(), workspace.data());
    return r;
  }
};

}  // namespace MATOPT_NAMESPACE
