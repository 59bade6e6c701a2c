// State of other programs' optimizers in an optimizer of this library, and out of it: a run goes on in the middle.
//
//   set_momentum(opt, "w", buffer, momentum_form::mean);              torch.optim.Muon: "momentum_buffer"
//   set_momentum(opt, "w", buffer, momentum_form::sum);               microsoft/dion and torch.optim.SGD: "momentum"
//   set_momentum(opt, "w", mu, momentum_form::mean, count);           optax.contrib.muon: "mu", "count"
//   set_adam_moments(opt, "w", exp_avg, exp_avg_sq, step);            torch.optim.AdamW; optax: "mu", "nu", "count"
//   get_momentum(opt, "w", buffer, momentum_form::sum);               the other way
//   const index_t step = get_adam_moments(opt, "w", exp_avg, exp_avg_sq);
//
// After finalize(), for an optimizer, any_optimizer or param_groups. "w" is what was added as "w": a stack or a matrix
// with row blocks is taken as a whole, and views have its shape. A mean holds 1 - momentum times what a sum holds; what
// the rule itself keeps, its signature tells, and its own `momentum` is the factor. Adam's moments are means
// everywhere, and bias corrections follow from the steps. Numbers are converted to the state's type; set_steps() of the
// optimizer is the caller's, for schedules of ranks and angles count by it. docs/migration.md has a table.
//
// Errors: bad_value for a name that was not added, another shape, entries that are not finite in the state's type, or a
// rule that keeps no such state; nothing has changed then.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/coded_blocks.hpp"
#include "core/error.hpp"
#include "core/settings.hpp"
#include "core/state_tensor.hpp"
#include "core/types.hpp"
#include "core/view.hpp"

namespace MATOPT_NAMESPACE {

enum class momentum_form { mean, sum };

namespace detail {

// The rule that steps what was added as `name`, and its settings.
struct stepping_rule {
  std::string signature, prefix;
  std::vector<setting> all;
  index_t rows = -1;               // of one matrix of it, where the optimizer tells
  std::vector<std::string> known;  // names of all that was added

