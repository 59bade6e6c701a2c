// Numbers and text as reports write them.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

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

inline std::string html(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

}  // namespace small_gpt
