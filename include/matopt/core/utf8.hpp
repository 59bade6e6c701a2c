// Names end up in checkpoints, whose text is UTF-8. is_utf8() tells whether one can; escaped() shows any text in an
// error.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>

#include "../version.hpp"
#include "error.hpp"

namespace MATOPT_NAMESPACE::detail {

// Overlong forms, surrogates and values above U+10FFFF are not UTF-8.
inline bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i++);
    if (first < 0x80) continue;
    if (first < 0xC2 || first > 0xF4) return false;
    const int more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    // The first byte after these is what overlong forms, surrogates and too large values differ in.
    unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    for (int k = 0; k < more; ++k, low = 0x80, high = 0xBF)
      if (i == text.size() || byte(i) < low || byte(i++) > high) return false;
  }
  return true;
}

// With everything but printable ASCII as \xNN.
[[gnu::cold]] inline std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u < 0x7F)
      out += c;
    else
      out += {'\\', 'x', "0123456789abcdef"[u >> 4U], "0123456789abcdef"[u & 15U]};
  }
  return out;
}

[[gnu::cold]] inline void check_name(const char* what, std::string_view name) {
  if (!is_utf8(name)) throw bad_value(what, '"' + escaped(name) + '"', "text in UTF-8, as checkpoints hold it");
}

}  // namespace MATOPT_NAMESPACE::detail
