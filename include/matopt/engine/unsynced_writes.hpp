// unsynced_writes: finds weights that the caller has written without resync(), although their rule keeps a copy of them
// (optimizer_options::check_copies). What steps left of such weights is kept on the host, and compared before the next
// step. All of this waits.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "step_plan.hpp"

namespace MATOPT_NAMESPACE {

template <class Backend, class Types>
class unsynced_writes {
  using W = typename Types::weight;
  using plan = step_plan<Backend, Types>;
  using parameters = typename plan::parameters;
  using groups = typename plan::groups;

 public:
  void forget() { left_.clear(); }
  // After steps, and for those that are chosen after resync().
  [[gnu::cold]] void remember(Backend& backend, const plan& p, const parameters& all, const groups& by,
                              const std::vector<bool>* chosen = nullptr) {
    left_.resize(all.size());
    each(p, by, [&](std::size_t i) {
      if (!chosen || (*chosen)[i]) left_[i] = elements(backend, all[i].w);
    });
  }
  // Throws bad_value for the first weight that is not as it was left.
  void check(Backend& backend, const plan& p, const parameters& all, const groups& by) const {
    if (left_.empty()) return;
    each(p, by, [&](std::size_t i) {
      if (left_[i].empty()) return;
      const auto now = elements(backend, all[i].w);
      if (std::memcmp(now.data(), left_[i].data(), now.size() * sizeof(W)) != 0)
        throw bad_value("weight of \"" + all[i].name + '"', "written since the last step",
                        "written if resync() is called afterwards: its rule keeps a copy of the weight, and the next "
                        "step would undo the write");
    });
  }

 private:
  template <class F>
  static void each(const plan& p, const groups& by, F f) {
    for (const auto& k : p.buckets)
      if (by[k.group]->options.check_copies && !k.empty() && k.rule->keeps_copy())
        for (const auto& member : k.members) f(member.index);
  }
  // Bit for bit, row by row.
  [[gnu::cold]] static std::vector<W> elements(Backend& backend, const view<W>& w) {
    const index_t down = (w.rows - 1) * w.row_stride, across = (w.cols - 1) * w.col_stride;
    const index_t first = std::min<index_t>(down, 0) + std::min<index_t>(across, 0);
    const index_t last = std::max<index_t>(down, 0) + std::max<index_t>(across, 0);
    std::vector<W> memory(static_cast<std::size_t>(last - first + 1)), out;
    backend.download(memory.data(), w.data + first, memory.size() * sizeof(W));
    out.reserve(static_cast<std::size_t>(w.rows * w.cols));
    for (index_t i = 0; i < w.rows; ++i)
      for (index_t j = 0; j < w.cols; ++j)
        out.push_back(memory[static_cast<std::size_t>(i * w.row_stride + j * w.col_stride - first)]);
    return out;
  }

  std::vector<std::vector<W>> left_;  // by the number of the parameter; empty where nothing is kept
};

}  // namespace MATOPT_NAMESPACE
