// step_plan: how the parameters of an optimizer step: in which buckets, and where in the backend's memory everything
// lies that the steps need. It is made anew when parameters come or go.
//
//   bucket    same-shape matrices with one rule, which step as one batch
//   state     the first allocation: the control words, and the state of all buckets
//   scratch   the second one: as much as the bucket that needs most
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <atomic>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "parameter_list.hpp"
#include "rule_group.hpp"

namespace MATOPT_NAMESPACE {

// Same-shape matrices that step as one batch; weights and gradients are reached through tables of base pointers.
template <class Backend, class Types>
struct bucket {
  struct member {
    std::size_t index;  // among all parameters, when the plan was made
    std::size_t view_number;
    index_t matrix, first_row;  // as in parameter: with view_number they say which one it is for good
    std::string name;
  };
  std::unique_ptr<bucket_rule<Backend, Types>> rule;
  std::size_t group;
  double lr_scale;
  std::optional<double> decay;  // in place of the rule's
  std::vector<member> members;
  std::size_t first = 0;  // index of its first matrix among all, in bucket order
  view<typename Types::weight> w;
  view<const typename Types::gradient> g, r;
  std::vector<placed_state> entries;
  step_numbers<typename Types::compute>* numbers = nullptr;
  index_t rank = 0, phase = 0;

  bool empty() const { return w.rows == 0 || w.cols == 0; }  // nothing runs for it
  bucket_shape shape() const { return {w.rows, w.cols, w.batch, !w.row_contiguous()}; }
};

// What lies in the backend's memory beside state. Of each matrix there is one of each, in bucket order.
template <class Types>
struct control_words {
  using C = typename Types::compute;
  step_numbers<C>* numbers = nullptr;  // one per bucket; behind them, uploaded with them:
  status_word* stop = nullptr;         // not zero: the gradient scale of this step is of no use
  status_word* flags = nullptr;        // of each matrix: its gradient in this step is not finite
  status_word* skip = nullptr;         // stop, or any of the flags
  status_word* left_out = nullptr;     // of each matrix: it takes no part in this step
  status_word* guards = nullptr;       // of each matrix: this step writes nothing of it
  status_word* bad = nullptr;          // of each matrix: flags, since the last poll
  status_word* skipped = nullptr;      // of each matrix: steps that all skipped, since the last poll
  C* norms = nullptr;                  // of each gradient, and behind them that of all together
  std::byte* tables = nullptr;         // addresses of weights, of gradients, and of reference gradients
};

template <class Backend, class Types>
class step_plan {
 public:
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using C = typename Types::compute;
  using parameters = parameter_list<W, G>;
  using groups = std::vector<std::unique_ptr<rule_group<Backend, Types>>>;

  std::vector<bucket<Backend, Types>> buckets;
  control_words<Types> control{};
  std::vector<index_t> ranks;      // of each bucket, in the step begun last
  std::vector<std::byte> numbers;  // what a step uploads: step_numbers of each bucket, and the word `stop`
  arena scratch{};
  std::uint64_t number = 0;  // unlike that of any other plan

  // Only the buckets: what the plan would allocate is known, and nothing is allocated.
  [[gnu::cold]] step_plan(Backend& backend, const parameters& all, const groups& by)
      : two_(std::any_of(by.begin(), by.end(), [](const auto& g) { return g->rule->needs_reference(); })),
        parameters_(all.size()),
        words_(std::max<std::size_t>(1, all.size())) {
    make_buckets(all, by);
    arena sizes;
    place(sizes);
    report_.state_bytes = sizes.peak;
    for (const auto& k : buckets)
      if (!k.empty()) report_.scratch_bytes = std::max(report_.scratch_bytes, k.rule->scratch(backend, k.shape()));
  }

  const memory_report& memory() const { return report_; }
  // Words of each kind that there is one of for each matrix.
  std::size_t words() const { return words_; }

