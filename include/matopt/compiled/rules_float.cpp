// Every published rule on the CPU in float: one of the two files of the library matopt::compiled.
// SPDX-License-Identifier: MIT
#define MATOPT_COMPILED_ELEMENT float
#include <matopt/published_rules.hpp>
