// The other half of one.cpp.
#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>

const void* address_in_other_unit() { return static_cast<const void*>(&matopt::detail::keller_rows); }
