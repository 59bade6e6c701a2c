// The other half of one.cpp.
#undef MATOPT_HIGHWAY
#ifndef NDEBUG
#define NDEBUG
#endif
#include <algorithm>

#include <matopt/adamw.hpp>
#include <matopt/angular_muown.hpp>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/muown.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/schedule/learning_rate.hpp>

#include "sizes.hpp"

const void* address_in_other_unit() { return static_cast<const void*>(&matopt::detail::keller_rows); }

bool multiplies_in_other_unit(matopt::eigen_backend& cpu) {
  static float a[40 * 40], b[40 * 40];
  for (float& x : a) x = 1;
  const auto x = matopt::row_major(a, 40, 40), y = matopt::row_major(b, 40, 40);
  cpu.gemm(nullptr, 1.F, x, x, 0.F, y, y);
  return b[0] == 40 && b[40 * 40 - 1] == 40;
}
bool same_sizes_in_other_unit(const std::size_t* sizes, std::size_t count) {
  return std::equal(public_sizes.begin(), public_sizes.end(), sizes, sizes + count);
}
