// torch_parameter_set: all parameters of a torch_optimizer, and the shards that step them.
//
// A step is prepared as a whole before any shard takes it: gradients are looked at and, where need be, copied; new
// parameters enter; addresses are handed over. What goes wrong until then leaves weights and state as they were.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "parameter.hpp"
#include "rules.hpp"
#include "state.hpp"

namespace MATOPT_NAMESPACE::detail {

struct torch_group_spec {
  std::string label, rule;
  std::vector<setting> settings;
  double lr;
  bool needs_reference;
};

class torch_parameter_set {
  using specs = std::vector<torch_group_spec>;

 public:
  torch_parameter_set(const torch_rules& rules, optimizer_options options) : rules_(rules), options_(options) {}

  // --- what there is ---
  std::size_t size() const { return all_.size(); }
  auto begin() { return all_.begin(); }
  auto end() { return all_.end(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }
  bool contains(const at::Tensor& t) const { return find(t) != all_.size(); }
  void check_names(const std::vector<torch_parameter>& fresh) const {
    std::set<std::string> taken;
    for (const auto* some : {&all_, &fresh})
      for (const auto& p : *some)
        if (check_name("name of a parameter", p.name); !taken.insert(p.name).second)
          throw bad_value("name of a parameter", '"' + p.name + '"', "a name not used before");
  }
  void append(std::vector<torch_parameter> fresh) { std::move(fresh.begin(), fresh.end(), std::back_inserter(all_)); }
  void set(const std::string& label, const std::string& name, const std::string& value) {
    for (auto& [kind, part] : shards_)
      if (part.shard->knows_group(label)) part.shard->set(label, name, value);
  }
  void set_reference(const at::Tensor& of, const at::Tensor& g, const specs& groups) {
    const std::size_t i = find(of);
    if (i == all_.size()) throw bad_value("parameter of a reference gradient", "unknown", "one of this optimizer");
    torch_parameter& p = all_[i];
    if (!groups[p.group].needs_reference)
      throw bad_value("reference gradient of \"" + p.name + '"', "given",
                      "not given: rule \"" + groups[p.group].rule + "\" estimates from one");
    if (p.shard) p.set_reference(g);
  }

  // --- steps ---
  void step(const specs& groups) {
    check_references(groups);
    const auto now = enter(groups);
    for (const auto& group : groups) set(group.label, "lr", text(group.lr));
    const bool written = std::exchange(resync_all_, false);
    std::set<const torch_shard*> busy;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      torch_parameter& p = all_[i];
      if (!p.shard) continue;
      if (written || p.was_written()) p.take_written(), p.shard->resync(p.name);
      if (now[i].gradient.defined()) busy.insert(p.shard);
    }
    for (auto& [kind, part] : shards_)
      if (busy.contains(part.shard.get())) part.shard->step();
    if (!busy.empty()) ++steps_;
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (all_[i].shard && now[i].gradient.defined()) all_[i].write_back(now[i]);
  }
  // Takes in parameters that have or want a gradient, and says where all are. Returns the memory of a step.
  std::vector<torch_step_tensors> enter(const specs& groups) {
    return enter_if(groups,
                    [](const torch_parameter& p) { return p.gradient().defined() || p.tensor.requires_grad(); });
  }
  void resync() { resync_all_ = true; }
  step_status poll_status() {
    step_status all;
    for (auto& [kind, part] : shards_) {
      const step_status one = part.shard->poll_status();
      all.skipped += one.skipped, all.unusable_scales += one.unusable_scales;
      all.parameters.insert(all.parameters.end(), one.parameters.begin(), one.parameters.end());
    }
    return all;
  }

