// The signed index type of every shape, stride and count, and the marker for code that runs on host and device.
#pragma once
#include <cstddef>

#include "../version.hpp"

#if defined(__CUDACC__)
#define MATOPT_HD __host__ __device__
#else
#define MATOPT_HD
#endif

namespace matopt {

using index_t = std::ptrdiff_t;

}  // namespace matopt
