// One family of the rules in float: CMakeLists.txt names it.
#include "rules.hpp"

MATOPT_BENCH_FAMILY(, MATOPT_FAMILY)