  template <class Optimizer>
  stepping_rule(const Optimizer& opt, const std::string& name) : signature(opt.signature()), all(opt.settings()) {
    if constexpr (requires { opt.assignments(); }) {
      for (const auto& a : opt.assignments()) {
        known.push_back(a.name);
        if (a.name == name) signature = a.rule, prefix = a.group + ".", rows = a.rows;
      }
    } else {
      known = opt.names();
    }
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw bad_value("parameter \"" + name + '"', "unknown",
                      "one that was added; nearest: \"" + nearest_name(name, known) + '"');
  }
  double number(const std::string& setting_name) const {
    for (const setting& s : all)
      if (s.name == prefix + setting_name) return matopt::detail::number(s.name, s.value);
    throw bad_value("setting \"" + setting_name + '"',
                    "not fixed: the rule has none of that name, or a schedule gives it",
                    "one that the state can be converted by");
  }
  std::string momentum() const {  // "rule<momentum,orthogonalizer,...>"
    const std::size_t begin = signature.find('<') + 1;
    return signature.substr(begin, signature.find(',', begin) - begin);
  }
  momentum_form form() const {
    const std::string m = momentum();
    if (m == "heavy_ball" || m == "nesterov_heavy_ball") return momentum_form::sum;
    if (m == "ema" || m == "nesterov_ema" || corrects()) return momentum_form::mean;
    throw bad_value("momentum of the rule", m, "a mean or a sum of gradients");
  }
  bool corrects() const {
    const std::string m = momentum();
    return m == "corrected_ema" || m == "corrected_nesterov_ema";
  }
};

// The tensors called `state` of what was added as `name`: of a stack "name.0", "name.1", ..., with row blocks behind
// one more dot, in the order of the memory. What was added as "name.1" by itself is no part of it.
template <class Optimizer>
std::vector<state_tensor> parts_of_state(const Optimizer& opt, const stepping_rule& rule, const std::string& name,
                                         std::string_view state) {
  const std::set<std::string_view> added(rule.known.begin(), rule.known.end());
  std::vector<std::pair<std::vector<index_t>, state_tensor>> found;
  for (const state_tensor& t : opt.state_tensors()) {
    const std::size_t dot = t.name.rfind('.');
    if (std::string_view(t.name).substr(dot + 1) != state) continue;
    const std::string_view matrix = std::string_view(t.name).substr(0, dot);
    std::string_view owner = matrix;
    while (!added.contains(owner) && owner.find('.') != owner.npos) owner = owner.substr(0, owner.rfind('.'));
    if (owner != name) continue;
    std::vector<index_t> numbers;
    for (const char c : matrix.substr(name.size()))
      if (c == '.')
        numbers.push_back(0);
      else
        numbers.back() = numbers.back() * 10 + (c - '0');
    found.emplace_back(numbers, t);
  }
  if (found.empty())
    throw bad_value("state \"" + std::string(state) + "\" of \"" + name + '"', "not there",
                    "that of a parameter that was added, by a rule that keeps it");
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<state_tensor> out;
  for (auto& [unused, t] : found) out.push_back(t);
  return out;
}

inline double element(const std::byte* at, element_type type) {
  const auto as = [&](auto x) {
    std::memcpy(&x, at, sizeof x);
    return static_cast<double>(x);
  };
  switch (type) {
    case element_type::f64:
      return as(0.0);
    case element_type::bf16:
      return as(bfloat16{});
    case element_type::f16:
      return as(float16{});
    default:
      return as(0.0F);
  }
}
inline void set_element(std::byte* at, element_type type, double x) {
  const auto put = [&](auto value) { std::memcpy(at, &value, sizeof value); };
  switch (type) {
    case element_type::f64:
      return put(x);
    case element_type::bf16:
      return put(bfloat16(static_cast<float>(x)));
    case element_type::f16:
      return put(float16(static_cast<float>(x)));
    default:
      return put(static_cast<float>(x));
  }
}

// Calls f(tensor, the part of v that it is of) for each; throws if the shapes differ.
template <class T, class F>
void for_each_part(const stepping_rule& rule, const std::string& name, const std::vector<state_tensor>& tensors,
                   const view<T>& v, F f) {
  index_t batch = 0, row = 0;
  const auto wrong = [&] {
    return bad_value("shape of the state of \"" + name + '"',
                     std::to_string(v.batch) + " matrices of " + std::to_string(v.rows) + "x" + std::to_string(v.cols),
                     "that of the parameter as it was added");
  };
  if (rule.rows >= 0 && v.rows != rule.rows) throw wrong();
  for (const bool real : {false, true}) {
    batch = row = 0;
    for (const state_tensor& t : tensors) {
      if (batch >= v.batch || t.cols != v.cols || row + t.rows > v.rows) throw wrong();
      if (real) f(t, v.matrix(batch).row_block(row, t.rows));
      if ((row += t.rows) == v.rows) ++batch, row = 0;
    }
    if (batch != v.batch || row != 0) throw wrong();
  }
}

// The scales of codes, and in `block` how many of these share one.
template <class Optimizer>
state_tensor scales_of(const Optimizer& opt, const state_tensor& codes, index_t& block) {
  for (const state_tensor& t : opt.state_tensors())
    if ((block = block_of_scales(t.name, codes.name)) > 0) return t;
  throw bad_value("scales of \"" + codes.name + '"', "not there", "in the state beside the codes");
}

// A tensor of state with what it is to hold: everything is converted before anything is written.
struct new_state {
  state_tensor tensor;
  std::vector<std::byte> contents;
};
template <class Optimizer>
void write_all(Optimizer& opt, const std::vector<new_state>& all) {
  for (const new_state& n : all) opt.write_state(n.tensor, n.contents.data());
}
template <class Optimizer, class T>
void convert_matrix(const Optimizer& opt, const stepping_rule& rule, const std::string& name,
                    const std::vector<state_tensor>& tensors, const view<const T>& v, double factor,
                    std::vector<new_state>& out) {
  for_each_part(rule, name, tensors, v, [&](const state_tensor& t, const view<const T>& part) {
    std::vector<double> values;
    for (index_t i = 0; i < t.rows; ++i)
      for (index_t j = 0; j < t.cols; ++j) values.push_back(factor * static_cast<double>(part(i, j)));
    const bool in_codes = holds_codes(t.type);
    const element_type type = in_codes ? element_type::f32 : t.type;  // that of the scales
    std::vector<std::byte> host(values.size() * size_of(type));
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::byte* const at = host.data() + i * size_of(type);
      set_element(at, type, values[i]);
      if (!std::isfinite(element(at, type)))
        throw bad_value("an entry for \"" + t.name + '"', text(values[i]), "finite in " + std::string(name_of(type)));
    }
    if (!in_codes) return out.push_back({t, std::move(host)});
    index_t block = 0;
    const state_tensor scales = scales_of(opt, t, block);
    coded_values coded = encode_values({code_map_of(t.type), block}, values);
    out.push_back({t, std::move(coded.codes)}), out.push_back({scales, std::move(coded.scales)});
  });
}
template <class Optimizer, class T>
void read_matrix(const Optimizer& opt, const stepping_rule& rule, const std::string& name,
                 const std::vector<state_tensor>& tensors, const view<T>& v, double factor) {
  for_each_part(rule, name, tensors, v, [&](const state_tensor& t, const view<T>& part) {
    std::vector<std::byte> host(bytes_of(t));
    opt.read_state(t, host.data());
    std::vector<double> values;
    if (holds_codes(t.type)) {
      index_t block = 0;
      const state_tensor scales = scales_of(opt, t, block);
      std::vector<std::byte> by(bytes_of(scales));
      opt.read_state(scales, by.data());
      values = decode_values({code_map_of(t.type), block}, host, by);
    } else {
      for (std::size_t at = 0; at < host.size(); at += size_of(t.type))
        values.push_back(element(host.data() + at, t.type));
    }
    for (index_t i = 0; i < t.rows; ++i)
      for (index_t j = 0; j < t.cols; ++j)
        part(i, j) =
            static_cast<T>(static_cast<arithmetic_t<T>>(factor * values[static_cast<std::size_t>(i * t.cols + j)]));
  });
}
inline void convert_scalars(const std::vector<state_tensor>& tensors, double value, std::vector<new_state>& out) {
  for (const state_tensor& t : tensors) {
    std::vector<std::byte> host(bytes_of(t));
    set_element(host.data(), t.type, value);
    out.push_back({t, std::move(host)});
  }
}
inline double correction(double beta, index_t steps) { return 1 - std::pow(beta, static_cast<double>(steps)); }
inline double momentum_factor(momentum_form from, momentum_form to, double momentum) {
  return from == to ? 1 : from == momentum_form::mean ? 1 / (1 - momentum) : 1 - momentum;
}
inline void check_steps(index_t steps) {
  if (steps < 0) throw bad_value("steps of the state", std::to_string(steps), ">= 0");
}

}  // namespace detail

