// view_of: what holds a matrix, or a stack of them, as a view, without a copy. It is how tensors of other libraries and
// of your own enter this one.
//
// Teach it a class of yours by functions of this name beside the class, which are found by argument-dependent lookup:
//
//   namespace lab {
//   matopt::view<float> view_of(tensor& t) { return matopt::row_major(t.data(), t.rows(), t.cols()); }
//   matopt::view<const float> view_of(const tensor& t) { return matopt::row_major(t.data(), t.rows(), t.cols()); }
//   }
//
// For a class in whose namespace you would rather declare nothing, specialise matopt::tensor_adapter<tensor> with
// static functions of the same name; view_of for Eigen is made so. An adapter is taken before a function beside the
// class.
//
// A temporary is refused, because its memory goes with it. A class that only points to memory that others hold, like a
// span or a reference-counted tensor, says matopt::points_to_memory<tensor> = true. The memory has to outlive the view
// and stay where it is. docs/your-own-tensors.md has a whole example.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <concepts>
#include <type_traits>
#include <utility>

#include "view.hpp"

namespace MATOPT_NAMESPACE {

// To be specialised for classes of other libraries: static auto view_of(X&), and view_of(const X&) for a view that only
// reads.
template <class X>
struct tensor_adapter {};

// A temporary X will do, since it does not own what it points to.
template <class X>
inline constexpr bool points_to_memory = false;
template <class T>
inline constexpr bool points_to_memory<view<T>> = true;

namespace detail {
template <class V>
inline constexpr bool is_plain_view = false;
template <class T>
inline constexpr bool is_plain_view<view<T>> = true;

namespace beside_the_class {
void view_of() = delete;  // stands before the object of this name, so that functions are looked up by their arguments

template <class X>
concept adapted = requires(X& x) {
  requires is_plain_view<decltype(tensor_adapter<std::remove_cv_t<X>>::view_of(x))>;
};
template <class X>
concept has_own = requires(X& x) {
  requires is_plain_view<decltype(view_of(x))>;
};

template <class X>
concept outlives_the_call = std::is_lvalue_reference_v<X> || points_to_memory<std::remove_cvref_t<X>>;
template <class X>
concept known = is_plain_view<std::remove_cvref_t<X>> ||
    (outlives_the_call<X> && (adapted<std::remove_reference_t<X>> || has_own<std::remove_reference_t<X>>));

struct call {
  template <known X>
  constexpr auto operator()(X&& x) const {
    if constexpr (is_plain_view<std::remove_cvref_t<X>>)
      return x;
    else if constexpr (adapted<std::remove_reference_t<X>>)
      return tensor_adapter<std::remove_cvref_t<X>>::view_of(x);
    else
      return view_of(x);
  }
};
}  // namespace beside_the_class
}  // namespace detail

inline constexpr detail::beside_the_class::call view_of{};

// view_of makes a view of an X: tensor& and const tensor&, but not tensor, unless that only points to memory.
template <class X>
concept viewable = requires(X&& x) {
  view_of(std::forward<X>(x));
};
// ... one of elements of type T, which may be const
template <class X, class T>
concept viewable_as = viewable<X> && std::convertible_to<decltype(view_of(std::declval<X>())), view<T>>;

// What a function asks for that takes a view<T> or whatever view_of makes one of:
//
//   void add(viewed<float> weight, viewed<const float> gradient);       add(w, g), add(view_of(w).t(), g)
template <class T>
struct viewed : view<T> {
  constexpr viewed() = default;
  template <viewable_as<T> X>
  constexpr viewed(X&& x) : view<T>(matopt::view_of(std::forward<X>(x))) {}
};

}  // namespace MATOPT_NAMESPACE
