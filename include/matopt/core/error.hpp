// Errors of the library. Everything thrown derives from matopt::error; the text names the thing, its value and what is
// legal.
//
// SPDX-License-Identifier: MIT
#pragma once
#if defined(__GNUC__) && !defined(__EXCEPTIONS)
#error \
    "matopt reports wrong input and missing memory by exceptions: compile without -fno-exceptions (README, Requirements)"
#endif
#include <stdexcept>
#include <string>

#include "../version.hpp"

namespace MATOPT_NAMESPACE {

// Cold: what leads to an error is compiled for size, which takes less time.
class error : public std::runtime_error {
 public:
  [[gnu::cold, gnu::noinline]] explicit error(const std::string& what) : std::runtime_error("matopt: " + what) {}
};

// A parameter outside its legal range.
class bad_value : public error {
 public:
  [[gnu::cold, gnu::noinline]] bad_value(const std::string& parameter, const std::string& value,
                                         const std::string& legal)
      : error(parameter + " is " + value + "; legal: " + legal) {}
};

// A call at the wrong time, for example add() after finalize().
class bad_order : public error {
 public:
  using error::error;
};

// Memory that a backend does not have. finalize() adds what each slot wanted.
class out_of_memory : public error {
 public:
  explicit out_of_memory(const std::string& why) : error(why), why_(why) {}
  const std::string& why() const { return why_; }  // without the library's name before it

 private:
  std::string why_;
};

// A file that cannot be read or written, or whose contents do not fit.
class bad_file : public error {
 public:
  using error::error;
};

}  // namespace MATOPT_NAMESPACE
