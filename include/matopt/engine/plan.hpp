// memory_report: what an optimizer will allocate, by slot, before it allocates anything; and the dry run that finds it.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "../core/pass.hpp"
#include "../core/policy.hpp"
#include "../core/scaled_gradient.hpp"

namespace MATOPT_NAMESPACE {

struct memory_report {
  struct line {
    std::string slot;  // momentum, orthogonalizer, normalizer, constraint
    std::string what;  // the name of the state
    std::size_t bytes;
  };
  std::vector<line> state;
  std::size_t control = 0;        // pointer tables, numbers of the step, status words
  std::size_t state_bytes = 0;    // the first allocation: all state and the control words
  std::size_t scratch_bytes = 0;  // the second allocation

  [[gnu::cold]] void add(const std::string& slot, const std::string& what, std::size_t bytes) {
    for (line& l : state)
      if (l.slot == slot && l.what == what) {
        l.bytes += bytes;
        return;
      }
    state.push_back({slot, what, bytes});
  }
  std::size_t total() const { return state_bytes + scratch_bytes; }
  // One line each: slot, state, bytes. What rounds the state up to its allocation is in the last line.
  [[gnu::cold]] std::string table() const {
    std::string out;
    const auto add = [&](const std::string& who, std::size_t bytes) __attribute__((cold)) {
      out += who + "  " + std::to_string(bytes) + '\n';
    };
    for (const line& l : state) add(l.slot + "  " + l.what, l.bytes);
    add("control", control), add("scratch", scratch_bytes), add("total", total());
    return out;
  }
};

namespace detail {
// One step of one bucket as the engine runs and plans it.
template <class Rule, class E, class St, class W, class G>
void run_step(const Rule& r, bool scales_gradient, E& e, St& s, view<W> w, view<const G> g, view<const G> reference) {
  if (Rule::template scales_gradient<E, St, W, G> || !scales_gradient) return r.step(e, s, w, g, reference);
  if constexpr (!Rule::template scales_gradient<E, St, W, G>)
    with_scaled_gradient<needs_reference<typename Rule::momentum_type>>(
        e, w, g, reference, [&](auto scaled, auto second) { r.step(e, s, w, scaled, second); });
}
}  // namespace detail

// Bytes of scratch that one step of `r` takes for `batch` matrices of a shape and order, whatever the rank and phase.
// The step's own code runs on a pass that does nothing.
template <class Types, class Rule, class B>
[[gnu::cold]] std::size_t plan_scratch(const Rule& r, B& backend, index_t rows, index_t cols, index_t batch,
                                       bool column_major, bool scales_gradient = false) {
  using C = typename Types::compute;
  arena counting;
  arena placing;  // state views without memory, of the right shapes
  typename Rule::template state<Types> s{};
  r.each_state(s, [&](std::string_view, const auto& policy, auto& own) {
    state_layout<typename Types::state, C> layout(placing, rows, cols, batch, column_major);
    lay_out(policy, layout, own);
  });
  const auto shape = [&]<class T>(T*) {
    return column_major ? col_major<T>(nullptr, rows, cols, batch) : row_major<T>(nullptr, rows, cols, batch);
  };
  const auto w = shape(static_cast<typename Types::weight*>(nullptr));
  const auto g = shape(static_cast<const typename Types::gradient*>(nullptr));
  {
    pass<B, C> e(dry_run{}, backend, counting, batch, all_directions);
    r.init(e, s, w), r.resync(e, s, w);
  }
  const auto steps_with = [&](index_t rank) {
    for (index_t phase = 0; phase < Rule::phases; ++phase) {
      pass<B, C> e(dry_run{}, backend, counting, batch, rank, phase);
      detail::run_step(r, scales_gradient, e, s, w, g, g);
    }
  };
  if constexpr (limits_rank<typename Rule::constraint_type>)
    for (index_t rank = 1; rank <= math::min(rows, cols); ++rank) steps_with(rank);
  else
    steps_with(all_directions);
  return counting.peak;
}

}  // namespace MATOPT_NAMESPACE
