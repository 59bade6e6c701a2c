// hopper::products: starts the kernel of hopper_kernel.cuh. Takes a product if the device has compute capability 9.0,
// the program was compiled for it as sm_90a (plain sm_90 leaves these instructions out; why_not() tells), elements have
// 16 bits, every matrix and line begins at a multiple of 16 bytes, and lines of D end at one.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "../core/types.hpp"
#include "../core/view.hpp"
#include "device.cuh"
#include "error.cuh"
#include "hopper_kernel.cuh"

namespace MATOPT_NAMESPACE::cuda::hopper {

class products {
 public:
  explicit products(const device& d) : multiprocessors_(d.multiprocessors) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, product_kernel<float16, true, true>), "find a device");
    const bool compiled = attributes.maxThreadsPerBlock >= threads;  // else the kernel is empty
    if (d.major != 9 || d.minor != 0)
      why_not_ = "matopt's kernel needs compute capability 9.0";
    else if (!compiled)
      why_not_ =
          "this program was compiled without sm_90a (nvcc -gencode arch=compute_90a,code=sm_90a, or "
          "CMAKE_CUDA_ARCHITECTURES=90a)";
    else if (!(encode_ = find_encoder()))
      why_not_ = "the driver has no cuTensorMapEncodeTiled";
  }

  // Why the kernel is not used here; empty if it is.
  const std::string& why_not() const { return why_not_; }

  // Where cuBLAS would be slower. Of a symmetric D it does twice the work, but what one round of whole tiles does takes
  // one round in a triangle, too. Of other D this kernel gains little, and only over some rounds.
  bool pays(index_t m, index_t n, index_t batch, bool symmetric) const {
    const index_t rows = (m + tile_rows - 1) / tile_rows, columns = (n + tile_columns - 1) / tile_columns;
    return rows * columns * batch > (symmetric ? 1 : 3) * multiprocessors_;
  }
  // Starts D = alpha A B + beta C, or returns false. D is stored by rows; where beta is 0, C is not read. D may be of
  // floats where A lies by rows and B by columns. `guard`: one word for each matrix, or null.
  template <class T, class D>
  bool run(cudaStream_t stream, const status_word* guard, float alpha, const view<const T>& a, const view<const T>& b,
           float beta, const view<const D>& c, const view<D>& d, bool symmetric) const {
    static_assert(sizeof(T) == 2 && (std::is_same_v<D, T> || std::is_same_v<D, float>));
    constexpr bool to_float = std::is_same_v<D, float>;
    if (!encode_ || d.col_stride != 1) return false;
    const view<const D> read_c = beta == 0 ? as_const(d) : c;
    if (a.batch != d.batch || b.batch != d.batch || read_c.batch != d.batch) return false;
    const lines of_a = lines::along_columns(a), of_b = lines::along_columns(b), of_c = lines::along_columns(read_c),
                of_d = lines::along_columns(d);
    if (!of_a.fit || !of_b.fit || !of_c.fit || !of_d.fit || of_d.transposed || of_c.transposed) return false;
    if (of_d.along % 8 != 0) return false;  // the copy engine would write to the end of the 16 bytes
    const bool a_lines_are_k = of_a.transposed, b_lines_are_k = !of_b.transposed;
    CUtensorMap map_a, map_b, map_c, map_d, mirror;
    if (!map<T>(map_a, a.data, of_a, d.batch, a_lines_are_k ? box : 128) ||
        !map<T>(map_b, b.data, of_b, d.batch, b_lines_are_k ? box : 128))
      return false;
    work w = plan(d.rows, d.cols, a.cols, d.batch, alpha, beta, symmetric);
    w.guard = guard;
    if constexpr (to_float) {
      if (a_lines_are_k || b_lines_are_k) return false;
      const float_result r{d.data,
                           read_c.data,
                           d.row_stride,
                           d.batch_stride,
                           read_c.row_stride,
                           read_c.batch_stride,
                           static_cast<int>(d.rows),
                           static_cast<int>(d.cols)};
      start(stream, product_kernel<T, false, false, true>, map_a, map_b, map_a, map_a, map_a, w, r);
    } else {
      if (!map<T>(map_c, read_c.data, of_c, d.batch, box) || !map<T>(map_d, d.data, of_d, d.batch, box) ||
          !map<T>(mirror, d.data, of_d, d.batch, 128))
        return false;
      const auto run = [&](auto kernel) {
        start(stream, kernel, map_a, map_b, map_c, map_d, mirror, w, float_result{});
      };
      if (a_lines_are_k)
        b_lines_are_k ? run(product_kernel<T, true, true>) : run(product_kernel<T, true, false>);
      else
        b_lines_are_k ? run(product_kernel<T, false, true>) : run(product_kernel<T, false, false>);
    }
    return true;
  }

 private:
  // Each translation unit has kernels of its own: the limit has to be raised where the kernel is started.
  template <class Kernel, class... A>
  void start(cudaStream_t stream, Kernel kernel, const A&... arguments) const {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "gemm");
    cudaLaunchAttribute early{};  // its start overlaps the end of a product before it
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how{};
    how.gridDim = dim3(static_cast<unsigned>(multiprocessors_)), how.blockDim = dim3(threads);
    how.dynamicSmemBytes = shared_bytes, how.stream = stream;
    how.attrs = &early, how.numAttrs = 1;
    check(cudaLaunchKernelEx(&how, kernel, arguments...), "gemm");
  }
  using encoder = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                               const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                               CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

  // A function of the driver, so that programs need not link against the driver's library.
  static encoder find_encoder() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    constexpr const char* name = "cuTensorMapEncodeTiled";
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &status), "find a driver function");
#else
    check(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &status), "find a driver function");
