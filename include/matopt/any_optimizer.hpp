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
// 1. It is one of the numbers of the step: a recorded step is replayed with a new one.
//
// Rows are fan-out, columns fan-in. Weights and gradients stay where they are, in the backend's memory, and must
// outlive the optimizer; gradients are never written. A step allocates nothing, waits for nothing and reads nothing
// back; what the rule costs at run time is one virtual call per bucket. If a gradient holds NaN or infinity, that step
// leaves every weight and all state untouched; poll_status() tells. A finite entry beyond largest_input (limits.hpp;
// 2e31 in float) counts as infinity: sums and squares of such numbers are not finite. Not thread-safe. Errors derive
// from matopt::error; after one, the optimizer is as before the call.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bucket.hpp"
#include "core/limits.hpp"
#include "parameter_list.hpp"

namespace matopt {

// What a step does about a gradient that is not finite, or beyond largest_input. ignore: the caller knows that none is.
enum class on_nonfinite { skip_step, ignore };

struct optimizer_options {
  on_nonfinite nonfinite = on_nonfinite::skip_step;
  index_t batch_limit = 0;  // most matrices that step at once; bounds the scratch, 0 = the whole bucket
  bool scales_gradient =
      false;  // steps take a gradient_scale; a scratch matrix per gradient, unless a formula takes it
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
    add("parameter." + std::to_string(parameters_.size()), w, g, o);
  }
  // The same with a reference gradient, for a rule that needs one; any other does not look at it.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           view<const std::type_identity_t<G>> reference, const parameter_options& o = {}) {
    if (finalized_) throw bad_order("add(\"" + name + "\") after finalize()");
    require_memory("weight of \"" + name + '"', w.data);
    require_gradient(name, "gradient", g);
    if (needs_reference()) require_gradient(name, "reference gradient", reference);
    detail::check_number<C>("lr_scale of \"" + name + '"', o.lr_scale, range{.low = 0});
    if (o.decay) detail::check_number<C>("decay of \"" + name + '"', *o.decay, range{.low = 0});
    parameters_.add(name, w, g, needs_reference() ? reference : g, o, needs_reference(), rule_->has_decay());
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
    if (parameters_.empty()) throw bad_order("finalize() before any add()");
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
    check_lr(lr);
    check_gradient_scale(gradient_scale);
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      bucket& k = buckets_[i];
      const index_t q = std::min(k.w.rows, k.w.cols);
      const double budget = k.rule->rank_budget(steps_, q);
      k.rank = std::clamp<index_t>(static_cast<index_t>(std::ceil(budget - 1e-9)), 1, q);
      k.phase = k.rule->phase(steps_);
      ranks_[i] = k.rank;
      numbers_[i] = {.lr = static_cast<C>(lr * k.lr_scale),
                     .step = static_cast<C>(steps_ + 1),
                     .tail = static_cast<C>(std::min(1.0, budget - static_cast<double>(k.rank - 1))),
                     .counter = static_cast<std::uint32_t>(steps_ + 1),
                     .gradient_scale = static_cast<C>(gradient_scale)};
    }
    backend_->upload(control_.numbers, numbers_.data(), numbers_.size() * sizeof(step_numbers<C>));
    ++steps_;
  }

  // Throws what begin_step() would throw of this rate.
  void check_lr(double lr) const {
    detail::check_number<narrowest>("lr", lr, range{.low = 0});
    for (const bucket& k : buckets_)
      if (!(lr * k.lr_scale <= largest_input<narrowest>))
        detail::check_number<narrowest>("lr times lr_scale of \"" + parameters_[k.members[0]].name + '"',
                                        lr * k.lr_scale, range{.low = 0});
  }
  // Throws what begin_step() would throw of this gradient scale.
  void check_gradient_scale(double s) const {
    if (const range legal{.low = 0, .low_open = true}; !legal.contains(s))
      throw bad_value("gradient_scale", detail::text(s), "finite and " + detail::text(legal));
    if (const C held = static_cast<C>(s); !math::finite(held) || !(held > C(0)))
      throw bad_value("gradient_scale", detail::text(s), "finite and > 0 in the compute type, which is float");
    if (s != 1 && !options_.scales_gradient)
      throw bad_value("gradient_scale", detail::text(s), "1, unless optimizer_options::scales_gradient is set");
  }

  // The step itself: verbs of the backend only, the same ones each time as long as ranks() and phase() are.
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
      k.rule->step(e, k.w, k.g, k.r);
    }
  }

  // The rank of each bucket in the step begun last, and the phase; a change asks for another recording of enqueue().
  const std::vector<index_t>& ranks() const { return ranks_; }

  index_t phase() const { return buckets_.empty() ? 0 : buckets_.front().phase; }

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
  std::string signature() const { return rule_->signature(); }
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    if (steps < 0) throw bad_value("steps", std::to_string(steps), ">= 0");
    steps_ = steps;
  }

  std::vector<setting> settings() const { return rule_->settings(); }
  Backend& backend() const { return *backend_; }
  index_t size() const { return static_cast<index_t>(parameters_.size()); }
  index_t bucket_count() const { return static_cast<index_t>(finalized_ ? buckets_.size() : make_buckets().size()); }

 protected:
  const any_rule<Backend, Types>& erased_rule() const { return *rule_; }

 private:
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
    for (auto& k : buckets_) {
      auto e = make_pass(k, nullptr);
      k.rule->init(e, k.w);
    }
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
    status_word* skip = nullptr;     // not zero: this step writes nothing
    status_word* skipped = nullptr;  // count since the last poll, and behind it one flag per matrix since the last poll
    status_word* flags = nullptr;    // this step: one per matrix
    step_numbers<C>* numbers = nullptr;
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
    c.flags = reinterpret_cast<status_word*>(memory.bytes(n * sizeof(status_word)));
    c.numbers = reinterpret_cast<step_numbers<C>*>(memory.bytes(buckets.size() * sizeof(step_numbers<C>)));
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
    for (const auto& k : buckets) most = std::max(most, k.rule->scratch(*backend_, k.shape()));
    return most;
  }

  std::size_t tables_per_matrix() const { return needs_reference() ? 3 : 2; }
  pass<Backend, C> make_pass(bucket& k, const status_word* guard) {
    return {*backend_, scratch_arena_, guard, k.numbers, k.w.batch, k.rank, k.phase};
  }

  // skip = 1 if any gradient is not finite as the rule sees it, or beyond what steps have room for; remembers for
  // poll_status() which.
  void check_gradients() {
    constexpr double limit = largest_input<W, typename Types::state, C>;
    const index_t n = static_cast<index_t>(parameters_.size());
    for (auto& k : buckets_) {
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
    const view<const status_word> flags = row_major<const status_word>(control_.flags, 1, n);
    const view<status_word> skip = row_major(control_.skip, 1, 1);
    backend_->reduce(nullptr, fn::any{}, skip, flags);
    backend_->for_each(nullptr, fn::raise{}, row_major(control_.skipped + 1, 1, n), flags);
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
    backend_->upload(control_.tables, tables_.data(), tables_.size() * sizeof(void*));
    numbers_.assign(buckets_.size(), {});
    ranks_.assign(buckets_.size(), 0);
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

  // Throws if the backend cannot use the memory; that a pointer is null is for others to say.
  void require_memory(const std::string& what, const void* p) const {
    if constexpr (requires { backend_->require_memory(what, p); })
      if (p) backend_->require_memory(what, p);
  }
  void require_gradient(const std::string& name, const std::string& kind, const view<const G>& g) const {
    require_memory(kind + " of \"" + name + '"', g.data);
    detail::check_aligned(kind + " of \"" + name + '"', g.data);
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
  std::vector<step_numbers<C>> numbers_;
  std::vector<index_t> ranks_;
  std::vector<const void*> tables_;
  index_t steps_ = 0;
  bool finalized_ = false;
};

}  // namespace matopt
