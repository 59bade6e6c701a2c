// why_no_device: what to do where CUDA finds no GPU, given the versions of driver and runtime (13000 is 13.0; a driver
// that is missing has version 0). A driver serves every runtime of its own major version, and older ones.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "../version.hpp"

namespace MATOPT_NAMESPACE::cuda {

inline std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

inline std::string why_no_device(int driver, int runtime) {
  const std::string needed = "this program needs one for CUDA " + version(runtime);
  if (driver == 0) return "no NVIDIA driver; " + needed;
  if (driver / 1000 < runtime / 1000)
    return "the NVIDIA driver is for CUDA " + version(driver) + ", too old; " + needed;
  return "no GPU that the NVIDIA driver (CUDA " + version(driver) +
         ") lets this program see; CUDA_VISIBLE_DEVICES hides some";
}

}  // namespace MATOPT_NAMESPACE::cuda
