// check_row_works: refuses works of for_rows of which one writes a number and a later one reads it without the same
// mark. A backend that reads the numbers of a row before it works on them would give it what was there before.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <tuple>

#include "broadcast.hpp"
#include "error.hpp"
#include "functors.hpp"
#include "work.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class T, class U>
bool same_memory(const view<T>& x, const view<U>& y) {
  return static_cast<const void*>(x.data) == y.data && static_cast<const void*>(x.table) == y.table &&
         x.offset == y.offset;
}
template <class T, class U>
bool same_memory(const row_broadcast<T>& x, const view<U>& y) {
  return same_memory(x.values, y);
}
template <class V, class U>
bool same_memory(const V&, const view<U>&) {
  return false;
}

// Each reader of what is written, and nobody else, has its number.
template <class T, class... V>
void check_marks(const view<T>& written, int number, const std::tuple<V...>& readers, const char* reader,
                 const char* writer) {
  const auto well_marked = [&](const V&... v) {
    return ((same_memory(not_shared(v), written) == (number != no_shared_number && shared_number<V> == number)) && ...);
  };
  if (!written.empty() && !spread(well_marked, readers))
    throw error(
        std::string("for_rows: the formula on ") + reader + " reads what " + writer +
        "; mark it, and nothing else, in both with one shared<number>(), a result of the sums with sum_result<k>()");
}

template <class Sums, class Numbers, class V>
inline constexpr bool is_given = true;
template <class F, class... S, class G, class... H, int Number, class T>
inline constexpr bool is_given<work<F, S...>, work<G, H...>, shared_view<Number, row_broadcast<T>>> =
    ((shared_number<H> == Number) || ...) || (Number < 0 && -1 - Number < fn::results_of<F>);

template <class Sums, class T, class G, class... X, class H, class... E>
void check_row_works(const Sums&, const view<T>& out, const work<G, X...>& numbers, const work<H, E...>& elements) {
  static_assert((is_given<Sums, work<G, X...>, E> && ...),
                "for_rows: elements take a shared() number that the formula on numbers does not have");
  for (index_t k = 0; k < out.cols; ++k) {
    const int number = -1 - static_cast<int>(k);
    check_marks(out.col_block(k, 1), number, numbers.on, "numbers", "the sums write");
    check_marks(out.col_block(k, 1), number, elements.on, "elements", "the sums write");
  }
  const auto check = [&]<class V>(const V& v) {
    if constexpr (requires { *not_shared(v).data = 0; })
      check_marks(not_shared(v), shared_number<V>, elements.on, "elements", "the formula on numbers writes");
  };
  spread([&](const X&... v) { (check(v), ...); }, numbers.on);
}

}  // namespace MATOPT_NAMESPACE::detail
