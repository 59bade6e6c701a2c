// parameter: one matrix of the caller's with its gradient, and what may differ from one to the next.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "../core/view.hpp"

namespace MATOPT_NAMESPACE {

// What may differ from parameter to parameter.
struct parameter_options {
  double lr_scale = 1;                // factor of the learning rate
  std::optional<double> decay{};      // replaces the rule's decay
  std::vector<index_t> row_blocks{};  // splits the rows (fused QKV, heads): each block is a matrix of its own
};

template <class W, class G>
struct parameter {
  std::string name;
  std::size_t view_number, group;   // of the view that it was added with; and of the rule that it takes
  index_t matrix, first_row;        // which part of that view it is
  index_t added_rows, added_batch;  // the extent of that view
  view<W> w;
  view<const G> g, r;  // r: the reference gradient; g where there is none
  double lr_scale;
  std::optional<double> decay;
};

}  // namespace MATOPT_NAMESPACE