#endif
    return status == cudaDriverEntryPointSuccess ? reinterpret_cast<encoder>(found) : nullptr;
  }

  // A batch of matrices as the copy engine sees it: lines of contiguous elements.
  struct lines {
    bool fit, transposed;  // transposed: lines are columns
    index_t along, count, stride, batch_stride;

    template <class T>
    static lines along_columns(const view<T>& v) {
      lines l{};
      l.transposed = v.col_stride != 1;
      l.along = l.transposed ? v.rows : v.cols, l.count = l.transposed ? v.cols : v.rows;
      l.stride = l.transposed ? v.col_stride : v.row_stride;
      l.batch_stride = v.batch > 1 ? v.batch_stride : l.stride * l.count;
      const index_t step = l.transposed ? v.row_stride : v.col_stride;
      l.fit = !v.table && step == 1 && l.stride >= l.along && l.stride % 8 == 0 && l.batch_stride % 8 == 0 &&
              l.batch_stride > 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 &&
              std::max({l.along, l.count, v.batch}) < (index_t{1} << 31);
      return l;
    }
  };

  template <class T>
  bool map(CUtensorMap& m, const T* data, const lines& l, index_t batch, int box_lines) const {
    const cuuint64_t size[] = {static_cast<cuuint64_t>(l.along), static_cast<cuuint64_t>(l.count),
                               static_cast<cuuint64_t>(batch)};
    const cuuint64_t stride[] = {static_cast<cuuint64_t>(l.stride) * sizeof(T),
                                 static_cast<cuuint64_t>(l.batch_stride) * sizeof(T)};
    const cuuint32_t boxes[] = {box, static_cast<cuuint32_t>(box_lines), 1}, each[] = {1, 1, 1};
    return encode_(&m, std::is_same_v<T, float16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                   3, const_cast<std::remove_const_t<T>*>(data), size, stride, boxes, each,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
  }

  work plan(index_t m, index_t n, index_t k, index_t batch, float alpha, float beta, bool symmetric) const {
    const auto up = [](index_t x, int by) { return static_cast<int>((x + by - 1) / by); };
    work w{};
    w.depth_steps = up(k, depth), w.row_tiles = up(m, tile_rows), w.column_tiles = up(n, tile_columns);
    const int matrices = static_cast<int>(batch), blocks = multiprocessors_;
    if (symmetric) {
      const int pairs = (w.row_tiles - 1) / 2;
      w.tiles = pairs * (pairs + 1) + (w.row_tiles % 2 == 0 ? pairs + 1 : 0);
      w.diagonal_tiles = (w.row_tiles + 1) / 2;
    } else {
      w.tiles = w.row_tiles * w.column_tiles;
    }
    const int all = w.tiles * matrices, last = all % blocks;
    w.diagonal = w.diagonal_tiles * matrices;
    // Rounds of half tiles after the last full round of whole ones, with the tiles left over whole, and cut.
    const int left_whole = last == 0 ? 0 : 2, free = last == 0 ? 0 : 2 * (blocks - last);
    const int rounds = left_whole + up(std::max(0, w.diagonal - free), blocks);
    const bool cut = up(w.diagonal + 2 * last, blocks) < rounds;
    w.whole = cut ? all - last : all;
    w.half = w.diagonal + 2 * (all - w.whole);
    w.behind = cut || last == 0 ? 0 : blocks - last;
    w.symmetric = symmetric, w.alpha = alpha, w.beta = beta;
    return w;
  }

  int multiprocessors_;
  encoder encode_ = nullptr;
  std::string why_not_;
};

}  // namespace MATOPT_NAMESPACE::cuda::hopper
