// A policy whose settings are called otherwise: for a rule that has two policies with a setting of one name, which no
// optimizer accepts, because nobody could say which of the two is meant.
//
//   using inner = prefixed<"inner", hard_cap<>>;                 inner_spectral_most, inner_spectral_relative, ...
//   using twice = muon::with_constraint<projected<hard_cap<>, projected<inner>>>;
//
// It is P in everything else: operation, state, markers, the defaults that a preset has for P, and the name that a
// checkpoint holds. Any policy, projection or schedule that has settings may be P. A decorator's prefix is for the
// settings of the policy inside, too. What P itself says of settings that do not agree has their names without prefix.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "../core/settings.hpp"

namespace MATOPT_NAMESPACE {

template <std::size_t Size>
struct setting_prefix {
  char text[Size]{};

  consteval setting_prefix(const char (&from)[Size]) { std::copy_n(from, Size, text); }
  constexpr std::string_view view() const { return {text, Size - 1}; }
};

namespace detail {
// prefix_name, without memory from the heap: settings are walked in steps as well.
class prefixed_name {
 public:
  prefixed_name(std::string_view prefix, std::string_view name) : size_(prefix.size() + 1 + name.size()) {
    if (size_ > text_.size())
      throw bad_value("setting \"" + std::string(prefix) + '_' + std::string(name) + '"',
                      std::to_string(size_) + " characters long", "up to " + std::to_string(text_.size()));
    *std::copy(prefix.begin(), prefix.end(), text_.begin()) = '_';
    std::copy(name.begin(), name.end(), text_.begin() + static_cast<std::ptrdiff_t>(prefix.size()) + 1);
  }
  operator std::string_view() const { return {text_.data(), size_}; }

 private:
  std::array<char, 128> text_{};
  std::size_t size_;
};
}  // namespace detail

template <setting_prefix Prefix, class P>
requires(!Prefix.view().empty() && detail::has_settings<P>) struct prefixed : P {
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    P::settings(self, [&](std::string_view name, auto& value, const range& legal = {}) {
      visit(detail::prefixed_name(Prefix.view(), name), value, legal);
    });
  }
};

}  // namespace MATOPT_NAMESPACE