// `steps`: how many are in the buffer; only rules that correct their momentum's bias ask for it.
template <class Optimizer, class T>
void set_momentum(Optimizer& opt, const std::string& name, const view<T>& buffer, momentum_form form,
                  index_t steps = -1) {
  const detail::stepping_rule rule(opt, name);
  const double momentum = rule.number("momentum"), factor = detail::momentum_factor(form, rule.form(), momentum);
  const auto to = detail::parts_of_state(opt, rule, name, "momentum");
  std::vector<detail::new_state> all;
  detail::convert_matrix<Optimizer, std::remove_const_t<T>>(opt, rule, name, to, buffer, factor, all);
  if (rule.corrects()) {
    detail::check_steps(steps);
    detail::convert_scalars(detail::parts_of_state(opt, rule, name, "momentum_correction"),
                            detail::correction(momentum, steps), all);
  }
  detail::write_all(opt, all);
}
template <class Optimizer, class T>
void get_momentum(const Optimizer& opt, const std::string& name, const view<T>& buffer, momentum_form form) {
  const detail::stepping_rule rule(opt, name);
  detail::read_matrix(opt, rule, name, detail::parts_of_state(opt, rule, name, "momentum"), buffer,
                      detail::momentum_factor(rule.form(), form, rule.number("momentum")));
}

template <class Optimizer, class T>
void set_adam_moments(Optimizer& opt, const std::string& name, const view<T>& exp_avg, const view<T>& exp_avg_sq,
                      index_t steps) {
  using element = std::remove_const_t<T>;
  const detail::stepping_rule rule(opt, name);
  detail::check_steps(steps);
  const double beta1 = rule.number("beta1"), beta2 = rule.number("beta2");
  const auto m = detail::parts_of_state(opt, rule, name, "first_moment"),
             v = detail::parts_of_state(opt, rule, name, "second_moment"),
             c1 = detail::parts_of_state(opt, rule, name, "first_correction"),
             c2 = detail::parts_of_state(opt, rule, name, "second_correction");
  std::vector<detail::new_state> all;
  detail::convert_matrix<Optimizer, element>(opt, rule, name, m, exp_avg, 1, all);
  detail::convert_matrix<Optimizer, element>(opt, rule, name, v, exp_avg_sq, 1, all);
  detail::convert_scalars(c1, detail::correction(beta1, steps), all);
  detail::convert_scalars(c2, detail::correction(beta2, steps), all);
  detail::write_all(opt, all);
}
// Returns how many steps the moments have seen. Where that cannot be told any more, because corrections have become 1,
// it is the optimizer's own number of steps: it makes no difference then.
template <class Optimizer, class T>
index_t get_adam_moments(const Optimizer& opt, const std::string& name, const view<T>& exp_avg,
                         const view<T>& exp_avg_sq) {
  const detail::stepping_rule rule(opt, name);
  detail::read_matrix(opt, rule, name, detail::parts_of_state(opt, rule, name, "first_moment"), exp_avg, 1);
  detail::read_matrix(opt, rule, name, detail::parts_of_state(opt, rule, name, "second_moment"), exp_avg_sq, 1);
  const auto c2 = detail::parts_of_state(opt, rule, name, "second_correction").front();
  std::vector<std::byte> host(bytes_of(c2));
  opt.read_state(c2, host.data());
  const double left = 1 - detail::element(host.data(), c2.type), beta2 = rule.number("beta2");
  if (left < 1e-3 || beta2 <= 0) return std::max<index_t>(opt.steps(), 1);
  return static_cast<index_t>(std::llround(std::log(left) / std::log(beta2)));
}

}  // namespace MATOPT_NAMESPACE
