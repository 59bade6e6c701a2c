// view_of for std::mdspan, cuda::std::mdspan and Kokkos' own: any class with data_handle(), extent(i) and stride(i), of
// rank 1 to 3. It needs no header of theirs, so it works with whichever the program has.
//
//   std::mdspan<float, std::dextents<std::size_t, 2>> w(data, 64, 128);        64 outputs, 128 inputs
//   opt.add("w", w, g);                                                      or matopt::view_of(w)
//
// Rank 1 is n x 1, rank 2 is m x n, rank 3 is a stack: count, rows, columns. Layouts that have strides (layout_right,
// layout_left, layout_stride) become the view's; the accessor has to hand out plain pointers. Others do not compile.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "../core/view_of.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class M>
concept strided_mdspan = requires(const M& m, std::size_t i) {
  { m.data_handle() } -> std::convertible_to<typename M::element_type*>;
  { m.extent(i) } -> std::convertible_to<index_t>;
  { m.stride(i) } -> std::convertible_to<index_t>;
  requires M::rank()
  >= 1 && M::rank() <= 3;
  requires M::is_always_strided();
};
}  // namespace detail

template <detail::strided_mdspan M>
struct tensor_adapter<M> {
  static view<typename M::element_type> view_of(const M& m) {
    constexpr std::size_t n = M::rank(), row = n == 3 ? 1 : 0;
    const auto extent = [&](std::size_t i) { return static_cast<index_t>(m.extent(i)); };
    const auto stride = [&](std::size_t i) { return static_cast<index_t>(m.stride(i)); };
    if constexpr (n == 1)
      return {m.data_handle(), extent(0), 1, stride(0), 1};
    else
      return {m.data_handle(),        extent(row),           extent(n - 1), stride(row), stride(n - 1),
              n == 3 ? extent(0) : 1, n == 3 ? stride(0) : 0};
  }
};
template <detail::strided_mdspan M>
inline constexpr bool points_to_memory<M> = true;

}  // namespace MATOPT_NAMESPACE
