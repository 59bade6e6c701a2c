// packed_svd: what an svd_library works on, at the head of its workspace: X = A / max |A|, of the transposed matrix
// where that is taller, dense and column-major, with what is not finite as zero (routines need not end otherwise).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <limits>

#include "../core/backend.hpp"
#include "../core/broadcast.hpp"
#include "../core/functors.hpp"
#include "../core/math.hpp"
#include "svd_library.cuh"

namespace MATOPT_NAMESPACE::fn {
// max |x| of what is finite
struct finite_abs_max {
  using reduction = maximum;
  template <class T>
  MATOPT_HD T operator()(T x) const {
    return x - x == T(0) ? math::abs(x) : T(0);
  }
};
// y = x / s, 0 for s = 0 and for what is not finite
struct finite_divide {
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s) const {
    y = x - x == T(0) ? math::divide_or_zero(x, s) : T(0);
  }
};
// y = x where s > cut s_1, else 0
struct where_above {
  double cut;
  template <class T>
  MATOPT_HD void operator()(T& y, T x, T s, T s1) const {
    y = s > T(cut) * s1 ? x : T(0);
  }
};
}  // namespace MATOPT_NAMESPACE::fn

namespace MATOPT_NAMESPACE::cuda {

template <class T>
class packed_svd {
 public:
  packed_svd(svd_problem p, std::byte* memory) : problem(p) {
    const auto take = [&](index_t rows, index_t cols) {
      T* const at = reinterpret_cast<T*>(memory);
      memory += size(rows * cols * p.batch);
      return view<T>{at, rows, cols, 1, rows, p.batch, rows * cols};
    };
    a_ = take(p.m, p.n), u_ = take(p.m, p.n), s_ = take(p.n, 1), v_ = take(p.n, p.n), largest_ = take(1, 1);
    problem.a = a_.data, problem.u = u_.data, problem.s = s_.data, problem.v = v_.data;
  }
  static std::size_t bytes(const svd_problem& p) {
    return 2 * size(p.m * p.n * p.batch) + size(p.n * p.batch) + size(p.n * p.n * p.batch) + size(p.batch);
  }

  template <class E>
  void load(E& e, const status_word* guard, view<const T> a) const {
    e.reduce(guard, fn::finite_abs_max{}, largest_, a);
    e.for_each(guard, fn::finite_divide{}, a_, a.rows < a.cols ? a.t() : a, per_matrix(largest_));
  }
  template <class E>
  void store(E& e, const status_word* guard, view<T> u, view<T> s, view<T> v) const {
    const bool turned = u.rows < v.rows;
    const double noise = 8 * static_cast<double>(std::numeric_limits<T>::epsilon());
    e.for_each(guard, fn::where_above{noise}, turned ? v : u, as_const(u_), per_column(as_const(s_.t())),
               per_matrix(s_.row_block(0, 1)));
    e.for_each(guard, fn::assign{}, turned ? u : v, as_const(v_));
    e.for_each(guard, fn::scaled{}, s, as_const(s_), per_matrix(largest_));
  }

  svd_problem problem;

 private:
  static std::size_t size(index_t scalars) { return (static_cast<std::size_t>(scalars) * sizeof(T) + 255) / 256 * 256; }

  view<T> a_, u_, s_, v_, largest_;
};

}  // namespace MATOPT_NAMESPACE::cuda
