// The header of Catch2 2 by that of Catch2 3, as far as the tests go: they are written for both. It is in the include
// path only where Catch2 3 is.
#pragma once
#include <catch2/catch_approx.hpp>
#include <catch2/catch_message.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#ifdef CATCH_CONFIG_RUNNER
#include <catch2/catch_session.hpp>
#endif

using Catch::Approx;

namespace Catch::Matchers {
// Of a string; Catch2 3 has this name for ranges, in a header that is not included here.
inline StringContainsMatcher Contains(const std::string& part) { return ContainsSubstring(part); }
}  // namespace Catch::Matchers

namespace Catch {
using Matchers::Contains;
}
