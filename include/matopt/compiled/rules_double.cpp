// Every published rule on the CPU in double: one of the two files of the library matopt::compiled.
// SPDX-License-Identifier: MIT
#define MATOPT_COMPILED_ELEMENT double
#include <matopt/published_rules.hpp>