  // The two allocations, with everything in its place. Weights are read where state begins with them.
  [[gnu::cold]] void allocate(Backend& backend, const parameters& all) {
    state_ = memory_of(backend, report_.state_bytes);
    scratch_ = memory_of(backend, report_.scratch_bytes);
    arena real{state_.data()};
    place(real);
    scratch = arena{scratch_.data()};
    upload_tables(backend, all);
    numbers.assign(buckets.size() * sizeof(step_numbers<C>) + sizeof(status_word), std::byte{});
    ranks.assign(buckets.size(), 0);
    for (auto& k : buckets) {
      if (k.empty()) continue;
      auto e = make_pass(backend, k, nullptr);
      k.rule->init(e, k.w);
    }
    number = next_number();
  }
  // Before the settings of a group's rule become those of `changed`: throws if its state would be another one, and sees
  // to it that the scratch is large enough. Verbs that still run may use what is given back of it: a backend takes
  // memory back in the order of its verbs.
  void make_room_for(Backend& backend, std::size_t group, const any_rule<Backend, Types>& changed, bool scales_gradient,
                     const std::string& name, const std::string& value) {
    std::size_t most = 0;
    for (const auto& k : buckets) {
      if (k.group != group || k.empty()) continue;
      const auto as_changed = changed.bind(k.decay, scales_gradient);
      arena counting;
      if (!same_state(k.entries, as_changed->place(counting, k.shape())))
        throw bad_value(name, value, "as it was when finalize() placed the state: this setting decides what is kept");
      most = std::max(most, as_changed->scratch(backend, k.shape()));
    }
    if (most <= report_.scratch_bytes) return;
    typename Backend::buffer larger = memory_of(backend, most);
    scratch_ = std::move(larger);
    scratch = arena{scratch_.data()};
    report_.scratch_bytes = most;
    number = next_number();
  }

  // These parameters take no part in steps from now on, all others do.
  void leave_out(Backend& backend, const std::vector<bool>& absent) {
    upload_words(backend, control.left_out, [&](std::size_t i) { return absent[i] ? 1U : 0U; });
    // Nobody writes what these would have found.
    upload_words(backend, control.flags, [](std::size_t) { return 0U; });
    const std::vector<C> no_norms(words_, C(0));
    backend.upload(control.norms, no_norms.data(), no_norms.size() * sizeof(C));
  }
  // Until the next step.
  void guard_all_but(Backend& backend, const std::vector<bool>& chosen) {
    upload_words(backend, control.guards, [&](std::size_t i) { return chosen[i] ? 0U : 1U; });
  }

  void upload_tables(Backend& backend, const parameters& all) {
    const std::size_t n = all.size();
    tables_.assign(tables_per_matrix() * n, nullptr);
    for (const auto& k : buckets)
      for (std::size_t i = 0; i < k.members.size(); ++i) {
        const auto& p = all[k.members[i].index];
        tables_[k.first + i] = p.w.data;
        tables_[n + k.first + i] = p.g.data;
        if (two_) tables_[2 * n + k.first + i] = p.r.data;
      }
    if (n > 0) backend.upload(control.tables, tables_.data(), tables_.size() * sizeof(void*));
  }

  // `guards`: of all matrices, in bucket order.
  pass<Backend, C> make_pass(Backend& backend, bucket<Backend, Types>& k, const status_word* guards) {
    return {backend,   scratch,   guards ? guards + k.first : nullptr,
            k.numbers, k.w.batch, k.rule->limits_rank() ? k.rank : all_directions,
            k.phase};
  }

 private:
  // What matrices of one bucket have in common.
  struct bucket_key {
    std::size_t group;
    index_t rows, cols, row_stride, col_stride, g_row_stride, g_col_stride, r_row_stride, r_col_stride;
    double lr_scale;
    std::optional<double> decay;
    auto operator<=>(const bucket_key&) const = default;
  };
  [[gnu::cold]] void make_buckets(const parameters& all, const groups& by) {
    std::map<bucket_key, std::size_t> open;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const parameter<W, G>& p = all[i];
      const optimizer_options& o = by[p.group]->options;
      const bucket_key k{p.group,        p.w.rows,       p.w.cols,       p.w.row_stride, p.w.col_stride, p.g.row_stride,
                         p.g.col_stride, p.r.row_stride, p.r.col_stride, p.lr_scale,     p.decay};
      const auto [at, is_new] = open.try_emplace(k, buckets.size());
      const bool full =
          !is_new && o.batch_limit > 0 && static_cast<index_t>(buckets[at->second].members.size()) == o.batch_limit;
      if (is_new || full) {
        at->second = buckets.size();
        buckets.push_back(
            {by[p.group]->rule->bind(p.decay, o.scales()), p.group, p.lr_scale, p.decay, {}, 0, p.w, p.g, p.r, {}});
      }
      buckets[at->second].members.push_back({i, p.view_number, p.matrix, p.first_row, p.name});
    }
    std::size_t first = 0;
    for (auto& k : buckets) {
      k.first = first;
      first += k.members.size();
      const auto of_table = [&](auto& v) {
        v.data = nullptr, v.batch = static_cast<index_t>(k.members.size()), v.batch_stride = 0;
      };
      of_table(k.w), of_table(k.g), of_table(k.r);
    }
  }

