// expect: compile without -fno-exceptions
// flags: -fno-exceptions
#include <matopt/muon.hpp>