  // --- state ---
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) {
    for (auto& [kind, part] : shards_) part.shard->set_steps(steps);
    for (auto& p : all_) p.has_stepped = p.shard && steps > 0;  // a loaded state is of steps
    steps_ = steps;
  }
  std::vector<state_tensor> state_tensors() const {
    std::vector<state_tensor> out;
    for (const auto& [kind, part] : shards_)
      for (auto& t : part.shard->state_tensors()) out.push_back(std::move(t));
    for (const auto& p : all_)
      if (p.shard && p.master.defined()) out.push_back(master_of(p));
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return out;
  }
  void read_state(const state_tensor& t, void* host) const {
    const torch_parameter& p = all_[owner_of(t)];
    if (is_master(p, t))
      read_master(p, t, host);
    else
      p.shard->read_state(t, host);
  }
  void write_state(const state_tensor& t, const void* host) {
    torch_parameter& p = all_[owner_of(t)];
    if (is_master(p, t))
      write_master(p, t, host);
    else
      p.shard->write_state(t, host);
  }
  std::vector<torch_state> state() const {
    std::vector<torch_state> out(all_.size());
    for (const state_tensor& t : state_tensors()) {
      const std::size_t i = owner_of(t);
      at::Tensor copy = at::empty({t.rows, t.cols}, at::TensorOptions().dtype(scalar_type_of(t.type)));
      read_state(t, copy.data_ptr());
      out[i].emplace(state_name(all_[i], t), std::move(copy));
    }
    return out;
  }
  void load_state(const std::vector<torch_state>& states, index_t steps, const specs& groups) {
    if (states.size() != all_.size())
      throw bad_value("number of states", std::to_string(states.size()),
                      std::to_string(all_.size()) + ", one for each parameter");
    if (steps < 0 || steps > max_steps)
      throw bad_value("steps", std::to_string(steps), "0 to " + std::to_string(max_steps));
    // Beside what there is, so that an error leaves that as it was.
    torch_parameter_set fresh(rules_, options_);
    fresh.all_ = all_;
    for (auto& p : fresh.all_) p.shard = nullptr;
    fresh.enter_if(groups, [&](const torch_parameter& p) {
      return !states[static_cast<std::size_t>(&p - fresh.all_.data())].empty();
    });
    std::vector<torch_state> given(states);
    std::vector<std::pair<state_tensor, at::Tensor>> writes;
    for (const state_tensor& t : fresh.state_tensors()) {
      const std::size_t i = fresh.owner_of(t);
      writes.emplace_back(t, take_saved(given[i], all_[i], t));
    }
    for (std::size_t i = 0; i < given.size(); ++i)
      if (!given[i].empty() && all_[i].has_elements())
        throw bad_value("state \"" + given[i].begin()->first + "\" of \"" + all_[i].name + '"', "given",
                        "none of this name: rule \"" + groups[all_[i].group].rule + "\" keeps no such state");
    for (const auto& [t, from] : writes) fresh.write_state(t, from.data_ptr());
    fresh.set_steps(steps);
    std::swap(shards_, fresh.shards_), std::swap(all_, fresh.all_);
    steps_ = steps;
  }

 private:
  struct part {
    std::unique_ptr<torch_shard> shard;
    std::vector<std::size_t> members;  // in the order in which the shard got them
  };

  std::size_t find(const at::Tensor& t) const {
    return static_cast<std::size_t>(
        std::find_if(all_.begin(), all_.end(), [&](const auto& p) { return p.tensor.is_same(t); }) - all_.begin());
  }
  // Of a piece of state: it is called "<parameter>.<state>", or "<parameter>.<matrix>.<state>" of a stack.
  std::size_t owner_of(const state_tensor& t) const {
    std::string name = t.name;
    while (true) {
      name.resize(std::min(name.size(), name.rfind('.')));
      const auto at = std::find_if(all_.begin(), all_.end(), [&](const auto& p) { return p.shard && p.name == name; });
      if (at != all_.end()) return static_cast<std::size_t>(at - all_.begin());
      if (name.find('.') == std::string::npos) throw error("no parameter has the state \"" + t.name + '"');
    }
  }