  static bool same_state(const std::vector<placed_state>& a, const std::vector<placed_state>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
      return x.name == y.name && x.type == y.type && x.rows == y.rows && x.cols == y.cols;
    });
  }
  template <class F>
  void upload_words(Backend& backend, status_word* to, F of_parameter) {
    std::vector<status_word> words(words_, 0);
    for (const auto& k : buckets)
      for (std::size_t i = 0; i < k.members.size(); ++i) words[k.first + i] = of_parameter(k.members[i].index);
    backend.upload(to, words.data(), words.size() * sizeof(status_word));
  }
  // Places control words and state in `memory`, or only counts.
  [[gnu::cold]] void place(arena& memory) {
    const std::size_t n = words_;
    const auto take = [&](std::size_t count) {
      return reinterpret_cast<status_word*>(memory.bytes(count * sizeof(status_word)));
    };
    std::byte* const at = memory.bytes(buckets.size() * sizeof(step_numbers<C>) + (1 + n) * sizeof(status_word));
    control.numbers = reinterpret_cast<step_numbers<C>*>(at);
    if (at) control.stop = reinterpret_cast<status_word*>(at + buckets.size() * sizeof(step_numbers<C>));
    if (at) control.flags = control.stop + 1;
    control.skip = take(1), control.left_out = take(n), control.guards = take(n);
    control.bad = take(2 * n), control.skipped = control.bad ? control.bad + n : nullptr;
    control.norms = reinterpret_cast<C*>(memory.bytes((n + 1) * sizeof(C)));
    control.tables = memory.bytes(tables_per_matrix() * n * sizeof(void*));
    report_.control = memory.top;
    report_.state.clear();
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      auto& k = buckets[i];
      k.entries = k.rule->place(memory, k.shape());
      for (const auto& e : k.entries) report_.add(e.slot, e.name, e.bytes);
      if (!memory.base) continue;
      const std::size_t matrices = buckets.back().first + buckets.back().members.size();
      k.numbers = control.numbers + i;
      k.w.table = reinterpret_cast<W* const*>(control.tables) + k.first;
      k.g.table = reinterpret_cast<const G* const*>(control.tables) + matrices + k.first;
      k.r.table = two_ ? k.g.table + matrices : k.g.table;
    }
  }
  static std::uint64_t next_number() {
    static std::atomic<std::uint64_t> plans{0};
    return ++plans;
  }
  std::size_t tables_per_matrix() const { return two_ ? 3 : 2; }

  [[gnu::cold]] typename Backend::buffer memory_of(Backend& backend, std::size_t bytes) const {
    const auto failed = [&](const std::string& why) {
      return out_of_memory(why + "; " + std::to_string(parameters_) + " parameters want, in bytes\n" + report_.table());
    };
    try {
      return backend.allocate(bytes);
    } catch (const std::bad_alloc&) {
      throw failed("out of memory: " + std::to_string(bytes) + " bytes asked for");
    } catch (const out_of_memory& e) {
      throw failed(e.why());
    }
  }

  memory_report report_{};
  bool two_;  // some rule estimates from two gradients
  std::size_t parameters_;
  std::size_t words_;  // one for each matrix, and at least one
  typename Backend::buffer state_{}, scratch_{};
  std::vector<const void*> tables_;
};

}  // namespace MATOPT_NAMESPACE
