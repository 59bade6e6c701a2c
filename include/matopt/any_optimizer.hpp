// any_optimizer: applies a rule, chosen at run time, to the caller's matrices on a backend. optimizer<Rule> is the same
// with the rule in its type.
//
//   any_optimizer<eigen_backend> opt(backend, muon{.momentum = {.beta = 0.9}});
//   opt.add("name", weight_view, gradient_view);       any number; same-shape matrices step together as one bucket
//   opt.memory();                                      what finalize() will allocate
//   opt.finalize();                                    allocates twice: state and scratch; release() undoes it
//   opt.step(lr);                                      = begin_step(lr), which hands the step's numbers over, and
//                                                        enqueue()
//   opt.step(lr, gradient_scale);                      the same for gradients times a factor: one over the number of
//                                                        accumulated batches, one over a loss scale, a clipping factor
//
// A rule that estimates from two gradients takes add("name", weight_view, gradient_view, reference_view): before each
// step the caller also fills in the second one, for example the gradient of the same batch at the weights before the
// last step. That of the first step is not used, but must be finite.
//
// With options.scales_gradient every step multiplies the gradients (and reference gradients) by its gradient_scale; the
// rule sees these, and whether a gradient is finite is decided by them. A rule that begins with an elementwise formula
// multiplies there; for others the product goes into scratch of the compute type. Without the option gradient_scale is
// 1. It is one of the numbers of the step: a recorded step is replayed with a new one. A scale of 0, NaN or infinity,
// which clipping makes of an infinite norm, skips the step, whatever options.nonfinite says; a negative one is an
// error.
//
// Rows are fan-out, columns fan-in. Weights and gradients stay where they are, in the backend's memory, and must
// outlive the optimizer; gradients are never written. If their owner may move them (a move assignment swaps storage),
// call rebind() then, and check_bound() in debug builds. A view without elements, the empty shard of a matrix, is taken
// and nothing happens to it; a gradient may repeat elements by strides of 0. A step allocates nothing, waits for
// nothing and reads nothing back; what the rule costs at run time is one virtual call per bucket. If a gradient holds
// NaN or infinity, that step leaves every weight and all state untouched; poll_status() tells. A finite entry beyond
// largest_input (limits.hpp; 2e31 in float) counts as infinity: sums and squares of such numbers are not finite. Not
// thread-safe. Errors derive from matopt::error; after one, the optimizer is as before the call.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bucket.hpp"
#include "core/limits.hpp"
#include "core/optimizer_options.hpp"
#include "core/state_tensor.hpp"
#include "parameter_list.hpp"

namespace matopt {

template <class Backend, class Types = types<float>>
class any_optimizer {
  using W = typename Types::weight;
  using G = typename Types::gradient;
  using C = typename Types::compute;
  using parameters = parameter_list<W, G>;
  using narrowest = std::conditional_t<detail::all_double<W, C>, double, float>;  // a rate moves weights

 public:
  using backend_type = Backend;
  using element_types = Types;

  template <class Rule>
  requires rule_for<Rule, Backend, Types> any_optimizer(Backend& backend, Rule rule, optimizer_options options = {})
      : backend_(&backend),
        rule_(std::make_unique<typed_rule<Rule, Backend, Types>>(std::move(rule))),
        options_(options) {
    if (options_.batch_limit < 0)
      throw bad_value("batch_limit", std::to_string(options_.batch_limit), ">= 0 (0: no limit)");
  }

