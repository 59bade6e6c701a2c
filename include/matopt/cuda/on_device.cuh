// on_device: makes a device the calling thread's current one for as long as it lives. New threads begin with device 0,
// and memory, launches and the default stream belong to the current device, whichever a backend works on.
//
// SPDX-License-Identifier: MIT
#pragma once
#include "../version.hpp"
#include "error.cuh"

namespace MATOPT_NAMESPACE::cuda {

class on_device {
 public:
  explicit on_device(int device) {
    check(cudaGetDevice(&before_), "find the current device");
    if (before_ == device) return;
    check(cudaSetDevice(device), "take a device");
    changed_ = true;
  }
  on_device(const on_device&) = delete;
  on_device& operator=(const on_device&) = delete;
  ~on_device() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace MATOPT_NAMESPACE::cuda
