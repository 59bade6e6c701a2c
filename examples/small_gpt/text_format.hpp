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

inline std::string size_text(double bytes) {
  return bytes < 1e4   ? fixed(bytes, 0) + " B"
         : bytes < 1e6 ? fixed(bytes / 1e3, 1) + " kB"
                       : fixed(bytes / 1e6, 2) + " MB";
}

inline std::string html(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

}  // namespace small_gpt
