// device: what the backend has to know of the GPU that is current when the backend is made.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "error.cuh"
#include "factorize.cuh"
#include "no_device.hpp"

namespace MATOPT_NAMESPACE::cuda {

struct device {
  int number, major, minor, multiprocessors;

  std::string capability() const { return std::to_string(major) + "." + std::to_string(minor); }
  // "NVIDIA H100 80GB HBM3, compute capability 9.0, CUDA 13.0 (driver: 13.1)"
  std::string describe() const {
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, number), "describe the device");
    int driver = 0, runtime = 0;
    check(cudaDriverGetVersion(&driver), "describe the device");
    check(cudaRuntimeGetVersion(&runtime), "describe the device");
    return std::string(p.name) + ", compute capability " + capability() + ", CUDA " + version(runtime) +
           " (driver: " + version(driver) + ")";
  }

  // The current device. Throws cuda_error where there is none, or none that this program's kernels run on.
  static device usable() {
    int count = 0;
    const cudaError_t found = cudaGetDeviceCount(&count);
    if (found == cudaErrorInsufficientDriver || found == cudaErrorNoDevice || (found == cudaSuccess && count == 0)) {
      cudaGetLastError();
      int driver = 0, runtime = 0;
      cudaDriverGetVersion(&driver);
      cudaRuntimeGetVersion(&runtime);
      throw cuda_error("find a device", why_no_device(driver, runtime), std::source_location::current());
    }
    check(found, "find a device");
    device d{};
    check(cudaGetDevice(&d.number), "find a device");
    const auto attribute = [&](int& value, cudaDeviceAttr name) {
      check(cudaDeviceGetAttribute(&value, name, d.number), "find a device");
    };
    attribute(d.major, cudaDevAttrComputeCapabilityMajor);
    attribute(d.minor, cudaDevAttrComputeCapabilityMinor);
    attribute(d.multiprocessors, cudaDevAttrMultiProcessorCount);
    cudaFuncAttributes attributes{};
    const cudaError_t loaded = cudaFuncGetAttributes(&attributes, solve_rows_kernel<float>);
    if (loaded == cudaErrorNoKernelImageForDevice || loaded == cudaErrorInvalidDeviceFunction ||
        loaded == cudaErrorUnsupportedPtxVersion) {
      cudaGetLastError();
      throw cuda_error("find a device",
                       std::string(cudaGetErrorString(loaded)) + ": the device has compute capability " +
                           d.capability() + "; compile for that (nvcc -arch)",
                       std::source_location::current());
    }
    check(loaded, "find a device");
    return d;
  }
};

}  // namespace MATOPT_NAMESPACE::cuda
