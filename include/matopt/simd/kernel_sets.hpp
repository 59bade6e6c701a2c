// The sets of kernels that this processor can run, the fastest first; none where it is older than AVX2 or NEON.
//
// Compiling them takes seconds. So a program compiles them once, in kernels.cpp, with MATOPT_SIMD_COMPILED set
// everywhere; the CMake targets do this. Without that macro every file that includes this one compiles them.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <span>

#include "kernel_set.hpp"

namespace MATOPT_NAMESPACE::simd {
std::span<const kernel_set* const> kernel_sets();

// Why the first of them multiplies bfloat16 no faster than it does; empty if it is the fastest that there is.
const char* why_not_faster();
}  // namespace MATOPT_NAMESPACE::simd

#if defined(MATOPT_HIGHWAY) && !defined(MATOPT_SIMD_COMPILED)
#include "kernels.hpp"
#endif
