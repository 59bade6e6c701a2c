// The signed index type of every shape, stride and count, and the marker for code that runs on host and device.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <limits>

#include "../version.hpp"

#if defined(__CUDACC__)
#define MATOPT_HD __host__ __device__
#else
#define MATOPT_HD
#endif

namespace MATOPT_NAMESPACE {

using index_t = std::ptrdiff_t;

// The rank of a step whose constraint does not limit it.
inline constexpr index_t all_directions = std::numeric_limits<index_t>::max();

}  // namespace MATOPT_NAMESPACE
