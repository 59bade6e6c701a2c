// How stochastic<T> (stochastic.hpp) is rounded: not where it is stored, but by the formula that writes it. A pass
// hands a backend the formula with a rounding behind it, and with three arguments more, which the random bits are made
// of. So backends know nothing of it, and neither do policies.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "broadcast.hpp"
#include "philox.hpp"
#include "stochastic.hpp"
#include "work.hpp"

namespace MATOPT_NAMESPACE::detail {

// An argument that is written and rounded: by what it is rounded to, or void.
template <class V>
struct rounded_argument {
  using type = void;
};
template <class T>
requires is_stochastic<T>
struct rounded_argument<view<T>> {
  using type = typename T::stored;
};

template <class... V>
inline constexpr bool writes_stochastic = (!std::is_void_v<typename rounded_argument<V>::type> || ...);

template <class Work>
inline constexpr bool rounds_work = false;
template <class F, class... V>
inline constexpr bool rounds_work<work<F, V...>> = writes_stochastic<decltype(not_shared(std::declval<V>()))...>;

// F, whose argument i is then rounded to Stored i, unless that is void. Behind F's arguments come row, column and step.
template <class F, class... Stored>
struct with_rounding : F {
  MATOPT_HD constexpr with_rounding(F f) : F(f) {}
  template <class T, class... Rest>
  MATOPT_HD auto operator()(T& first, Rest&... rest) const {
    T* const given[] = {&first, &rest...};
    return call(given, std::index_sequence_for<Stored...>{});
  }

 private:
  template <class T, std::size_t... I>
  MATOPT_HD auto call(T* const* given, std::index_sequence<I...> all) const {
    if constexpr (std::is_void_v<decltype(F::operator()(*given[I]...))>) {
      F::operator()(*given[I]...);
      round(given, all);
    } else {
      const auto term = F::operator()(*given[I]...);
      round(given, all);
      return term;
    }
  }
  template <class T, std::size_t... I>
  MATOPT_HD static void round(T* const* given, std::index_sequence<I...>) {
    constexpr std::size_t count = sizeof...(Stored);
    const philox::counter random =
        philox::bits({static_cast<std::uint32_t>(*given[count]), static_cast<std::uint32_t>(*given[count + 1]),
                      static_cast<std::uint32_t>(*given[count + 2]), 0},
                     {0, 0});
    std::size_t next = 0;
    (round_one<Stored>(*given[I], random, next), ...);
  }
  template <class S, class T>
  MATOPT_HD static void round_one(T& x, const philox::counter& random, std::size_t& next) {
    if constexpr (!std::is_void_v<S>)
      x = static_cast<T>(rounded_by_chance<S>(static_cast<float>(x), random[next++ % random.size()]));
  }
};

// use(f, v...), or with the rounding of what f writes.
template <class C, class F, class Use, class... V>
void with_rounding_apart(F f, matrix_broadcast<C> step, Use use, V... v) {
  if constexpr (writes_stochastic<V...>)
    use(with_rounding<F, typename rounded_argument<V>::type...>(f), v..., row_number{}, column_number{}, step);
  else
    use(f, v...);
}

}  // namespace MATOPT_NAMESPACE::detail
