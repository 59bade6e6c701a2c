// Numbers and text as reports write them, and names as a shell reads them.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

#include "utf8.hpp"

namespace small_gpt {

// Empty for what is not known.
inline std::string fixed(double x, int digits) {
  if (std::isnan(x)) return {};
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, x);
  return text;
}

// Of a fraction; empty for what is not known.
inline std::string percent(double x) { return std::isnan(x) ? std::string() : fixed(100 * x, 1) + " %"; }

inline std::string size_text(double bytes) {
  return bytes < 1e4   ? fixed(bytes, 0) + " B"
         : bytes < 1e6 ? fixed(bytes / 1e3, 1) + " kB"
                       : fixed(bytes / 1e6, 2) + " MB";
}

// As a shell reads it back.
inline std::string shell_word(const std::string& word) {
  constexpr const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+@%";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

inline std::string html(const std::string& text) {
  std::string out;
  for (std::size_t at = 0, n = 0; at < text.size(); at += n) {
    n = character_length(text, at);
    const char c = text[at];
    if (n > 1)
      out += text.substr(at, n);
    else if (static_cast<unsigned char>(c) >= 0x80)  // of no character: as a name of a file may have it
      out += "\xef\xbf\xbd";
    else
      out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  }
  return out;
}

}  // namespace small_gpt
