// suggest_roles: which role (param_groups.hpp) a parameter seems to have, from its name and shape. It proposes, and the
// caller confirms.
//
//   std::vector<named_shape> all{{"wte.weight", {50257, 768}}, {"h.0.attn.c_attn.weight", {2304, 768}}, ...};
//   std::vector<role> roles = suggest_roles(all);                   embedding, hidden, ...: print and look at them
//   require_confirmed(all, roles_of_mine, {"router.weight"});       before add(): throws for what would fail silently
//
// A matrix rule on an embedding or on an output head trains badly, and nothing fails. So require_confirmed refuses
// role::hidden for what looks like one of these, unless its name is among the confirmed ones. What counts:
//
//   vector      one dimension, or a matrix (the first dimension x all others) with a side below 8, and "bias" in the
//               name
//   embedding   a part of the name begins with "embed", or is emb, embd, wte, wpe, vocab, or the shape has two dimensions
//               and a side of at least 8192 that is eight times the other one, as of a vocabulary
//   head        a part is lm_head, head, heads, classifier, logits, score, unembed..., or the name begins with
//               "output." or "fc." and has no other part before its end; but not if a part is query, key or value, as
//               in "sa.heads.0.key.weight": these are heads of attention
//   hidden      everything else
//
// Parts of a name are what stands between dots, slashes and underscores. Errors: bad_value, naming the parameter.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "param_groups.hpp"

namespace MATOPT_NAMESPACE {

struct named_shape {
  std::string name;
  std::vector<index_t> shape;  // rows = fan-out first
};

namespace detail {
inline std::vector<std::string> name_parts(std::string_view name, std::string_view separators) {
  std::vector<std::string> parts(1);
  for (const char c : name)
    if (separators.find(c) != std::string_view::npos)
      parts.emplace_back();
    else
      parts.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return parts;
}
inline bool is_one_of(std::string_view part, std::initializer_list<std::string_view> all) {
  return std::find(all.begin(), all.end(), part) != all.end();
}
}  // namespace detail

inline role suggest_role(std::string_view name, std::span<const index_t> shape) {
  const auto levels = detail::name_parts(name, "./"), parts = detail::name_parts(name, "./_");
  const auto any = [](const auto& of, auto says) { return std::any_of(of.begin(), of.end(), says); };
  const index_t rows = shape.empty() ? 1 : shape[0];
  index_t cols = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) cols *= shape[i];
  const index_t narrow = std::min(rows, cols), wide = std::max(rows, cols);

  if (any(parts, [](const auto& p) { return p.starts_with("unembed"); }) ||
      (any(levels, [](const auto& l) { return l == "head" || l == "heads" || l.ends_with("_head"); }) &&
       !any(parts,
            [](const auto& p) {
              return detail::is_one_of(p, {"query", "key", "value", "q", "k", "v", "qkv"});
            })) ||
      any(parts,
          [](const auto& p) {
            return detail::is_one_of(p, {"classifier", "logits", "score"});
          }) ||
      (levels.size() <= 2 && detail::is_one_of(levels.front(), {"output", "fc"})))
    return narrow < 2 ? role::vector : role::head;
  if (narrow < 8 || any(parts, [](const auto& p) { return p == "bias"; })) return role::vector;
  if (any(parts,
          [](const auto& p) {
            return p.starts_with("embed") || detail::is_one_of(p, {"emb", "embd", "wte", "wpe", "vocab"});
          }) ||
      (shape.size() == 2 && wide >= 8192 && wide >= 8 * narrow))
    return role::embedding;
  return role::hidden;
}
inline std::vector<role> suggest_roles(std::span<const named_shape> all) {
  std::vector<role> roles;
  for (const named_shape& p : all) roles.push_back(suggest_role(p.name, p.shape));
  return roles;
}

inline void require_confirmed(std::span<const named_shape> all, std::span<const role> given,
                              std::span<const std::string> confirmed) {
  if (given.size() != all.size())
    throw bad_value("number of roles", std::to_string(given.size()),
                    std::to_string(all.size()) + ", one per parameter");
  for (std::size_t i = 0; i < all.size(); ++i) {
    const role seems = suggest_role(all[i].name, all[i].shape);
    const bool is_confirmed = std::find(confirmed.begin(), confirmed.end(), all[i].name) != confirmed.end();
    if (given[i] == role::hidden && seems != role::hidden && !is_confirmed)
      throw bad_value("role of \"" + all[i].name + '"', "hidden",
                      std::string(enum_names(role{})[static_cast<std::size_t>(seems)]) +
                          ", which it looks like; or name it among the confirmed ones");
  }
}
inline void require_confirmed(std::span<const named_shape> all, std::span<const role> given,
                              std::initializer_list<std::string> confirmed = {}) {
  require_confirmed(all, given, std::span(confirmed.begin(), confirmed.size()));
}

}  // namespace MATOPT_NAMESPACE
