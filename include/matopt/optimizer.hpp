// optimizer<Rule, Backend, Types>: applies a rule to the caller's matrices, on a backend.
//
//   optimizer<muon, eigen_backend> opt(backend);
//   opt.add("name", weight_view, gradient_view);       any number; same-shape matrices step together as one bucket
//   opt.memory();                                      what finalize() will allocate
//   opt.finalize();                                    allocates twice: state and scratch
//   opt.step(lr);                                      = begin_step(lr), which hands the step's numbers over, and
//   enqueue()
//
// A rule that estimates from two gradients takes add("name", weight_view, gradient_view, reference_view): before each
// step the caller also fills in the second one, for example the gradient of the same batch at the weights before the
// last step. That of the first step is not used, but must be finite.
//
// Rows are fan-out, columns fan-in. Weights and gradients stay where they are, in the backend's memory, and must
// outlive the optimizer; gradients are never written. A step allocates nothing, waits for nothing and reads nothing
// back. If a gradient holds NaN or infinity, that step leaves every weight and all state untouched; poll_status()
// tells. Not thread-safe. Errors derive from matopt::error; after one, the optimizer is as before the call.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/check_view.hpp"
#include "core/overlap.hpp"
#include "plan.hpp"
#include "rule.hpp"

namespace matopt {

// What may differ from parameter to parameter.
struct parameter_options {
  double lr_scale = 1;                // factor of the learning rate
  std::optional<double> decay{};      // replaces the rule's decay
  std::vector<index_t> row_blocks{};  // splits the rows (fused QKV, heads): each block is a matrix of its own
};

enum class on_nonfinite { skip_step, ignore };

struct optimizer_options {
  on_nonfinite nonfinite = on_nonfinite::skip_step;
  index_t batch_limit = 0;  // most matrices that step at once; bounds the scratch, 0 = the whole bucket
};

struct step_status {
  index_t skipped = 0;                  // steps skipped since the last poll
  std::vector<std::string> parameters;  // whose gradients were not finite in them
  explicit operator bool() const { return skipped == 0; }
};

// One tensor of state of one parameter, in the backend's memory.
struct state_tensor {
  std::string name;
  element_type type;
  void* data;
  index_t rows, cols, row_stride, col_stride;
};

template <class Rule, class Backend, class Types = types<float>>
requires rule_for<Rule, Backend, Types>
class optimizer {
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using C = typename Types::compute;
  static constexpr bool two_gradients = needs_reference<typename Rule::momentum_type>;
  static constexpr std::size_t tables_per_matrix = two_gradients ? 3 : 2;

 public:
  using rule_type = Rule;
  using backend_type = Backend;
  using element_types = Types;

  explicit optimizer(Backend& backend, Rule rule = {}, optimizer_options options = {})
      : backend_(&backend), rule_(std::move(rule)), options_(options) {
    rule_.validate();
    if (options_.batch_limit < 0)
      throw bad_value("batch_limit", std::to_string(options_.batch_limit), ">= 0 (0: no limit)");
  }

