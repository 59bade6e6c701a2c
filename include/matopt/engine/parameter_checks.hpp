// What is wrong with a weight and its gradient by themselves, before anything is known of other parameters.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "../core/check_view.hpp"
#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/settings.hpp"
#include "parameter.hpp"

namespace MATOPT_NAMESPACE::detail {

template <class W, class G>
[[gnu::cold]] void check_pair(const std::string& name, const view<W>& w, const view<const G>& g, const char* kind) {
  const label weight{"weight", name}, gradient{kind, name};
  check_view(weight, w);
  check_view(gradient, g, true);
  if (w.rows == g.rows && w.cols == g.cols && w.batch == g.batch) return;
  if (w.empty() && !g.empty()) throw bad_value(weight, text(w), "the shape of its gradient, " + text(g));
  throw bad_value(gradient, text(g), "the shape of its weight, " + text(w));
}
template <class W>
[[gnu::cold]] void check_options(const std::string& name, const view<W>& w, const parameter_options& o,
                                 bool has_decay) {
  const auto legal = range{.low = 0};
  if (!legal.contains(o.lr_scale)) throw bad_value("lr_scale of \"" + name + "\"", text(o.lr_scale), text(legal));
  if (o.decay) {
    if (!legal.contains(*o.decay)) throw bad_value("decay of \"" + name + "\"", text(*o.decay), text(legal));
    if (!has_decay) throw bad_value("decay of \"" + name + "\"", text(*o.decay), "not set: this rule has no decay");
  }
  index_t sum = 0;
  for (const index_t rows : o.row_blocks) {
    if (rows < 1) throw bad_value("row_blocks of \"" + name + "\"", std::to_string(rows), ">= 1 each");
    sum = detail::sum(sum, rows);
  }
  if (!o.row_blocks.empty() && sum != w.rows)
    throw bad_value("row_blocks of \"" + name + "\"",
                    (sum == largest_index ? "a sum of at least " : "a sum of ") + std::to_string(sum),
                    std::to_string(w.rows) + ", the rows of the weight");
}
// Stacked matrices do not reach into one another; a gradient may be one for all.
template <class T>
[[gnu::cold]] void check_stack(const std::string& name, const view<T>& v) {
  if constexpr (!std::is_const_v<T>) return check_stack<const T>(name, v);
  if (v.batch <= 1 || v.batch_stride == 0 || footprint_of(v).nested()) return;
  const auto first = footprint_of(v.matrix(0));
  for (index_t b = 1; b < v.batch; ++b)
    if (overlap(first, footprint_of(v.matrix(b))))
      throw bad_value("memory of \"" + name + '.' + std::to_string(b) + '"', "shared with \"" + name + ".0\"",
                      "memory of its own");
}

}  // namespace MATOPT_NAMESPACE::detail