  void check_references(const specs& groups) const {
    for (const auto& p : all_)
      if (groups[p.group].needs_reference && p.has_stepped && p.gradient().defined() && !p.reference_is_new)
        throw bad_value(
            "reference gradient of \"" + p.name + '"', "missing",
            "given before each step but the first: rule \"" + groups[p.group].rule + "\" estimates from two");
  }
  template <class Wanted>
  std::vector<torch_step_tensors> enter_if(const specs& groups, Wanted wanted) {
    std::vector<std::size_t> newcomers;
    std::vector<torch_step_tensors> now(all_.size());
    for (std::size_t i = 0; i < all_.size(); ++i) {
      torch_parameter& p = all_[i];
      const bool enters = !p.shard && p.has_elements() && wanted(p);
      if (enters) newcomers.push_back(i), p.lay_out();
      if (p.shard || enters) now[i] = p.for_step();
    }
    copy_shared_gradients(now);
    rebind(now);  // a newcomer may lie where a gradient was before
    if (newcomers.empty()) return now;
    std::size_t entered = 0;
    try {
      std::vector<at::Tensor> unused;  // where a gradient would be that is not there
      for (const std::size_t i : newcomers) {
        take_in(i, now[i], groups[all_[i].group], unused);
        ++entered;
      }
      for (auto& [kind, part] : shards_) part.shard->finalize();
      rebind(now);
    } catch (...) {
      for (std::size_t k = 0; k < entered; ++k) {
        torch_parameter& p = all_[newcomers[k]];
        part& of = part_of(p);
        std::exchange(p.shard, nullptr)->drop(p.name);
        std::erase(of.members, newcomers[k]);
      }
      for (auto& [kind, part] : shards_) part.shard->finalize();
      throw;
    }
    return now;
  }
  void take_in(std::size_t i, const torch_step_tensors& now, const torch_group_spec& group,
               std::vector<at::Tensor>& unused) {
    torch_parameter& p = all_[i];
    part& to = part_of(p);
    torch_shard& shard = *to.shard;
    if (!shard.knows_group(group.label)) shard.add_group(group.label, group.rule, group.settings, group.lr);
    if (!now.gradient.defined()) unused.push_back(p.empty_gradient());
    const at::Tensor& gradient = now.gradient.defined() ? now.gradient : unused.back();
    torch_shard::place reference;
    if (group.needs_reference) {
      p.reference = p.empty_gradient().zero_();
      reference = {p.reference.data_ptr(), p.gradient_matrix()};
    }
    to.members.reserve(to.members.size() + 1);
    shard.add(p.name, {now.weight.data_ptr(), p.weight_matrix()}, {gradient.data_ptr(), p.gradient_matrix()},
              group.needs_reference ? &reference : nullptr, group.label);
    p.shard = &shard;
    to.members.push_back(i);
  }
  // A gradient may lie in memory that is read or written for another parameter, too; the engine wants its own. What is
  // compared is from the first byte to the last, so that a copy too many may be made.
  void copy_shared_gradients(std::vector<torch_step_tensors>& now) const {
    struct span {
      const char *begin, *end;
      std::size_t parameter;
      bool gradient;
    };
    std::vector<span> spans;
    const auto add = [&](const at::Tensor& t, std::size_t i, bool gradient) {
      if (!t.defined() || t.numel() == 0) return;
      int64_t last = 0;
      for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
      const auto* begin = static_cast<const char*>(t.data_ptr());
      spans.push_back({begin, begin + (last + 1) * static_cast<int64_t>(t.element_size()), i, gradient});
    };
    for (std::size_t i = 0; i < now.size(); ++i) add(now[i].weight, i, false), add(now[i].gradient, i, true);
    std::sort(spans.begin(), spans.end(), [](const span& a, const span& b) { return a.begin < b.begin; });
    const span* before = nullptr;  // the one that reaches farthest
    for (const span& s : spans) {
      const bool meet = before && s.begin < before->end;
      if (meet && (s.gradient || before->gradient)) {
        const span& copied = s.gradient ? s : *before;
        at::Tensor& g = now[copied.parameter].gradient;
        g = all_[copied.parameter].empty_gradient().copy_(g);
        if (&copied == &s) continue;
      }
      if (!meet || before->gradient || s.end > before->end) before = &s;
    }
  }
  part& part_of(const torch_parameter& p) {
    part& of = shards_[{p.tensor.device().str(), p.compute_type()}];
    if (!of.shard) {
      of.shard = rules_.of(p.tensor.device().type(), p.compute_type()).make(p.tensor.device(), options_);
      of.shard->set_steps(steps_);
    }
    return of;
  }
  void rebind(const std::vector<torch_step_tensors>& now) {
    for (auto& [kind, part] : shards_) {
      std::vector<void*> weights, gradients;
      for (const std::size_t i : part.members) {
        weights.push_back(now[i].weight.data_ptr());
        gradients.push_back(now[i].gradient.defined() ? now[i].gradient.data_ptr() : nullptr);
      }
      if (!weights.empty()) part.shard->rebind(weights, gradients);
    }
  }

  const torch_rules& rules_;
  optimizer_options options_;
  std::vector<torch_parameter> all_;
  std::map<std::pair<std::string, at::ScalarType>, part> shards_;  // by device and compute type
  index_t steps_ = 0;
  bool resync_all_ = false;
};

}  // namespace MATOPT_NAMESPACE::detail