  // Adds a matrix, or each matrix of a batch of stacked ones ("name.0", "name.1", ...), or each of its row blocks.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           const parameter_options& o = {}) requires(!two_gradients) {
    add_views(name, w, g, g, o);
  }
  void add(view<W> w, view<const std::type_identity_t<G>> g, const parameter_options& o = {}) requires(!two_gradients) {
    add(next_name(), w, g, o);
  }
  // The same for a rule that needs a reference gradient.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           view<const std::type_identity_t<G>> reference, const parameter_options& o = {}) requires two_gradients {
    add_views(name, w, g, reference, o);
  }
  void add(view<W> w, view<const std::type_identity_t<G>> g, view<const std::type_identity_t<G>> reference,
           const parameter_options& o = {}) requires two_gradients {
    add(next_name(), w, g, reference, o);
  }

  // What finalize() allocates, to the byte.
  memory_report memory() const {
    memory_report report;
    std::vector<bucket> buckets = make_buckets();
    arena sizes;
    place(buckets, sizes, report);
    report.scratch_bytes = scratch_bytes(buckets);
    return report;
  }

  void finalize() {
    if (finalized_) throw bad_order("finalize() called twice");
    if (parameters_.empty()) throw bad_order("finalize() before any add()");
    std::vector<bucket> buckets = make_buckets();
    memory_report report;
    arena sizes;
    place(buckets, sizes, report);
    typename Backend::buffer state = backend_->allocate(sizes.peak);
    typename Backend::buffer scratch = backend_->allocate(scratch_bytes(buckets));
    arena real{state.data()};
    report = {};
    control_ = place(buckets, real, report);
    state_ = std::move(state), scratch_ = std::move(scratch);
    buckets_ = std::move(buckets);
    scratch_arena_ = arena{scratch_.data()};
    upload_tables();
    for (auto& k : buckets_) {
      auto e = make_pass(k, nullptr);
      k.rule.init(e, k.state, k.w);
    }
    finalized_ = true;
  }

  void step(double lr) {
    begin_step(lr);
    enqueue();
  }

  // Hands this step's numbers over to the backend: rates, step number, rank. One copy.
  void begin_step(double lr) {
    require_finalized("begin_step()");
    if (!std::isfinite(lr) || lr < 0) throw bad_value("lr", detail::text(lr), detail::text(range{.low = 0}));
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      bucket& k = buckets_[i];
      const index_t q = std::min(k.w.rows, k.w.cols);
      double budget = static_cast<double>(q);
      if constexpr (limits_rank<typename Rule::constraint_type>) budget = k.rule.constraint.rank_budget(steps_, q);
      k.rank = std::clamp<index_t>(static_cast<index_t>(std::ceil(budget - 1e-9)), 1, q);
      numbers_[i] = {.lr = static_cast<C>(lr * k.lr_scale),
                     .step = static_cast<C>(steps_ + 1),
                     .tail = static_cast<C>(std::min(1.0, budget - static_cast<double>(k.rank - 1))),
                     .counter = static_cast<std::uint32_t>(steps_ + 1)};
    }
    backend_->upload(control_.numbers, numbers_.data(), numbers_.size() * sizeof(step_numbers<C>));
    ++steps_;
  }

  // The step itself: verbs of the backend only, the same ones each time as long as ranks() is unchanged.
  void enqueue() {
    enqueue_check();
    enqueue_update();
  }

  // The two halves of enqueue(), for several optimizers that must skip a step together. The first returns a word in the
  // backend's memory that is not zero if a gradient is not finite; the second changes nothing if the word is not zero
  // by then.
  view<status_word> enqueue_check() {
    require_finalized("enqueue()");
    if (options_.nonfinite == on_nonfinite::skip_step) check_gradients();
    return row_major(control_.skip, 1, 1);
  }
  void enqueue_update() {
    require_finalized("enqueue()");
    const view<const status_word> skip = row_major(control_.skip, 1, 1);
    backend_->for_each(nullptr, fn::add{}, row_major(control_.skipped, 1, 1), skip);
    for (auto& k : buckets_) {
      auto e = make_pass(k, skip.data);
      k.rule.step(e, k.state, k.w, k.g, k.r);
    }
  }

  // The rank of each bucket in the step begun last; a change asks for a new recording of enqueue().
  std::vector<index_t> ranks() const {
    std::vector<index_t> out;
    for (const auto& k : buckets_) out.push_back(k.rank);
    return out;
  }

  // Waits, and tells which steps were skipped since the last poll, and why.
  step_status poll_status() {
    require_finalized("poll_status()");
    step_status status;
    std::vector<status_word> words(1 + parameters_.size());
    backend_->download(words.data(), control_.skipped, words.size() * sizeof(status_word));
    status.skipped = static_cast<index_t>(words[0]);
    for (const auto& k : buckets_)
      for (std::size_t i = 0; i < k.members.size(); ++i)
        if (words[1 + k.first + i]) status.parameters.push_back(parameters_[k.members[i]].name);
    const std::vector<status_word> zeros(words.size(), 0);
    backend_->upload(control_.skipped, zeros.data(), zeros.size() * sizeof(status_word));
    return status;
  }

  // The gradient of the parameter that was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, view<const std::type_identity_t<G>> g) { rebind(name, g, &parameter::g); }
  void rebind_reference(const std::string& name, view<const std::type_identity_t<G>> r) requires two_gradients {
    rebind(name, r, &parameter::r);
  }

  // --- state, for checkpoints ---
  std::vector<state_tensor> state_tensors() const {
    require_finalized("state_tensors()");
    std::vector<state_tensor> out;
    for (const auto& k : buckets_)
      for (const auto& entry : k.entries)
        for (std::size_t b = 0; b < k.members.size(); ++b)
          out.push_back({parameters_[k.members[b]].name + "." + entry.name, entry.type,
                         static_cast<std::byte*>(entry.data) +
                             b * static_cast<std::size_t>(entry.batch_stride) * size_of(entry.type),
                         entry.rows, entry.cols, entry.row_stride, entry.col_stride});
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return out;
  }
  // One tensor of state to or from host memory, dense and row-major, bit for bit. They wait.
  void read_state(const state_tensor& t, void* host) const {
    std::vector<std::byte> stored(bytes_of(t));
    backend_->download(stored.data(), t.data, stored.size());
    copy_elements(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
      std::memcpy(static_cast<std::byte*>(host) + dense, stored.data() + at, size);
    });
  }
  void write_state(const state_tensor& t, const void* host) {
    std::vector<std::byte> stored(bytes_of(t));
    copy_elements(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
      std::memcpy(stored.data() + at, static_cast<const std::byte*>(host) + dense, size);
    });
    backend_->upload(t.data, stored.data(), stored.size());
  }
  std::string signature() const { return Rule::name(); }
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    if (steps < 0) throw bad_value("steps", std::to_string(steps), ">= 0");
    steps_ = steps;
  }

  const Rule& rule() const { return rule_; }
  Backend& backend() const { return *backend_; }
  index_t size() const { return static_cast<index_t>(parameters_.size()); }
  index_t bucket_count() const { return static_cast<index_t>(finalized_ ? buckets_.size() : make_buckets().size()); }

 private:
  struct parameter {
    std::string name, added_as;
    index_t matrix, first_row;        // which part of the view it was added with
    index_t added_rows, added_batch;  // the extent of that view
    view<W> w;
    view<const G> g, r;  // r: the reference gradient; g where there is none
    double lr_scale;
    std::optional<double> decay;
  };

  // Same-shape matrices that step as one batch; weights and gradients are reached through tables of base pointers.
  struct bucket {
    Rule rule;
    double lr_scale;
    std::vector<std::size_t> members;
    std::size_t first = 0;  // index of its first matrix among all, in bucket order
    view<W> w;
    view<const G> g, r;
    typename Rule::template state<Types> state{};
    std::vector<state_entry> entries;
    step_numbers<C>* numbers = nullptr;
    index_t rank = 0;
  };

  struct control_words {
    status_word* skip = nullptr;     // not zero: this step writes nothing
    status_word* skipped = nullptr;  // count since the last poll, and behind it one flag per matrix since the last poll
    status_word* flags = nullptr;    // this step: one per matrix
    step_numbers<C>* numbers = nullptr;
    std::byte* tables = nullptr;
  };

  // Without a reference gradient r is g.
  void add_views(const std::string& name, view<W> w, view<const G> g, view<const G> r, const parameter_options& o) {
    if (finalized_) throw bad_order("add(\"" + name + "\") after finalize()");
    check_pair(name, w, g, "gradient");
    if constexpr (two_gradients) check_pair(name, w, r, "reference gradient");
    check_options(name, w, o);
    std::vector<parameter> fresh;
    for (index_t b = 0; b < w.batch; ++b) {
      const std::string matrix_name = w.batch > 1 ? name + "." + std::to_string(b) : name;
      index_t first = 0;
      const std::vector<index_t> blocks = o.row_blocks.empty() ? std::vector<index_t>{w.rows} : o.row_blocks;
      for (std::size_t i = 0; i < blocks.size(); first += blocks[i++])
        fresh.push_back({blocks.size() > 1 ? matrix_name + "." + std::to_string(i) : matrix_name, name, b, first,
                         w.rows, w.batch, w.matrix(b).row_block(first, blocks[i]),
                         g.matrix(b).row_block(first, blocks[i]), r.matrix(b).row_block(first, blocks[i]), o.lr_scale,
                         o.decay});
    }
    check_name(name);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      for (const auto& p : parameters_) check_free(fresh[i], p);
      for (std::size_t j = 0; j < i; ++j) check_free(fresh[i], fresh[j]);
      check_own(fresh[i]);
    }
    parameters_.insert(parameters_.end(), fresh.begin(), fresh.end());
  }
  std::string next_name() const { return "parameter." + std::to_string(parameters_.size()); }

  void rebind(const std::string& name, view<const G> g, view<const G> parameter::*which) {
    std::vector<std::pair<parameter*, view<const G>>> moved;
    for (auto& p : parameters_) {
      if (p.added_as != name) continue;
      if (!g.data || g.table || g.batch != p.added_batch || g.rows != p.added_rows || g.cols != p.g.cols ||
          g.row_stride != (p.*which).row_stride || g.col_stride != (p.*which).col_stride)
        throw bad_value("gradient of \"" + name + "\"", detail::text(g), "a view like the one it was added with");
      for (const auto& other : parameters_)
        if (detail::overlap(other.w, g.matrix(p.matrix).row_block(p.first_row, p.g.rows)))
          throw bad_value("gradient of \"" + name + "\"", "memory shared with the weight of \"" + other.name + '"',
                          "memory of its own");
      moved.emplace_back(&p, g.matrix(p.matrix).row_block(p.first_row, p.g.rows));
    }
    if (moved.empty()) throw unknown_parameter(name);
    for (auto& [p, to] : moved) p->*which = to;
    if (finalized_) upload_tables();
  }

  std::vector<bucket> make_buckets() const {
    using key = std::tuple<index_t, index_t, index_t, index_t, index_t, index_t, index_t, index_t, double,
                           std::optional<double>>;
    std::vector<bucket> out;
    std::map<key, std::size_t> open;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const parameter& p = parameters_[i];
      const key k{p.w.rows,       p.w.cols,       p.w.row_stride, p.w.col_stride, p.g.row_stride,
                  p.g.col_stride, p.r.row_stride, p.r.col_stride, p.lr_scale,     p.decay};
      const auto [at, is_new] = open.try_emplace(k, out.size());
      const bool full = !is_new && options_.batch_limit > 0 &&
                        static_cast<index_t>(out[at->second].members.size()) == options_.batch_limit;
      if (is_new || full) {
        at->second = out.size();
        out.push_back({rule_, p.lr_scale, {}, 0, p.w, p.g, p.r, {}, {}, nullptr, 0});
        if (p.decay) set_decay(out.back().rule, *p.decay);
      }
      out[at->second].members.push_back(i);
    }
    std::size_t first = 0;
    for (auto& k : out) {
      k.first = first;
      first += k.members.size();
      const index_t count = static_cast<index_t>(k.members.size());
      k.w.data = nullptr, k.w.batch = count, k.w.batch_stride = 0;
      k.g.data = nullptr, k.g.batch = count, k.g.batch_stride = 0;
      k.r.data = nullptr, k.r.batch = count, k.r.batch_stride = 0;
    }
    return out;
  }

  // Places control words and state in `memory` (or only counts).
  control_words place(std::vector<bucket>& buckets, arena& memory, memory_report& report) const {
    using S = typename Types::state;
    const std::size_t n = parameters_.size();
    control_words c;
    c.skip = reinterpret_cast<status_word*>(memory.bytes(sizeof(status_word)));
    c.skipped = reinterpret_cast<status_word*>(memory.bytes((1 + n) * sizeof(status_word)));
    c.flags = reinterpret_cast<status_word*>(memory.bytes(n * sizeof(status_word)));
    c.numbers = reinterpret_cast<step_numbers<C>*>(memory.bytes(buckets.size() * sizeof(step_numbers<C>)));
    c.tables = memory.bytes(tables_per_matrix * n * sizeof(void*));
    report.control = memory.top;
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      bucket& k = buckets[i];
      k.entries.clear();
      k.rule.each_state(k.state, [&](std::string_view slot, const auto& policy, auto& own) {
        state_layout<S, C> layout(memory, k.w.rows, k.w.cols, k.w.batch, !k.w.row_contiguous());
        lay_out(policy, layout, own);
        for (const auto& e : layout.entries()) {
          add_line(report, slot, e);
          k.entries.push_back(e);
        }
      });
      if (memory.base) {
        k.numbers = c.numbers + i;
        k.w.table = reinterpret_cast<W* const*>(c.tables) + k.first;
        k.g.table = reinterpret_cast<const G* const*>(c.tables + n * sizeof(void*)) + k.first;
        k.r.table = two_gradients ? k.g.table + n : k.g.table;
      }
    }
    report.state_bytes = memory.peak;
    return c;
  }
  static void add_line(memory_report& report, std::string_view slot, const state_entry& e) {
    const auto same = std::find_if(report.state.begin(), report.state.end(),
                                   [&](const auto& l) { return l.slot == slot && l.what == e.name; });
    if (same != report.state.end())
      same->bytes += e.bytes;
    else
      report.state.push_back({std::string(slot), e.name, e.bytes});
  }

  std::size_t scratch_bytes(const std::vector<bucket>& buckets) const {
    std::size_t most = 0;
    for (const auto& k : buckets)
      most =
          std::max(most, plan_scratch<Types>(k.rule, *backend_, k.w.rows, k.w.cols, k.w.batch, !k.w.row_contiguous()));
    return most;
  }

  pass<Backend, C> make_pass(bucket& k, const status_word* guard) {
    return {*backend_, scratch_arena_, guard, k.numbers, k.w.batch, k.rank};
  }

  // skip = 1 if any gradient is not finite; remembers for poll_status() which.
  void check_gradients() {
    const index_t n = static_cast<index_t>(parameters_.size());
    for (const auto& k : buckets_) {
      const view<status_word> flag{control_.flags + k.first, 1, 1, 1, 1, k.w.batch, 1};
      if constexpr (two_gradients)
        backend_->reduce(nullptr, fn::not_both_finite{}, flag, k.g, k.r);
      else
        backend_->reduce(nullptr, fn::not_finite{}, flag, k.g);
    }
    const view<const status_word> flags = row_major<const status_word>(control_.flags, 1, n);
    const view<status_word> skip = row_major(control_.skip, 1, 1);
    backend_->reduce(nullptr, fn::any{}, skip, flags);
    backend_->for_each(nullptr, fn::raise{}, row_major(control_.skipped + 1, 1, n), flags);
  }

  void upload_tables() {
    const std::size_t n = parameters_.size();
    tables_.assign(tables_per_matrix * n, nullptr);
    for (const auto& k : buckets_)
      for (std::size_t i = 0; i < k.members.size(); ++i) {
        tables_[k.first + i] = parameters_[k.members[i]].w.data;
        tables_[n + k.first + i] = parameters_[k.members[i]].g.data;
        if constexpr (two_gradients) tables_[2 * n + k.first + i] = parameters_[k.members[i]].r.data;
      }
    backend_->upload(control_.tables, tables_.data(), tables_.size() * sizeof(void*));
    numbers_.assign(buckets_.size(), {});
  }

  static std::size_t bytes_of(const state_tensor& t) {
    return static_cast<std::size_t>(t.rows * t.cols) * size_of(t.type);
  }
  template <class Copy>
  static void copy_elements(const state_tensor& t, Copy copy) {
    const std::size_t size = size_of(t.type);
    for (index_t i = 0; i < t.rows; ++i)
      for (index_t j = 0; j < t.cols; ++j)
        copy(static_cast<std::size_t>(i * t.cols + j) * size,
             static_cast<std::size_t>(i * t.row_stride + j * t.col_stride) * size, size);
  }

  static void set_decay(Rule& rule, double decay) {
    Rule::settings(rule, [&](std::string_view name, auto& field, range = {}) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, double>)
        if (name == "decay") field = decay;
    });
  }

  // --- checks ---
  void require_finalized(const char* call) const {
    if (!finalized_) throw bad_order(std::string(call) + " before finalize()");
  }
  void check_pair(const std::string& name, const view<W>& w, const view<const G>& g, const char* kind) const {
    const std::string weight = "weight of \"" + name + "\"", gradient = std::string(kind) + " of \"" + name + "\"";
    detail::check_view(weight, w);
    detail::check_view(gradient, g);
    if (w.rows != g.rows || w.cols != g.cols || w.batch != g.batch)
      throw bad_value(gradient, detail::text(g), "the shape of its weight, " + detail::text(w));
    if constexpr (requires { backend_->require_memory(name, static_cast<const void*>(w.data)); }) {
      backend_->require_memory(weight, static_cast<const void*>(w.data));
      backend_->require_memory(gradient, static_cast<const void*>(g.data));
    }
  }
  void check_options(const std::string& name, const view<W>& w, const parameter_options& o) const {
    const auto legal = range{.low = 0};
    if (!legal.contains(o.lr_scale))
      throw bad_value("lr_scale of \"" + name + "\"", detail::text(o.lr_scale), detail::text(legal));
    if (o.decay) {
      if (!legal.contains(*o.decay))
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), detail::text(legal));
      Rule probe = rule_;
      set_decay(probe, *o.decay);
      bool has_decay = false;
      Rule::settings(probe, [&](std::string_view key, const auto&, range = {}) { has_decay |= key == "decay"; });
      if (!has_decay)
        throw bad_value("decay of \"" + name + "\"", detail::text(*o.decay), "not set: this rule has no decay");
    }
    index_t sum = 0;
    for (const index_t rows : o.row_blocks) {
      if (rows < 1) throw bad_value("row_blocks of \"" + name + "\"", std::to_string(rows), ">= 1 each");
      sum += rows;
    }
    if (!o.row_blocks.empty() && sum != w.rows)
      throw bad_value("row_blocks of \"" + name + "\"", "a sum of " + std::to_string(sum),
                      std::to_string(w.rows) + ", the rows of the weight");
  }
  void check_name(const std::string& name) const {
    for (const auto& p : parameters_)
      if (p.added_as == name) throw bad_value("parameter name", '"' + name + '"', "a name not used before");
  }
  static void check_own(const parameter& p) {
    const auto refuse = [&](const char* what, const char* with) {
      throw bad_value(what + (" of \"" + p.name + '"'), std::string("memory shared with its ") + with,
                      "memory of its own");
    };
    if (detail::overlap(p.w, p.g)) refuse("gradient", "weight");
    if (!two_gradients) return;
    if (detail::overlap(p.w, p.r)) refuse("reference gradient", "weight");
    if (detail::overlap(p.g, p.r)) refuse("reference gradient", "gradient");
  }
  static void check_free(const parameter& fresh, const parameter& p) {
    if (p.name == fresh.name) throw bad_value("parameter name", '"' + fresh.name + '"', "a name not used before");
    const auto meets = [&](const auto& v) {
      return detail::overlap(p.w, v) || detail::overlap(p.g, v) || detail::overlap(p.r, v);
    };
    if (meets(fresh.w) || meets(fresh.g) || meets(fresh.r))
      throw bad_value("memory of \"" + fresh.name + "\"", "shared with \"" + p.name + '"', "memory of its own");
  }
  error unknown_parameter(const std::string& name) const {
    std::vector<std::string> known;
    for (const auto& p : parameters_) known.push_back(p.added_as);
    return error("no parameter \"" + name + "\"; nearest: \"" + nearest_name(name, known) + '"');
  }

  Backend* backend_;
  Rule rule_;
  optimizer_options options_;
  std::vector<parameter> parameters_;
  std::vector<bucket> buckets_;
  typename Backend::buffer state_{}, scratch_{};
  arena scratch_arena_{};
  control_words control_{};
  std::vector<step_numbers<C>> numbers_;
  std::vector<const void*> tables_;
  index_t steps_ = 0;
  bool finalized_ = false;
};

}  // namespace matopt