  // Adds a matrix, or each matrix of a batch of stacked ones ("name.0", "name.1", ...), or each of its row blocks.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g, const parameter_options& o = {}) {
    if (needs_reference())
      throw bad_value("reference gradient of \"" + name + '"', "missing", "given: this rule estimates from two");
    add(name, w, g, g, o);
  }
  void add(view<W> w, view<const std::type_identity_t<G>> g, const parameter_options& o = {}) {
    std::size_t number = parameters_.size();  // stacks of no matrix leave it as it was
    while (parameters_.knows("parameter." + std::to_string(number))) ++number;
    add("parameter." + std::to_string(number), w, g, o);
  }
  // The same with a reference gradient, for a rule that needs one; any other does not look at it.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           view<const std::type_identity_t<G>> reference, const parameter_options& o = {}) {
    if (finalized_) throw bad_order("add(\"" + name + "\") after finalize()");
    require_memory("weight of \"" + name + '"', w);
    require_gradient(name, "gradient", g);
    if (needs_reference()) require_gradient(name, "reference gradient", reference);
    detail::check_number<C>("lr_scale of \"" + name + '"', o.lr_scale, range{.low = 0});
    if (o.decay) detail::check_number<C>("decay of \"" + name + '"', *o.decay, range{.low = 0});
    parameters_.add(
        name, w, g, needs_reference() ? reference : g, o, needs_reference(),
        rule_->decays(), [&](index_t rows, index_t cols) -> const auto& { return state_names(rows, cols); });
  }
  bool needs_reference() const { return rule_->needs_reference(); }

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
    if (empty()) throw bad_order("finalize() before any add()");
    try {
      build();
    } catch (...) {
      release();
      throw;
    }
  }
  // Undoes finalize(): the memory goes back to the backend, state is lost, and steps are counted from 0.
  void release() {
    if (finalized_) steps_ = 0;  // a finalize() that fails leaves what set_steps() said
    finalized_ = false;
    unusable_scales_ = 0;
    plan_number_ = 0;
    buckets_.clear();
    control_ = {}, scratch_arena_ = {};
    state_ = typename Backend::buffer(), scratch_ = typename Backend::buffer();
  }

  void step(double lr, double gradient_scale = 1) {
    begin_step(lr, gradient_scale);
    enqueue();
  }

  // Hands this step's numbers over to the backend: rates, gradient scale, step number, rank. One copy.
  void begin_step(double lr, double gradient_scale = 1) {
    require_finalized("begin_step()");
    check_step(lr, gradient_scale);
    const bool usable = usable_scale(gradient_scale);
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      bucket& k = buckets_[i];
      k.phase = k.rule->phase(steps_);
      if (k.empty()) continue;
      const index_t q = std::min(k.w.rows, k.w.cols);
      const double budget = k.rule->rank_budget(steps_, q);
      k.rank = std::clamp<index_t>(static_cast<index_t>(std::ceil(budget - 1e-9)), 1, q);
      ranks_[i] = k.rank;
      const step_numbers<C> n{.lr = static_cast<C>(lr * k.lr_scale),
                              .step = static_cast<C>(steps_ + 1),
                              .tail = static_cast<C>(std::min(1.0, budget - static_cast<double>(k.rank - 1))),
                              .counter = static_cast<std::uint32_t>(steps_ + 1),
                              .gradient_scale = static_cast<C>(usable ? gradient_scale : 1)};
      std::memcpy(numbers_.data() + i * sizeof n, &n, sizeof n);
    }
    const status_word stop = usable ? 0 : 1;
    std::memcpy(numbers_.data() + buckets_.size() * sizeof(step_numbers<C>), &stop, sizeof stop);
    backend_->upload(control_.numbers, numbers_.data(), numbers_.size());
    if (!usable) ++unusable_scales_;
    ++steps_;
  }

  // Throws what begin_step() would throw of these numbers.
  void check_step(double lr, double gradient_scale) const {
    detail::check_number<narrowest>("lr", lr, range{.low = 0});
    for (const auto& k : buckets_)
      if (!(lr * k.lr_scale <= largest_input<narrowest>))
        detail::check_number<narrowest>("lr times lr_scale of \"" + parameters_[k.members.front()].name + '"',
                                        lr * k.lr_scale, range{.low = 0});
    if (gradient_scale != 1 && !options_.scales_gradient)
      throw bad_value("gradient_scale", detail::text(gradient_scale),
                      "1, unless optimizer_options::scales_gradient is set, and then finite and > 0");
    if (gradient_scale < 0) throw bad_value("gradient_scale", detail::text(gradient_scale), "finite and > 0");
    if (usable_scale(gradient_scale) && !usable_scale(static_cast<double>(static_cast<C>(gradient_scale))))
      throw bad_value("gradient_scale", detail::text(gradient_scale),
                      "finite and > 0 in the compute type, which is " + std::string(detail::compute_name<C>));
  }

  // The step itself: verbs of the backend only, the same ones each time as long as ranks() and phase() are.
  void enqueue() {
    enqueue_check();
    enqueue_update();
  }

  // The two halves of enqueue(), for several optimizers that must skip a step together. The first returns a word in the
  // backend's memory that is not zero if this step is to be skipped: a gradient is not finite, or the gradient scale is
  // of no use. The second changes nothing if the word is not zero by then. Every step has the word written anew.
  view<status_word> enqueue_check() {
    require_finalized("enqueue()");
    if (checks()) check_gradients();
    return row_major(stop_word(), 1, 1);
  }
  void enqueue_update() {
    require_finalized("enqueue()");
    const view<const status_word> stop = row_major(stop_word(), 1, 1);
    backend_->for_each(nullptr, fn::add{}, row_major(control_.skipped, 1, 1), stop);
    for (auto& k : buckets_) {
      if (k.empty()) continue;
      auto e = make_pass(k, stop.data);
      k.rule->step(e, k.w, k.g, k.r);
    }
  }

  // The rank of each bucket in the step begun last, and the phase; a change asks for another recording of enqueue().
  const std::vector<index_t>& ranks() const { return ranks_; }

  index_t phase() const { return buckets_.empty() ? 0 : buckets_.front().phase; }

  // Each plan that a finalize() of an optimizer of this type has made has another number: what was recorded of
  // enqueue() under another one points to memory that is gone. 0 before finalize().
  std::uint64_t plan_number() const { return plan_number_; }

  // Waits, and tells which steps were skipped since the last poll, and why.
  step_status poll_status() {
    require_finalized("poll_status()");
    step_status status;
    std::vector<status_word> words(1 + parameters_.size());
    backend_->download(words.data(), control_.skipped, words.size() * sizeof(status_word));
    status.skipped = static_cast<index_t>(words[0]);
    status.unusable_scales = std::exchange(unusable_scales_, 0);
    for (const auto& k : buckets_)
      for (std::size_t i = 0; i < k.members.size(); ++i)
        if (words[1 + k.first + i]) status.parameters.push_back(parameters_[k.members[i]].name);
    const std::vector<status_word> zeros(words.size(), 0);
    backend_->upload(control_.skipped, zeros.data(), zeros.size() * sizeof(status_word));
    return status;
  }

  // The gradient of the parameter that was added as `name` lies at another address from now on, with the same strides.
  void rebind(const std::string& name, view<const std::type_identity_t<G>> g) {
    require_gradient(name, "gradient", g);
    parameters_.rebind(name, g, &parameter<W, G>::g);
    if (finalized_) upload_tables();
  }
  void rebind_reference(const std::string& name, view<const std::type_identity_t<G>> r) {
    if (!needs_reference())
      throw bad_value("reference gradient of \"" + name + '"', "given", "not given: this rule estimates from one");
    require_gradient(name, "reference gradient", r);
    parameters_.rebind(name, r, &parameter<W, G>::r);
    if (finalized_) upload_tables();
  }
  // Throws bad_value if weight or gradient of `name` are not where the optimizer reads them: their owner has resized
  // them or swapped their storage, and rebind() was not called. Looks at addresses only; meant for debug builds.
  void check_bound(const std::string& name, view<const std::type_identity_t<W>> w,
                   view<const std::type_identity_t<G>> g) const {
    parameters_.check_bound(name, w, g, nullptr);
  }
  void check_bound(const std::string& name, view<const std::type_identity_t<W>> w,
                   view<const std::type_identity_t<G>> g, view<const std::type_identity_t<G>> reference) const {
    parameters_.check_bound(name, w, g, needs_reference() ? &reference : nullptr);
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
    if (stored.empty()) return;
    backend_->download(stored.data(), t.data, stored.size());
    for_each_element(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
      std::memcpy(static_cast<std::byte*>(host) + dense, stored.data() + at, size);
    });
  }
  void write_state(const state_tensor& t, const void* host) {
    std::vector<std::byte> stored(bytes_of(t));
    if (stored.empty()) return;
    for_each_element(t, [&](std::size_t dense, std::size_t at, std::size_t size) {
      std::memcpy(stored.data() + at, static_cast<const std::byte*>(host) + dense, size);
    });
    backend_->upload(t.data, stored.data(), stored.size());
  }
  std::string signature() const { return rule_->signature(); }
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    if (steps < 0 || steps > max_steps)
      throw bad_value("steps", std::to_string(steps), "0 to " + std::to_string(max_steps));
    steps_ = steps;
  }

  std::vector<setting> settings() const { return rule_->settings(); }
  Backend& backend() const { return *backend_; }
  index_t size() const { return static_cast<index_t>(parameters_.size()); }
  bool empty() const { return parameters_.nothing_added(); }
  // From now on this optimizer and the other one refuse names and memory that one of them has. Throws if both have
  // some.
  template <class Other>
  void share_claims(Other& other) {
    parameters_.share_claims(other.parameters_);
  }
  index_t bucket_count() const { return static_cast<index_t>(finalized_ ? buckets_.size() : make_buckets().size()); }

 protected:
  const any_rule<Backend, Types>& erased_rule() const { return *rule_; }

 private:
  template <class, class>
  friend class any_optimizer;

  // Same-shape matrices that step as one batch; weights and gradients are reached through tables of base pointers.
  struct bucket {
    std::unique_ptr<bucket_rule<Backend, Types>> rule;
    double lr_scale;
    std::vector<std::size_t> members;
    std::size_t first = 0;  // index of its first matrix among all, in bucket order
    view<W> w;
    view<const G> g, r;
    std::vector<placed_state> entries;
    step_numbers<C>* numbers = nullptr;
    index_t rank = 0, phase = 0;

    bool empty() const { return w.rows == 0 || w.cols == 0; }  // nothing runs for it
    bucket_shape shape() const { return {w.rows, w.cols, w.batch, !w.row_contiguous()}; }
  };

  void build() {
    buckets_ = make_buckets();
    memory_report report;
    arena sizes;
    place(buckets_, sizes, report);
    report.scratch_bytes = scratch_bytes(buckets_);
    state_ = allocate(report.state_bytes, report);
    scratch_ = allocate(report.scratch_bytes, report);
    arena real{state_.data()};
    memory_report same;
    control_ = place(buckets_, real, same);
    scratch_arena_ = arena{scratch_.data()};
    upload_tables();
    numbers_.assign(buckets_.size() * sizeof(step_numbers<C>) + sizeof(status_word), std::byte{});
    ranks_.assign(buckets_.size(), 0);
    for (auto& k : buckets_) {
      if (k.empty()) continue;
      auto e = make_pass(k, nullptr);
      k.rule->init(e, k.w);
    }
    static std::atomic<std::uint64_t> plans{0};
    plan_number_ = ++plans;
    finalized_ = true;
  }
  typename Backend::buffer allocate(std::size_t bytes, const memory_report& all) {
    const auto failed = [&](const std::string& why) {
      return out_of_memory(why + "; " + std::to_string(parameters_.size()) + " parameters want, in bytes\n" +
                           all.table());
    };
    try {
      return backend_->allocate(bytes);
    } catch (const std::bad_alloc&) {
      throw failed("out of memory: " + std::to_string(bytes) + " bytes asked for");
    } catch (const out_of_memory& e) {
      throw failed(e.why());
    }
  }

  struct control_words {
    status_word* skip = nullptr;     // not zero: this step writes nothing; what the check of gradients found
    status_word* skipped = nullptr;  // count since the last poll, and behind it one flag per matrix since the last poll
    step_numbers<C>* numbers = nullptr;  // one per bucket, then two things that must lie behind them:
    status_word* stop = nullptr;         // not zero: the gradient scale of this step is of no use
    status_word* flags = nullptr;        // this step: one per matrix
    std::byte* tables = nullptr;
  };

  std::vector<bucket> make_buckets() const {
    using key = std::tuple<index_t, index_t, index_t, index_t, index_t, index_t, index_t, index_t, double,
                           std::optional<double>>;
    std::vector<bucket> out;
    std::map<key, std::size_t> open;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const parameter<W, G>& p = parameters_[i];
      const key k{p.w.rows,       p.w.cols,       p.w.row_stride, p.w.col_stride, p.g.row_stride,
                  p.g.col_stride, p.r.row_stride, p.r.col_stride, p.lr_scale,     p.decay};
      const auto [at, is_new] = open.try_emplace(k, out.size());
      const bool full = !is_new && options_.batch_limit > 0 &&
                        static_cast<index_t>(out[at->second].members.size()) == options_.batch_limit;
      if (is_new || full) {
        at->second = out.size();
        out.push_back(
            {rule_->bind(p.decay, options_.scales_gradient), p.lr_scale, {}, 0, p.w, p.g, p.r, {}, nullptr, 0, 0});
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
    const std::size_t n = parameters_.size();
    control_words c;
    c.skip = reinterpret_cast<status_word*>(memory.bytes(sizeof(status_word)));
    c.skipped = reinterpret_cast<status_word*>(memory.bytes((1 + n) * sizeof(status_word)));
    std::byte* numbers = memory.bytes(buckets.size() * sizeof(step_numbers<C>) + (1 + n) * sizeof(status_word));
    c.numbers = reinterpret_cast<step_numbers<C>*>(numbers);
    if (numbers) c.stop = reinterpret_cast<status_word*>(numbers + buckets.size() * sizeof(step_numbers<C>));
    if (numbers) c.flags = c.stop + 1;
    c.tables = memory.bytes(tables_per_matrix() * n * sizeof(void*));
    report.control = memory.top;
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      bucket& k = buckets[i];
      k.entries = k.rule->place(memory, k.shape());
      for (const auto& e : k.entries) add_line(report, e);
      if (memory.base) {
        k.numbers = c.numbers + i;
        k.w.table = reinterpret_cast<W* const*>(c.tables) + k.first;
        k.g.table = reinterpret_cast<const G* const*>(c.tables + n * sizeof(void*)) + k.first;
        k.r.table = needs_reference() ? k.g.table + n : k.g.table;
      }
    }
    report.state_bytes = memory.peak;
    return c;
  }
  static void add_line(memory_report& report, const placed_state& e) {
    const auto same = std::find_if(report.state.begin(), report.state.end(),
                                   [&](const auto& l) { return l.slot == e.slot && l.what == e.name; });
    if (same != report.state.end())
      same->bytes += e.bytes;
    else
      report.state.push_back({e.slot, e.name, e.bytes});
  }

  std::size_t scratch_bytes(const std::vector<bucket>& buckets) const {
    std::size_t most = 0;
    for (const auto& k : buckets)
      if (!k.empty()) most = std::max(most, k.rule->scratch(*backend_, k.shape()));
    return most;
  }

  std::size_t tables_per_matrix() const { return needs_reference() ? 3 : 2; }
  pass<Backend, C> make_pass(bucket& k, const status_word* guard) {
    return {*backend_, scratch_arena_, guard, k.numbers, k.w.batch, k.rank, k.phase};
  }

  bool checks() const { return options_.nonfinite == on_nonfinite::skip_step; }
  status_word* stop_word() const { return checks() ? control_.skip : control_.stop; }

  // skip = 1 if any gradient is not finite as the rule sees it, or beyond what steps have room for, or stop is 1;
  // remembers for poll_status() which were not.
  void check_gradients() {
    constexpr double limit = largest_input<W, typename Types::state, C>;
    const index_t n = static_cast<index_t>(parameters_.size());
    for (auto& k : buckets_) {
      if (k.empty()) continue;
      const view<status_word> flag{control_.flags + k.first, 1, 1, 1, 1, k.w.batch, 1};
      const auto s = make_pass(k, nullptr).gradient_scale();
      if (options_.scales_gradient && needs_reference())
        backend_->reduce(nullptr, fn::scaled_not_both_finite<C>{limit}, flag, k.g, k.r, s);
      else if (options_.scales_gradient)
        backend_->reduce(nullptr, fn::scaled_not_finite<C>{limit}, flag, k.g, s);
      else if (needs_reference())
        backend_->reduce(nullptr, fn::not_both_finite{limit}, flag, k.g, k.r);
      else
        backend_->reduce(nullptr, fn::not_finite{limit}, flag, k.g);
    }
    const view<status_word> skip = row_major(control_.skip, 1, 1);
    backend_->reduce(nullptr, fn::any{}, skip, row_major<const status_word>(control_.stop, 1, 1 + n));
    if (n > 0)
      backend_->for_each(nullptr, fn::raise{}, row_major(control_.skipped + 1, 1, n),
                         row_major<const status_word>(control_.flags, 1, n));
  }

  void upload_tables() {
    const std::size_t n = parameters_.size();
    tables_.assign(tables_per_matrix() * n, nullptr);
    for (const auto& k : buckets_)
      for (std::size_t i = 0; i < k.members.size(); ++i) {
        tables_[k.first + i] = parameters_[k.members[i]].w.data;
        tables_[n + k.first + i] = parameters_[k.members[i]].g.data;
        if (needs_reference()) tables_[2 * n + k.first + i] = parameters_[k.members[i]].r.data;
      }
    if (n > 0) backend_->upload(control_.tables, tables_.data(), tables_.size() * sizeof(void*));
  }

  static bool usable_scale(double s) { return std::isfinite(s) && s > 0; }

  // The names of the state that the rule keeps of a matrix.
  const std::vector<std::string>& state_names(index_t rows, index_t cols) {
    if (const auto known = state_names_.find({rows, cols}); known != state_names_.end()) return known->second;
    arena counting;
    std::vector<std::string> names;
    for (const auto& e : rule_->bind({}, false)->place(counting, {rows, cols, 1, false})) names.push_back(e.name);
    return state_names_[{rows, cols}] = std::move(names);
  }

  // Throws if the backend cannot use the memory; that a pointer is null is for others to say.
  template <class T>
  void require_memory(const std::string& what, const view<T>& v) const {
    if constexpr (requires { backend_->require_memory(what, v.data); })
      if (v.data && !detail::no_elements(v)) backend_->require_memory(what, v.data);
  }
  void require_gradient(const std::string& name, const std::string& kind, const view<const G>& g) const {
    require_memory(kind + " of \"" + name + '"', g);
    if (!detail::no_elements(g)) detail::check_aligned(kind + " of \"" + name + '"', g.data);
  }

  void require_finalized(const char* call) const {
    if (!finalized_) throw bad_order(std::string(call) + " before finalize()");
  }

  Backend* backend_;
  std::unique_ptr<any_rule<Backend, Types>> rule_;
  optimizer_options options_;
  parameters parameters_;
  std::vector<bucket> buckets_;
  typename Backend::buffer state_{}, scratch_{};
  arena scratch_arena_{};
  control_words control_{};
  std::vector<std::byte> numbers_;  // what begin_step() uploads: step_numbers of each bucket, and the word `stop`
  std::vector<index_t> ranks_;
  std::vector<const void*> tables_;
  std::map<std::pair<index_t, index_t>, std::vector<std::string>> state_names_;
  index_t steps_ = 0, unusable_scales_ = 0;
  std::uint64_t plan_number_ = 0;
  bool finalized_ = false;
};

}  // namespace matopt
