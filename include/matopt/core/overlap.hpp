// overlap(a, b): whether two batches of matrices share a byte. The answer is exact for any strides: rows 0, 2, .. and
// rows 1, 3, .. of a column-major matrix interleave without sharing, and so do the column blocks of a row-major one.
//
// A view is taken as nested progressions of runs of bytes (a footprint). Levels with the same stride in both, which
// blocks of one matrix have, cost a constant; others cost as much as the smaller count of runs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>

#include "view.hpp"

namespace MATOPT_NAMESPACE::detail {

struct footprint {
  struct level {
    std::int64_t count = 0, stride = 0;  // of what lies inside, in bytes
  };
  std::int64_t first = 0, run = 0;  // the first byte, and the length of one run; an empty view has no run
  int levels = 0;
  std::array<level, 3> at{};  // the largest stride first

  bool empty() const { return run == 0; }
  // The bytes from the first to the last of what lies inside the levels before `from`.
  std::int64_t span(int from = 0) const {
    std::int64_t bytes = run;
    for (int i = from; i < levels; ++i) bytes += (at[static_cast<std::size_t>(i)].count - 1) * level_stride(i);
    return bytes;
  }
  std::int64_t end() const { return first + span(); }
  std::int64_t level_stride(int i) const { return at[static_cast<std::size_t>(i)].stride; }
  std::int64_t level_count(int i) const { return at[static_cast<std::size_t>(i)].count; }
  // No two runs share a byte. (Progressions that interleave more intricately than levels can are not recognised.)
  bool nested() const {
    for (int i = 0; i < levels; ++i)
      if (level_stride(i) < span(i + 1)) return false;
    return true;
  }
};

// A stride of 0 repeats what is there and adds no byte; a negative one begins at the other end.
[[gnu::cold]] inline footprint footprint_of_elements(const void* data, const view<const std::byte>& v,
                                                     std::int64_t size) {
  footprint f;
  f.first = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data));
  if (v.rows < 1 || v.cols < 1 || v.batch < 1) return f;
  std::array<footprint::level, 3> all{
      {{v.rows, v.row_stride * size}, {v.cols, v.col_stride * size}, {v.batch, v.batch_stride * size}}};
  for (auto& l : all)
    if (l.stride < 0) f.first += (l.count - 1) * l.stride, l.stride = -l.stride;
  const auto order = [&](std::size_t i, std::size_t j) {
    if (all[j].stride < all[i].stride) std::swap(all[i], all[j]);
  };
  order(0, 1), order(1, 2), order(0, 1);
  f.run = size;
  for (const auto& l : all) {  // from the inside out; what continues the level inside it becomes part of that
    if (l.count == 1 || l.stride == 0) continue;
    auto& inner = f.at[static_cast<std::size_t>(std::max(0, f.levels - 1))];
    if (f.levels == 0 && l.stride == f.run)
      f.run *= l.count;
    else if (f.levels > 0 && l.stride == inner.stride * inner.count)
      inner.count *= l.count;
    else
      f.at[static_cast<std::size_t>(f.levels++)] = l;
  }
  std::reverse(f.at.begin(), f.at.begin() + f.levels);
  return f;
}
template <class T>
footprint footprint_of(const view<T>& v) {
  return footprint_of_elements(
      v.data, {nullptr, v.rows, v.cols, v.row_stride, v.col_stride, v.batch, v.batch_stride, nullptr, 0}, sizeof(T));
}

class footprints_meet {
 public:
  footprints_meet(const footprint& a, const footprint& b) : a_(a), b_(b) {}
  bool answer() const { return !a_.empty() && !b_.empty() && meet(0, 0, b_.first - a_.first); }

 private:
  // Whether the parts of a and b meet that lie inside the levels from i and from j on, where a's part begins at byte 0
  // and b's at byte `by`.
  [[gnu::cold]] bool meet(int i, int j, std::int64_t by) const {
    if (by >= a_.span(i) || -by >= b_.span(j)) return false;
    if (i == a_.levels && j == b_.levels) return true;
    std::int64_t common = 0;  // distances of any two runs are equal modulo this number
    for (int k = i; k < a_.levels; ++k) common = std::gcd(common, a_.level_stride(k));
    for (int k = j; k < b_.levels; ++k) common = std::gcd(common, b_.level_stride(k));
    const std::int64_t apart = (by % common + common) % common;
    if (a_.run <= apart && apart + b_.run <= common) return false;

    const std::int64_t sa = i < a_.levels ? a_.level_stride(i) : 0, sb = j < b_.levels ? b_.level_stride(j) : 0;
    if (sa == sb)  // only the difference of the two indices matters
      return among(1 - a_.level_count(i), b_.level_count(j) - 1, sa, by, a_.span(i + 1), b_.span(j + 1),
                   [&](std::int64_t at) { return meet(i + 1, j + 1, at); });
    if (sa > sb)
      return among(1 - a_.level_count(i), 0, sa, by, a_.span(i + 1), b_.span(j),
                   [&](std::int64_t at) { return meet(i + 1, j, at); });
    return among(0, b_.level_count(j) - 1, sb, by, a_.span(i), b_.span(j + 1),
                 [&](std::int64_t at) { return meet(i, j + 1, at); });
  }
  // Whether f(by + k stride) holds for one of k = low .. high. Only such k are tried for which the spans of a and b
  // meet at that distance.
  template <class F>
  static bool among(std::int64_t low, std::int64_t high, std::int64_t stride, std::int64_t by, std::int64_t span_a,
                    std::int64_t span_b, F f) {
    low = std::max(low, (-by - span_b) / stride - 1), high = std::min(high, (span_a - by) / stride + 1);
    for (std::int64_t k = low; k <= high; ++k)
      if (f(by + k * stride)) return true;
    return false;
  }

  const footprint &a_, &b_;
};

inline bool overlap(const footprint& a, const footprint& b) { return footprints_meet(a, b).answer(); }
template <class T, class U>
bool overlap(const view<T>& a, const view<U>& b) {
  return overlap(footprint_of(a), footprint_of(b));
}

}  // namespace MATOPT_NAMESPACE::detail
