// The GPU backend as a subject of the contract.
#pragma once
#include <matopt/cuda.cuh>

#include "../contract/published.hpp"

namespace matopt::test {

using cuda_subject = counting<cuda_backend>;
template <>
inline constexpr bool has_own_memory<cuda_backend> = true;
template <>
inline constexpr accuracy accuracy_of<cuda_backend> = cuda_accuracy;

}  // namespace matopt::test
