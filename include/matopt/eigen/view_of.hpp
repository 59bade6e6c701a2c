// view_of for Eigen: a matrix, vector, Map, Ref or Block as a view, without a copy; column- and row-major alike.
//
//   Eigen::MatrixXf w(64, 128), g(64, 128);                          64 outputs, 128 inputs
//   opt.add("w", matopt::view_of(w), matopt::view_of(g));
//   opt.add("q", matopt::view_of(wqkv.topRows(64)), matopt::view_of(gqkv.topRows(64)));
//
// The storage must outlive the view and stay where it is: resizing the matrix, or assigning an expression of another
// size, frees it. So does `g = gradient(w)` of a function that returns a matrix: a move assignment swaps storage. Copy
// with `Eigen::Map<Eigen::MatrixXf>(g.data(), g.rows(), g.cols()) = gradient(w)`, or call opt.rebind("w", view_of(g))
// afterwards; opt.check_bound("w", view_of(w), view_of(g)) throws if that was forgotten. A temporary matrix does not
// compile; nor does an expression without memory of its own, like a + b.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <Eigen/Core>
#include <type_traits>

#include "../core/view_of.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class M>
concept eigen_storage = std::is_base_of_v<Eigen::DenseBase<M>, M> &&(M::Flags& Eigen::DirectAccessBit) != 0;
}  // namespace detail

template <detail::eigen_storage M>
struct tensor_adapter<M> {
  template <class X>
  static auto view_of(X& m) {
    using T = std::remove_pointer_t<decltype(m.data())>;  // const where the expression is read-only
    constexpr bool rows_outer = M::IsRowMajor;
    return view<T>{m.data(), m.rows(), m.cols(), rows_outer ? m.outerStride() : m.innerStride(),
                   rows_outer ? m.innerStride() : m.outerStride()};
  }
};

// A temporary Map or Block points to memory that someone else holds; a temporary Matrix takes its own with it.
template <detail::eigen_storage M>
inline constexpr bool points_to_memory<M> = !std::is_base_of_v<Eigen::PlainObjectBase<M>, M>;

}  // namespace MATOPT_NAMESPACE
