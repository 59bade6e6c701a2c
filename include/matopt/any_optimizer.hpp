// any_optimizer: an optimizer whose rule is chosen at run time; rule_registry: rules by name, with settings as text.
//
//   rule_registry<eigen_backend> rules;
//   rules.add<muon>("muon").add<adamw>("adamw");
//   any_optimizer<eigen_backend> opt = rules.make("muon", cpu, {{"momentum", "0.9"}});
//
// The cost is one virtual call per step, not per parameter. Errors: an unknown rule or setting names the nearest known
// one.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "optimizer.hpp"

namespace matopt {

template <class Backend, class Types = types<float>>
class any_optimizer {
  using W = typename Types::weight;
  using G = typename Types::gradient;

 public:
  using element_types = Types;

  template <class Rule>
  requires rule_for<Rule, Backend, Types> any_optimizer(Backend& backend, Rule rule, optimizer_options options = {})
      : backend_(&backend), self_(std::make_unique<holder<Rule>>(backend, std::move(rule), options)) {}

  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g, const parameter_options& o = {}) {
    self_->add(name, w, g, nullptr, o);
  }
  // For a rule that needs a reference gradient; any other does not look at it.
  void add(const std::string& name, view<W> w, view<const std::type_identity_t<G>> g,
           view<const std::type_identity_t<G>> reference, const parameter_options& o = {}) {
    self_->add(name, w, g, &reference, o);
  }
  bool needs_reference() const { return self_->needs_reference(); }
  memory_report memory() const { return self_->memory(); }
  void finalize() { self_->finalize(); }
  void step(double lr) {
    begin_step(lr);
    enqueue();
  }
  void begin_step(double lr) { self_->begin_step(lr); }
  void enqueue() { self_->enqueue(); }
  view<status_word> enqueue_check() { return self_->enqueue_check(); }
  void enqueue_update() { self_->enqueue_update(); }
  std::vector<index_t> ranks() const { return self_->ranks(); }
  step_status poll_status() { return self_->poll_status(); }
  void rebind(const std::string& name, view<const std::type_identity_t<G>> g) { self_->rebind(name, g); }
  void rebind_reference(const std::string& name, view<const std::type_identity_t<G>> r) {
    self_->rebind_reference(name, r);
  }
  std::vector<state_tensor> state_tensors() const { return self_->state_tensors(); }
  void read_state(const state_tensor& t, void* host) const { self_->read_state(t, host); }
  void write_state(const state_tensor& t, const void* host) { self_->write_state(t, host); }
  std::string signature() const { return self_->signature(); }
  index_t steps() const { return self_->steps(); }
  void set_steps(index_t steps) { self_->set_steps(steps); }
  index_t size() const { return self_->size(); }
  Backend& backend() const { return *backend_; }
  std::vector<setting> settings() const { return self_->settings(); }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual void add(const std::string&, view<W>, view<const G>, const view<const G>*, const parameter_options&) = 0;
    virtual bool needs_reference() const = 0;
    virtual memory_report memory() const = 0;
    virtual void finalize() = 0;
    virtual void begin_step(double) = 0;
    virtual void enqueue() = 0;
    virtual view<status_word> enqueue_check() = 0;
    virtual void enqueue_update() = 0;
    virtual std::vector<index_t> ranks() const = 0;
    virtual step_status poll_status() = 0;
    virtual void rebind(const std::string&, view<const G>) = 0;
    virtual void rebind_reference(const std::string&, view<const G>) = 0;
    virtual std::vector<state_tensor> state_tensors() const = 0;
    virtual void read_state(const state_tensor&, void*) const = 0;
    virtual void write_state(const state_tensor&, const void*) = 0;
    virtual std::string signature() const = 0;
    virtual index_t steps() const = 0;
    virtual void set_steps(index_t) = 0;
    virtual index_t size() const = 0;
    virtual std::vector<setting> settings() const = 0;
  };
  template <class Rule>
  struct holder final : erased {
    static constexpr bool two_gradients = matopt::needs_reference<typename Rule::momentum_type>;
    optimizer<Rule, Backend, Types> o;
    holder(Backend& backend, Rule rule, optimizer_options options) : o(backend, std::move(rule), options) {}
    void add(const std::string& n, view<W> w, view<const G> g, const view<const G>* r,
             const parameter_options& p) override {
      if constexpr (two_gradients) {
        if (!r) throw bad_value("reference gradient of \"" + n + '"', "missing", "given: this rule estimates from two");
        o.add(n, w, g, *r, p);
      } else {
        o.add(n, w, g, p);
      }
    }
    bool needs_reference() const override { return two_gradients; }
    memory_report memory() const override { return o.memory(); }
    void finalize() override { o.finalize(); }
    void begin_step(double lr) override { o.begin_step(lr); }
    void enqueue() override { o.enqueue(); }
    view<status_word> enqueue_check() override { return o.enqueue_check(); }
    void enqueue_update() override { o.enqueue_update(); }
    std::vector<index_t> ranks() const override { return o.ranks(); }
    step_status poll_status() override { return o.poll_status(); }
    void rebind(const std::string& n, view<const G> g) override { o.rebind(n, g); }
    void rebind_reference(const std::string& n, view<const G> r) override {
      if constexpr (two_gradients)
        o.rebind_reference(n, r);
      else
        throw bad_value("reference gradient of \"" + n + '"', "given", "not given: this rule estimates from one");
    }
    std::vector<state_tensor> state_tensors() const override { return o.state_tensors(); }
    void read_state(const state_tensor& t, void* host) const override { o.read_state(t, host); }
    void write_state(const state_tensor& t, const void* host) override { o.write_state(t, host); }
    std::string signature() const override { return o.signature(); }
    index_t steps() const override { return o.steps(); }
    void set_steps(index_t n) override { o.set_steps(n); }
    index_t size() const override { return o.size(); }
    std::vector<setting> settings() const override { return settings_of(o.rule()); }
  };

  Backend* backend_;
  std::unique_ptr<erased> self_;
};

template <class Backend, class Types = types<float>>
class rule_registry {
 public:
  // Knows `defaults` as `name` from now on; returns itself.
  template <class Rule>
  requires rule_for<Rule, Backend, Types> rule_registry& add(const std::string& name, Rule defaults = {}) {
    entries_[name] = {settings_of(defaults),
                      [defaults](Backend& backend, const std::vector<setting>& settings, optimizer_options options) {
                        Rule rule = defaults;
                        for (const auto& s : settings) set_setting(rule, s.name, s.value);
                        return any_optimizer<Backend, Types>(backend, std::move(rule), options);
                      }};
    return *this;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, unused] : entries_) out.push_back(name);
    return out;
  }
  // The settings of a rule, with its defaults.
  const std::vector<setting>& settings(const std::string& name) const { return find(name).settings; }

  any_optimizer<Backend, Types> make(const std::string& name, Backend& backend,
                                     const std::vector<setting>& settings = {}, optimizer_options options = {}) const {
    return find(name).make(backend, settings, options);
  }

 private:
  struct entry {
    std::vector<setting> settings;
    std::function<any_optimizer<Backend, Types>(Backend&, const std::vector<setting>&, optimizer_options)> make;
  };
  const entry& find(const std::string& name) const {
    const auto at = entries_.find(name);
    if (at != entries_.end()) return at->second;
    std::string known;
    for (const auto& n : names()) known += (known.empty() ? "" : ", ") + n;
    throw error("unknown rule \"" + name + "\"; nearest: \"" + nearest_name(name, names()) + "\"; known: " + known);
  }

  std::map<std::string, entry> entries_;
};

}  // namespace matopt
