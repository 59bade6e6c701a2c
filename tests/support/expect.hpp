// Checks for programs that are better off without a test framework: each that fails is printed, and `failures` counts
// them.
#pragma once
#include <cstdio>
#include <string>

namespace matopt::test {

inline int failures = 0;

inline void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}
// The text holds the words.
inline void expect_words(const std::string& text, const std::string& words) {
  expect(text.find(words) != std::string::npos, "\"" + words + "\" in \"" + text + '"');
}
// The text of the E that f throws; "" for none.
template <class E, class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return {};
}

}  // namespace matopt::test
