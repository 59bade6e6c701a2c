// Guards on the CPU: which matrices of a batch a verb works on.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "../core/backend.hpp"
#include "lines.hpp"

namespace MATOPT_NAMESPACE::detail {

// What a verb on some matrices of a batch takes in place of v.
template <class V>
V members(const V& v, index_t first, index_t count) {
  if constexpr (lines::is_view<V>)
    return v.batch == 1 ? v : v.matrices(first, count);
  else if constexpr (requires { v.values; })
    return v.values.batch == 1 ? v : V{v.values.matrices(first, count)};
  else
    return v;
}

// How many matrices of a batch the guards stop. In every verb, and so not inlined.
[[gnu::noinline]] inline index_t stopped_of(const status_word* guard, index_t batch) {
  return guard ? batch - std::count(guard, guard + batch, status_word{0}) : 0;
}
// Runs a verb on those of a batch that the guards let through: on all at once, or, where some are left out, on one
// after the other.
template <class Verb, class... V>
void guarded(const status_word* guard, index_t batch, const Verb& verb, const V&... v) {
  const index_t stopped = stopped_of(guard, batch);
  if (stopped > 0 && stopped == batch) return;
  const index_t at_once = stopped == 0 ? batch : 1;
  index_t first = 0;
  do {
    if (stopped == 0 || guard[first] == 0) verb(members(v, first, at_once)...);
    first += at_once;
  } while (first < batch);
}
// What writes scratch only runs for all matrices, or for none.
inline bool all_stopped(const status_word* guard, index_t batch) {
  return batch > 0 && stopped_of(guard, batch) == batch;
}

}  // namespace MATOPT_NAMESPACE::detail
