// view_of: an Eigen matrix, vector, Map, Ref or Block as a view, without a copy; column- and row-major alike.
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
#pragma once
#include <Eigen/Core>
#include <type_traits>

#include "../core/view.hpp"

namespace matopt {

namespace detail {
template <class M>
concept eigen_storage =
    std::is_base_of_v<Eigen::DenseBase<std::remove_cvref_t<M>>, std::remove_cvref_t<M>> &&
        (std::remove_cvref_t<M>::Flags& Eigen::DirectAccessBit) != 0 &&
    // A temporary Map or Block points to memory that someone else holds; a temporary Matrix takes its own with it.
    (std::is_lvalue_reference_v<M> ||
     !std::is_base_of_v<Eigen::PlainObjectBase<std::remove_cvref_t<M>>, std::remove_cvref_t<M>>);
}  // namespace detail

template <detail::eigen_storage M>
auto view_of(M&& m) {
  using T = std::remove_pointer_t<decltype(m.data())>;  // const where the expression is read-only
  constexpr bool rows_outer = std::remove_cvref_t<M>::IsRowMajor;
  return view<T>{m.data(), m.rows(), m.cols(), rows_outer ? m.outerStride() : m.innerStride(),
                 rows_outer ? m.innerStride() : m.outerStride()};
}

}  // namespace matopt
