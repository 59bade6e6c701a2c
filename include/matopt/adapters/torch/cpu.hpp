// torch_device<eigen_backend>: tensors in the memory of the CPU. The backend has as many threads as PyTorch has within
// an operation.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <ATen/Parallel.h>

#include <memory>

#include "../../eigen.hpp"
#include "shard.hpp"

namespace MATOPT_NAMESPACE {

template <>
struct torch_device<eigen_backend> {
  static constexpr at::DeviceType type = at::kCPU;
  static std::unique_ptr<eigen_backend> make(at::Device) {
    return std::make_unique<eigen_backend>(at::get_num_threads());
  }
  struct turn {
    explicit turn(eigen_backend&) {}
    ~turn() {}
  };
};

}  // namespace MATOPT_NAMESPACE
