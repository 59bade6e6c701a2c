// torch_rules: which rules a torch_optimizer knows, for each kind of device and compute type; made of registries.
//
//   matopt::rule_registry<matopt::eigen_backend> rules;               float, bfloat16 and float16 tensors on the CPU
//   rules.add<matopt::muon>("muon").add<matopt::adamw>("adamw");
//   matopt::torch_rules known;
//   known.add(rules).add(double_rules).add(gpu_rules);                rule_registry<eigen_backend, types<double>>, ...
//
// Registries are copied. What depends on a rule is compiled where its registry is filled.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shard.hpp"

namespace MATOPT_NAMESPACE {

class torch_rules {
 public:
  struct facts {
    std::string signature;
    std::vector<setting> settings, default_settings;  // all of them
    bool needs_reference, steps_vectors;
  };
  // What is known for one kind of device and one compute type.
  struct catalog {
    virtual ~catalog() = default;
    virtual std::vector<std::string> names() const = 0;
    virtual double published_lr(const std::string& rule) const = 0;
    // With its defaults; some rules have settings without one, which `of` refuses.
    virtual std::vector<setting> settings(const std::string& rule) const = 0;
    // Of a rule with these settings. Throws as rule_registry does.
    virtual facts of(const std::string& rule, const std::vector<setting>& settings) const = 0;
    virtual std::unique_ptr<torch_shard> make(at::Device device, const optimizer_options& options) const = 0;
  };

  template <class Backend, class Types>
  torch_rules& add(rule_registry<Backend, Types> rules) {
    using T = typename Types::weight;
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                  "matopt: tensors of 16 bits go through float; register rules for float and double");
    static_assert(std::is_same_v<T, typename Types::gradient> && std::is_same_v<T, typename Types::compute>,
                  "matopt: weight, gradient and compute type are one");
    catalogs_[{torch_device<Backend>::type, std::is_same_v<T, double> ? at::kDouble : at::kFloat}] =
        std::make_shared<typed_catalog<Backend, Types>>(std::move(rules));
    return *this;
  }

  const catalog& of(at::DeviceType device, at::ScalarType compute) const {
    const auto found = catalogs_.find({device, compute});
    if (found != catalogs_.end()) return *found->second;
    std::string known;
    for (const auto& [key, unused] : catalogs_) known += (known.empty() ? "" : ", ") + text(key.first, key.second);
    throw bad_value("kind of a parameter", text(device, compute),
                    known.empty() ? "none: no rules were registered" : "one of those with rules: " + known);
  }
  bool knows(at::DeviceType device, at::ScalarType compute) const { return catalogs_.contains({device, compute}); }

 private:
  template <class Backend, class Types>
  struct typed_catalog final : catalog {
    explicit typed_catalog(rule_registry<Backend, Types> r)
        : rules(std::make_shared<const rule_registry<Backend, Types>>(std::move(r))) {}
    std::vector<std::string> names() const override { return rules->names(); }
    double published_lr(const std::string& rule) const override { return rules->published_lr(rule); }
    std::vector<setting> settings(const std::string& rule) const override { return rules->settings(rule); }
    facts of(const std::string& rule, const std::vector<setting>& settings) const override {
      const auto made = rules->rule(rule, settings);
      return {made->signature(), made->settings(), made->default_settings(), made->needs_reference(),
              made->steps_vectors()};
    }
    std::unique_ptr<torch_shard> make(at::Device device, const optimizer_options& options) const override {
      return std::make_unique<detail::typed_torch_shard<Backend, Types>>(rules, device, options);
    }
    std::shared_ptr<const rule_registry<Backend, Types>> rules;
  };
  static std::string text(at::DeviceType device, at::ScalarType compute) {
    return std::string(at::toString(compute)) + " on " + c10::DeviceTypeName(device, true);
  }

  std::map<std::pair<at::DeviceType, at::ScalarType>, std::shared_ptr<const catalog>> catalogs_;
};

}  // namespace MATOPT_NAMESPACE
