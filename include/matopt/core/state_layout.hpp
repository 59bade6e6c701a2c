// state_layout: through it a policy says what state it keeps; the same call sizes, places and names it.
//
//   template <class State, class Compute> struct state { view<State> buffer; view<Compute> norms; };
//   template <class Layout, class S> void layout(Layout& l, S& s) const {
//     s.buffer = l.matrix("momentum");   // rows x cols, in the state type, stored in the order of the weight
//     s.norms  = l.rows("row_norm");     // rows x 1, in the compute type; also columns(), scalar(), block(name, m, n)
//     s.v = l.squares("second_moment");  // as matrix(), for numbers that are never negative and divide, such as an
//                                        // average of squares: quantized<> keeps a matrix() in 8 bits, but not these
//   }
//
// Checkpoints name the state "<parameter>.<name>", so a name has no dot in it. When a policy's state changes its name
// or its meaning, former_states below says how checkpoints of before are read.
//
// What is kept may depend on the policy's settings and on l.row_count() and l.column_count(). A policy without state
// declares neither `state` nor `layout`. State begins as zeros; a policy whose state depends on the weight has a member
// init(pass, state, weight).
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "arena.hpp"
#include "limits.hpp"
#include "types.hpp"

namespace MATOPT_NAMESPACE {

// One piece of state of a whole bucket, type-erased. Matrix b of the batch belongs to parameter b of the bucket.
struct state_entry {
  std::string name;
  element_type type;
  void* data;
  index_t rows, cols, row_stride, col_stride, batch, batch_stride;
  std::size_t bytes;
};

template <class State, class Compute>
class state_layout {
 public:
  // Policies place the state of `batch` matrices of rows x cols in `memory`.
  state_layout(arena& memory, index_t rows, index_t cols, index_t batch, bool column_major)
      : memory_(memory), rows_(rows), cols_(cols), batch_(batch), column_major_(column_major) {}

  view<State> matrix(std::string_view name) { return add<State>(name, rows_, cols_); }
  view<State> squares(std::string_view name) { return matrix(name); }
  view<Compute> rows(std::string_view name) { return add<Compute>(name, rows_, 1); }
  view<Compute> columns(std::string_view name) { return add<Compute>(name, 1, cols_); }
  view<Compute> scalar(std::string_view name) { return add<Compute>(name, 1, 1); }
  view<Compute> block(std::string_view name, index_t rows, index_t cols) { return add<Compute>(name, rows, cols); }
  // A matrix in codes of 8 bits, row after row whatever the order of the weight, and the scales of its blocks.
  view<std::uint8_t> codes(std::string_view name, element_type type) {
    return place<std::uint8_t>(name, rows_, cols_, type, false);
  }
  view<float> scales(std::string_view name, index_t blocks) {
    return place<float>(name, 1, blocks, element_type::f32, false);
  }

  index_t row_count() const { return rows_; }
  index_t column_count() const { return cols_; }

  const std::vector<state_entry>& entries() const { return entries_; }

 private:
  template <class T>
  view<T> add(std::string_view name, index_t rows, index_t cols) {
    return place<T>(name, rows, cols, element_type_of<T>(), column_major_);
  }
  template <class T>
  [[gnu::cold]] view<T> place(std::string_view name, index_t rows, index_t cols, element_type type, bool column_major) {
    const std::size_t before = memory_.top;
    const view<T> v = memory_.take<T>(rows, cols, batch_, column_major);
    entries_.push_back({std::string(name), type, v.data, v.rows, v.cols, v.row_stride, v.col_stride, v.batch,
                        v.batch_stride, memory_.top - before});
    return v;
  }

  arena& memory_;
  index_t rows_, cols_, batch_;
  bool column_major_;
  std::vector<state_entry> entries_;
};

// What a policy kept before, and what it keeps of that today: `meaning` gives today's number for one of then, or is
// null if only the name has changed. State that cannot be converted is no part of the list; a checkpoint of it is
// refused.
struct former_state {
  std::string_view name, today;
  double (*meaning)(double);
};

namespace detail {
inline double root_of(double x) { return std::sqrt(x); }
// Of version 0.1: NAMO's mean square overflowed where its root does not.
inline constexpr former_state former_states[] = {{"norm_second_moment", "norm_root_mean_square", root_of},
                                                 {"column_second_moment", "column_root_mean_square", root_of}};
}  // namespace detail

// The state of a policy that declares none.
struct no_state {};

// A policy around another one of the same slot says `using decorates = Inner;` and has that policy as its member inner.
// What it does not declare is Inner's: state, markers, and the functions beside the operation.
template <class P>
concept decorator = requires {
  typename P::decorates;
};

namespace detail {
template <class P, class State, class Compute>
struct state_of {
  using type = no_state;
};
template <class P>
concept has_own_state = requires {
  typename P::template state<float, float>;
};
template <has_own_state P, class State, class Compute>
struct state_of<P, State, Compute> {
  using type = typename P::template state<State, Compute>;
};
template <decorator P, class State, class Compute>
requires(!has_own_state<P>) struct state_of<P, State, Compute> : state_of<typename P::decorates, State, Compute> {
};
// Of a decorator's state: that of the policy inside.
template <class P, class S>
auto& inner_state(const P&, S& s) {
  if constexpr (has_own_state<P>)
    return s.inner;
  else
    return s;
}
}  // namespace detail

// A policy's state: its member template `state`, or no_state.
template <class P, class State, class Compute>
using state_for = typename detail::state_of<P, State, Compute>::type;

namespace detail {
// The largest number whose square may be computed in C and kept in this state.
template <class C, class S>
constexpr double square_limit(const view<S>&) {
  return largest_squared<C, S>;
}
}  // namespace detail

// Lets a policy lay out its state, if it has any.
template <class P, class Layout, class S>
void lay_out(const P& policy, Layout& l, S& s) {
  if constexpr (decorator<P> && !detail::has_own_state<P>)
    lay_out(policy.inner, l, s);
  else if constexpr (!std::is_same_v<S, no_state>)
    policy.layout(l, s);
}

}  // namespace MATOPT_NAMESPACE
