// qk_clip: keeps attention logits from growing without bound, by scaling rows of the query and key weights after a
// step.
//
//   S_h                     the largest logit of query head h before the softmax, with its factor 1 / sqrt(d); the
//                           caller measures it
//   S                       the largest S_h of the heads that share a key, a group
//   gamma                   threshold / max(S, threshold), one number for each group
//   rows of head h in Wq    are multiplied by gamma^alpha, the last `rotary` ones of them by gamma
//   rows of group g in Wk   are multiplied by gamma^(1 - alpha)
//
// This is QK-clip of MuonClip, Kimi K2's Algorithm 1, lines 9 to 17 (arXiv 2507.20534), by transcriptions: the report
// itself was not read. The logits of a head are so scaled by gamma. A head at or below the threshold keeps its weights
// bit for bit, and so does one whose maximum is zero or negative. Momentum, V and O are not touched.
//
//   eigen_backend cpu;
//   qk_clip<eigen_backend> clip(cpu, {.heads = 8, .groups = 2, .head_dim = 64}, maxima);    maxima: 8 x 1, or 1 x 8
//   clip.add(wq, wk);            512 x n and 128 x n; further pairs, such as biases (n = 1), by further calls
//   opt.step(lr);  clip();  opt.resync();
//
// Maxima are those since the last call: over micro-batches, and over all ranks if the heads or the data are spread;
// they lie in the backend's memory, in the type that steps are computed in. Wk has groups x (head_dim - rotary) rows: a
// rotary part of the key that all heads share (MLA) is a matrix of its own and is left alone, and the query's rotary
// part then takes all of gamma. Rotary embedding of whole heads, without a shared part, has rotary = 0. resync() tells
// rules that keep something of a weight; master weights take the clipped rows from it and keep the others. They lose
// nothing if `add` is given the masters instead, and they reach the weights with the next step.
//
// A head whose maximum is not finite is left out of its group, and counted: skipped(), which waits. A call runs verbs
// only: it allocates nothing, does not wait, and can be recorded in a CUDA graph. Errors: bad_value for an illegal
// setting, and for views whose shape does not fit the heads or that the backend cannot reach. Memory: a few numbers per
// head, allocated by the constructor. Where queries and keys are normalised (QK norm) the clip has no effect.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/check_view.hpp"
#include "core/functors.hpp"
#include "core/limits.hpp"
#include "core/pass.hpp"
#include "core/settings.hpp"

namespace MATOPT_NAMESPACE {

namespace fn {
// y = x, or 0 if that is not finite; `bad` counts those
struct take_maximum {
  template <class T>
  MATOPT_HD void operator()(T& y, T& bad, T x) const {
    const T lost = math::one_if_beyond(x, std::numeric_limits<T>::max());
    bad += lost;
    y = lost > T(0) ? T(0) : math::max(x, T(0));
  }
};
// The factors of the rows of queries, of their rotary part and of keys. Exactly 1 up to the threshold.
struct clip_factors {
  double threshold, alpha;
  template <class T>
  MATOPT_HD void operator()(T& query, T& rotary, T& key, T s) const {
    const T gamma = T(threshold) / math::max(s, T(threshold));  // Kimi K2, Alg. 1, lines 9 to 17
    query = math::pow(gamma, T(alpha)), rotary = gamma, key = math::pow(gamma, T(1 - alpha));
  }
};
}  // namespace fn

struct attention_heads {
  index_t heads = 0;     // of queries
  index_t groups = 0;    // heads that share a key lie side by side; 0: each has its own
  index_t head_dim = 0;  // rows of a head in Wq
  index_t rotary = 0;    // of these, the last ones, whose keys all heads share
  double threshold = 100, alpha = 0.5;

  static std::string name() { return "attention_heads"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("heads", self.heads, range{.low = 1});
    visit("groups", self.groups, range{.low = 0});
    visit("head_dim", self.head_dim, range{.low = 1});
    visit("rotary", self.rotary, range{.low = 0});
    visit("threshold", self.threshold, range{.low = 0, .low_open = true});
    visit("alpha", self.alpha, range{.low = 0, .high = 1});
  }
  void validate() const {
    if (groups > 0 && heads % groups != 0)
      throw bad_value("groups", detail::text(groups), "a divisor of heads, " + detail::text(heads));
    if (rotary >= head_dim)
      throw bad_value("rotary", detail::text(rotary), "below head_dim, " + detail::text(head_dim));
  }
};

template <class Backend, class T = float>
class qk_clip {
  using C = arithmetic_t<T>;

