// Guards on the CPU: which matrices of a batch a verb works on.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>

#include "../core/backend.hpp"

namespace MATOPT_NAMESPACE::detail {

// How many matrices of a batch the guards stop. In every verb, and so not inlined.
[[gnu::noinline]] inline index_t stopped_of(const status_word* guard, index_t batch) {
  return guard ? batch - std::count(guard, guard + batch, status_word{0}) : 0;
}
// verb(first, count) for those of a batch that the guards let through: for all at once, or, where some are left out, for
// one after the other.
template <class Verb>
void guarded(const status_word* guard, index_t batch, const Verb& verb) {
  const index_t stopped = stopped_of(guard, batch);
  if (stopped > 0 && stopped == batch) return;
  const index_t at_once = stopped == 0 ? batch : 1;
  index_t first = 0;
  do {
    if (stopped == 0 || guard[first] == 0) verb(first, at_once);
    first += at_once;
  } while (first < batch);
}
// What writes scratch only runs for all matrices, or for none.
inline bool all_stopped(const status_word* guard, index_t batch) {
  return batch > 0 && stopped_of(guard, batch) == batch;
}

}  // namespace MATOPT_NAMESPACE::detail
