// dlpack_view: a tensor in the structs of DLPack as a view, without a copy and without DLPack's header.
//
//   matopt::view<float> w = matopt::dlpack_view<float>(managed->dl_tensor);          DLTensor
//   auto g = matopt::dlpack_view<const float>(*managed);                             DLManagedTensor, ...Versioned
//   auto d = matopt::dlpack_view<float>(*managed, matopt::dlpack_memory::cuda);      for a cuda_backend
//
// Any struct with the members of DLTensor will do (data, device, ndim, dtype, shape, strides, byte_offset), and any
// that has one as `dl_tensor`; so DLPack may be of whatever version the program has, or be declared by the program
// itself. Element types: float64, float32, float16, bfloat16. Dimensions: (n) is n x 1; (m, n) is m x n, rows =
// fan-out; (count, m, n) a stack of count matrices. A convolution (out, in, kh, kw) is first to be flattened to (out,
// in kh kw). Strides count elements, and a null pointer of them means that rows are contiguous and dense. The tensor
// must outlive the view: its deleter is the caller's to call.
//
// Errors, as bad_value: another element type, another number of dimensions, memory that is not where the backend works,
// a versioned tensor that is read-only, asked for with a T that is not const, or of a major version above 1.
// DLPack: dmlc.github.io/dlpack/latest/c_api.html
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "../core/bfloat16.hpp"
#include "../core/error.hpp"
#include "../core/float16.hpp"
#include "../core/types.hpp"
#include "../core/view.hpp"

namespace MATOPT_NAMESPACE {

enum class dlpack_memory { host, cuda };

namespace detail {

// Of c_api.html: DLDataTypeCode and DLDeviceType.
enum dlpack_code { dlpack_float = 2, dlpack_bfloat = 4 };
enum dlpack_device { dlpack_cpu = 1, dlpack_cuda = 2, dlpack_cuda_host = 3, dlpack_cuda_managed = 13 };

template <class T>
constexpr int dlpack_code_of = std::is_same_v<T, bfloat16> ? dlpack_bfloat : dlpack_float;

template <class T, class Tensor>
void check_dlpack(const Tensor& t, dlpack_memory where) {
  using E = std::remove_const_t<T>;
  const int code = static_cast<int>(t.dtype.code), bits = static_cast<int>(t.dtype.bits),
            lanes = static_cast<int>(t.dtype.lanes), device = static_cast<int>(t.device.device_type);
  if (code != dlpack_code_of<E> || bits != static_cast<int>(8 * sizeof(E)) || lanes != 1)
    throw bad_value(
        "element type of a DLPack tensor",
        "code " + std::to_string(code) + " of " + std::to_string(bits) + " bits, " + std::to_string(lanes) + " lanes",
        "code " + std::to_string(dlpack_code_of<E>) + " of " + std::to_string(8 * sizeof(E)) +
            " bits, 1 lane, as the view's");
  const bool on_host = device == dlpack_cpu || device == dlpack_cuda_host || device == dlpack_cuda_managed,
             on_gpu = device == dlpack_cuda || device == dlpack_cuda_managed;
  if (!(where == dlpack_memory::host ? on_host : on_gpu))
    throw bad_value("device type of a DLPack tensor", std::to_string(device),
                    where == dlpack_memory::host ? "1, 3 or 13: memory of the CPU, page-locked or managed"
                                                 : "2 or 13: memory of a CUDA device, or managed");
  if (t.ndim < 1 || t.ndim > 3)
    throw bad_value("dimensions of a DLPack tensor", std::to_string(t.ndim),
                    "1 to 3: (n), (m, n) or (count, m, n); flatten a convolution to (out, in kh kw)");
  for (int i = 0; i < t.ndim; ++i)
    if (t.shape[i] < 0)
      throw bad_value("dimension " + std::to_string(i) + " of a DLPack tensor", std::to_string(t.shape[i]), ">= 0");
}

}  // namespace detail

template <class T, class Tensor>
view<T> dlpack_view(const Tensor& t, dlpack_memory where = dlpack_memory::host) {
  if constexpr (requires { t.dl_tensor; }) {
    if constexpr (requires { t.version.major; })
      if (t.version.major > 1)
        throw bad_value("major version of a DLPack tensor", std::to_string(t.version.major), "0 or 1");
    if constexpr (requires { t.flags; } && !std::is_const_v<T>)
      if (constexpr std::uint64_t read_only = 1; t.flags & read_only)
        throw bad_value("DLPack tensor", "read-only", "writable, or dlpack_view<const T>");
    return dlpack_view<T>(t.dl_tensor, where);
  } else {
    detail::check_dlpack<T>(t, where);
    using byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
    T* const data = t.data ? reinterpret_cast<T*>(static_cast<byte*>(t.data) + t.byte_offset) : nullptr;
    // (n) is (n, 1), and (m, n) a stack of one.
    const int n = t.ndim;
    const index_t rows = static_cast<index_t>(t.shape[n == 3 ? 1 : 0]),
                  cols = n == 1 ? 1 : static_cast<index_t>(t.shape[n - 1]),
                  batch = n == 3 ? static_cast<index_t>(t.shape[0]) : 1;
    if (!t.strides) return row_major(data, rows, cols, batch);
    const auto stride = [&](int i) { return static_cast<index_t>(t.strides[i]); };
    return {data, rows, cols, stride(n == 3 ? 1 : 0), n == 1 ? 1 : stride(n - 1), batch, n == 3 ? stride(0) : 0};
  }
}

}  // namespace MATOPT_NAMESPACE