 public:
  qk_clip(Backend& backend, attention_heads of, view<const C> maxima)
      : backend_(&backend), of_(of), maxima_(maxima.cols == 1 ? maxima : maxima.t()) {
    validate_settings(of_);
    validate_settings_in<C>(of_);
    of_.validate();
    if (of_.groups == 0) of_.groups = of_.heads;
    check("maxima", maxima_, true);
    if (maxima_.rows != of_.heads || maxima_.cols != 1 || maxima_.batch != 1)
      throw bad_value("maxima", detail::text(maxima), "one number for each of " + detail::text(of_.heads) + " heads");
    const index_t numbers = 4 * of_.heads + 2 * of_.groups;
    memory_ = backend_->allocate(static_cast<std::size_t>(numbers) * sizeof(C));
    C* next = reinterpret_cast<C*>(memory_.data());
    const auto take = [&](index_t count) { return row_major(std::exchange(next, next + count), count, 1); };
    found_ = take(of_.heads), bad_ = take(of_.heads), query_ = take(of_.heads), rotary_ = take(of_.heads);
    largest_ = take(of_.groups), key_ = take(of_.groups);
    backend_->for_each(nullptr, fn::set_zero{}, bad_);
  }

  // The weights of queries, heads * head_dim x n, and of keys, groups * (head_dim - rotary) x n'; any strides.
  void add(view<T> query, view<T> key) {
    check("query", query), check("key", key);
    const auto require = [](const char* what, const view<T>& v, index_t rows, const std::string& made_of) {
      if (v.rows != rows || v.batch != 1)
        throw bad_value(what, detail::text(v), "a matrix of " + made_of + ", " + std::to_string(rows) + " rows");
    };
    const index_t kept = of_.head_dim - of_.rotary;
    require("query", query, detail::product(of_.heads, of_.head_dim), "heads * head_dim");
    require("key", key, detail::product(of_.groups, kept), "groups * (head_dim - rotary)");
    const auto apart = [](const char* what, const view<T>& v, const char* from, const view<T>& other) {
      if (detail::overlap(v, other)) throw bad_value(what, std::string("in memory of ") + from, "in memory of its own");
    };
    apart("key", key, "the query", query);
    for (const pair& p : pairs_)
      for (const view<T>& other : {p.query, p.rotary, p.key})
        apart("query", query, "an earlier pair", other), apart("key", key, "an earlier pair", other);
    const view<T> heads = split(query, of_.heads);
    pairs_.push_back({heads.row_block(0, kept), heads.row_block(kept, of_.rotary), split(key, of_.groups)});
  }

  // Scales what has to be scaled; to be called after the step, with the maxima since the last call.
  void operator()() {
    Backend& b = *backend_;
    b.for_each(nullptr, fn::take_maximum{}, found_, bad_, maxima_);
    b.reduce_rows(nullptr, fn::abs_max{}, largest_, as_const(in_groups(found_)));
    // Each head has the factors of its group.
    b.for_each(nullptr, fn::assign{}, in_groups(found_), per_row(as_const(largest_)));
    b.for_each(nullptr, fn::clip_factors{of_.threshold, of_.alpha}, query_, rotary_, found_, as_const(found_));
    b.for_each(nullptr, fn::assign{}, key_, as_const(in_groups(found_).col_block(0, 1)));
    for (const pair& p : pairs_) {
      b.for_each(nullptr, fn::multiply{}, p.query, per_matrix(each(query_)));
      if (of_.rotary > 0) b.for_each(nullptr, fn::multiply{}, p.rotary, per_matrix(each(rotary_)));
      b.for_each(nullptr, fn::multiply{}, p.key, per_matrix(each(key_)));
    }
  }

  // How many maxima were not finite, over all calls. Waits.
  index_t skipped() const {
    std::vector<C> counts(static_cast<std::size_t>(of_.heads));
    backend_->download(counts.data(), bad_.data, counts.size() * sizeof(C));
    double sum = 0;
    for (const C n : counts) sum += static_cast<double>(n);
    return static_cast<index_t>(sum);
  }
  // By what the last call scaled the logits of each head: heads x 1, in the backend's memory.
  view<const C> factors() const { return rotary_; }
  const attention_heads& heads() const { return of_; }

 private:
  struct pair {
    view<T> query, rotary, key;
  };
  // Blocks of rows as a batch.
  static view<T> split(view<T> w, index_t blocks) {
    w.rows /= blocks, w.batch = blocks, w.batch_stride = w.rows * w.row_stride;
    return w;
  }
  // Numbers of heads as a matrix with a row for each group; and numbers as a batch.
  view<C> in_groups(view<C> v) const { return row_major(v.data, of_.groups, of_.heads / of_.groups); }
  static view<const C> each(view<C> v) { return as_const(row_major(v.data, 1, 1, v.rows)); }
  template <class V>
  void check(const std::string& what, const view<V>& v, bool read = false) const {
    if constexpr (requires { backend_->require_memory(what, v.data); })
      if (v.data && !detail::no_elements(v)) backend_->require_memory(what, v.data);
    detail::check_view(what, v, read);
  }

  Backend* backend_;
  attention_heads of_;
  view<const C> maxima_;
  typename Backend::buffer memory_{};
  view<C> found_{}, bad_{}, query_{}, rotary_{}, largest_{}, key_{};
  std::vector<pair> pairs_{};
};

}  // namespace MATOPT_NAMESPACE
