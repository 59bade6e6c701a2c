// Products of float matrices on tensor cores, from two 11-bit pieces of every entry:
//
//   x = hi + lo + e,  |e| <= 2^-22 |x|        A B = [hi lo hi] [lo; hi; hi] + lo lo
//
// as products of three times the depth. What is left out, lo lo and e, is 2^-22 of a term. Tensor cores cut off what
// does not fit into a sum, always towards zero, so that errors of long sums add up (Ootomo, Yokota, arXiv 2203.03341).
// So the small terms come first, and no sum has more than 768 of the large ones before it is added to D by rounding to
// nearest: the result is within about 2^-18.5 (tfloat32) or 2^-19.5 (float16) of the largest partial sum. The pieces:
//
//   tfloat32   whatever the entries are
//   float16    of entries up to 64 in size, times 2^9 so that small ones keep their pieces: what is below 2^-12
//              loses bits of lo, and everything at most 2^-34. Twice as fast
//
// Needs 6 bytes of workspace per entry of A and B with float16 and 12 with tfloat32, of as many matrices as go through
// at a time. (Markidis et al., arXiv 1803.04014.)
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cuda_fp16.h>

#include <algorithm>

#include "../core/backend.hpp"
#include "../core/math.hpp"
#include "device.cuh"
#include "extent.cuh"
#include "hopper_product.cuh"
#include "product.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class P>
struct piece;
template <>
struct piece<float16> {
  using stored = unsigned short;
  static constexpr float scale = 512;
  static constexpr index_t longest_sum = 48 * 16;  // steps of a tensor core, and terms of each
  static __device__ void of(float x, stored& hi, stored& lo) {
    const __half h = __float2half_rn(x * scale);
    hi = __half_as_ushort(h), lo = __half_as_ushort(__float2half_rn(x * scale - __half2float(h)));
  }
};
template <>
struct piece<tfloat32> {
  using stored = float;
  static constexpr float scale = 1;
  static constexpr index_t longest_sum = 96 * 8;
  static __device__ void of(float x, stored& hi, stored& lo) {
    const auto rounded = [](float y) { return __uint_as_float((__float_as_uint(y) + 0x1000U) & ~0x1fffU); };
    const bool finite = x - x == 0.F;
    hi = finite ? rounded(x) : x, lo = finite ? rounded(x - hi) : 0.F;
  }
};

// The pieces of a factor, side by side: hi lo hi of a left one, lo hi hi of a right one, and hi lo hi hi of one that is
// both, A of A A^T: the first three and the last three of these.
enum class side { left, right, both };
constexpr unsigned count_of(side s) { return s == side::both ? 4 : 3; }

// Writes one chunk of 16 bytes of each piece. A line of `out` is made of stretches of longest_sum columns, each as its
// pieces side by side.
template <class P>
__device__ void put_pieces(const float* x, typename piece<P>::stored* line, unsigned column, unsigned depth,
                           side which) {
  using stored = typename piece<P>::stored;
  constexpr int each = 16 / static_cast<int>(sizeof(stored));
  constexpr unsigned longest = static_cast<unsigned>(piece<P>::longest_sum);
  alignas(16) stored hi[each], lo[each];
#pragma unroll
  for (int j = 0; j < each; ++j) piece<P>::of(x[j], hi[j], lo[j]);
  const unsigned begin = column / longest * longest, width = depth - begin < longest ? depth - begin : longest;
  stored* const to = line + count_of(which) * begin + (column - begin);
  const auto put = [](stored* where, const stored* what) {
    *reinterpret_cast<uint4*>(where) = *reinterpret_cast<const uint4*>(what);
  };
  put(to, which == side::right ? lo : hi);
  put(to + width, which == side::right ? hi : lo);
  put(to + 2 * width, hi);
  if (which == side::both) put(to + 3 * width, hi);
}

// out (rows x 3 depth, by rows) from x (rows x cols), cols <= depth, whose rows are contiguous: a thread takes a chunk.
template <class P>
__global__ void __launch_bounds__(block_size)
    pieces_of_rows(const status_word* guard, view<const float> x, typename piece<P>::stored* out, unsigned depth,
                   side which, bool aligned) {
  constexpr int each = 16 / static_cast<int>(sizeof(typename piece<P>::stored));
  const unsigned per_row = (depth + each - 1) / each, chunk = blockIdx.x * block_size + threadIdx.x,
                 row = chunk / per_row, column = (chunk - row * per_row) * each;
  if (row >= x.rows) return;
  for (index_t b = blockIdx.y; b < x.batch; b += gridDim.y) {
    if (guard && guard[b]) continue;
    const float* const from = x.base(b) + row * x.row_stride + column;
    alignas(16) float values[each];
    if (aligned && column + each <= x.cols) {
#pragma unroll
      for (int j = 0; j < each; j += 4)
        *reinterpret_cast<float4*>(values + j) = *reinterpret_cast<const float4*>(from + j);
    } else {
#pragma unroll
      for (int j = 0; j < each; ++j) values[j] = column + j < x.cols ? from[j] : 0.F;
    }
    put_pieces<P>(values, out + (b * x.rows + row) * count_of(which) * depth, column, depth, which);
  }
}

// The same of columns that are contiguous, through a tile of 32 rows and 64 columns, which belong to one stretch.
inline constexpr int piece_tile = 64;
template <class P>
__global__ void __launch_bounds__(block_size)
    pieces_of_columns(const status_word* guard, view<const float> x, typename piece<P>::stored* out, unsigned depth,
                      side which) {
  constexpr int each = 16 / static_cast<int>(sizeof(typename piece<P>::stored)), chunks = piece_tile / each;
  __shared__ float tile[32][piece_tile + 1];
  const index_t row = index_t{blockIdx.y} * 32, column = index_t{blockIdx.x} * piece_tile;
  for (index_t b = blockIdx.z; b < x.batch; b += gridDim.z) {
    if (guard && guard[b]) continue;
    const float* const from = x.base(b) + row * x.row_stride + column * x.col_stride;
    for (int i = static_cast<int>(threadIdx.x); i < 32 * piece_tile; i += block_size) {
      const int r = i % 32, c = i / 32;
      tile[r][c] = row + r < x.rows && column + c < x.cols ? from[r * x.row_stride + c * x.col_stride] : 0.F;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 32 * chunks; i += block_size) {
      const int r = i / chunks, c = i % chunks * each;
      if (row + r < x.rows && column + c < depth)
        put_pieces<P>(&tile[r][c], out + (b * x.rows + row + r) * count_of(which) * depth,
                      static_cast<unsigned>(column + c), depth, which);
    }
    __syncthreads();
  }
}

class piecewise_product {
 public:
  explicit piecewise_product(const device& d)
      : tensor_cores_(d.major == 9 || d.major == 10 || (d.major == 8 && d.minor == 0)) {}

  // Whether it takes less time than a product in float: by arithmetic and memory of an H200.
  template <class P>
  bool pays(index_t m, index_t n, index_t k, index_t batch) const {
    constexpr double by_float = 46e12, by_pieces = std::is_same_v<P, float16> ? 700e12 : 350e12, memory = 3.5e12;
    const double dm = static_cast<double>(m), dn = static_cast<double>(n), dk = static_cast<double>(k),
                 operations = 2 * dm * dn * dk, entries = (dm + dn) * dk, plain = operations / by_float,
                 pieces = 3 * operations / by_pieces + entries * (4 + 3 * sizeof(typename piece<P>::stored)) / memory;
    constexpr double launches = 8e-6;
    return tensor_cores_ && static_cast<double>(batch) * (plain - 1.1 * pieces) > launches;
  }
  template <class P>
  static std::size_t workspace(index_t m, index_t n, index_t k, index_t batch) {
    return static_cast<std::size_t>(at_once<P>(m, n, k, batch)) * bytes<P>(m, n, k);
  }

  // As products::run, with a workspace of that size. Where `few` guards are down, by `own`, which leaves the other
  // matrices out, if it can; returns whether a symmetric D is so to the last bit. D's columns are contiguous. (With all
  // guards down cuBLAS is faster: an exact polar factor of GPT-2 124M's matrices took a tenth less time on an H100.)
  template <class P>
  static bool run(const hopper::products& own, products& by, cudaStream_t stream, const status_word* guard, float alpha,
                  const view<const float>& a, const view<const float>& b, float beta, const view<const float>& c,
                  const view<float>& d, std::byte* workspace, bool few, bool symmetric) {
    const index_t m = d.rows, n = d.cols, depth = padded(a.cols), most = at_once<P>(m, n, a.cols, d.batch);
    P* const pieces = reinterpret_cast<P*>(workspace);
    bool mirrored = symmetric;
    for (index_t first = 0; first < d.batch; first += most) {
      const index_t count = std::min(most, d.batch - first);
      const status_word* const guards = guard ? guard + first : nullptr;
      const view<const float> l = a.matrices(first, count), r = b.matrices(first, count).t();
      const bool square = same(l, r);
      const index_t line = (square ? 4 : 3) * depth;
      const view<const P> left = row_major(pieces, m, line, count),
                          right = square ? left : row_major(pieces + m * line * most, n, line, count);
      split<P>(stream, guards, l, pieces, depth, square ? side::both : side::left);
      if (!square) split<P>(stream, guards, r, pieces + m * line * most, depth, side::right);
      const view<float> out = d.matrices(first, count);
      for (index_t begin = 0; begin < depth; begin += piece<P>::longest_sum) {
        const index_t width = std::min(piece<P>::longest_sum, depth - begin), at = line / depth * begin;
        const float factor = alpha / (piece<P>::scale * piece<P>::scale), rest = begin == 0 ? beta : 1.F;
        const view<const P> x = left.col_block(at, 3 * width), y = right.col_block(square ? at + width : at, 3 * width);
        const view<const float> z = begin == 0 ? c.matrices(first, count) : as_const(out);
        bool done = false;
        if constexpr (sizeof(P) == 2)
          done = few && own.run<P>(stream, guards, factor, y, x.t(), rest, z.t(), out.t(), symmetric);
        if (!done) by.run<float, P>(stream, factor, x, y.t(), rest, z, out);
        mirrored = mirrored && done;
      }
    }
    check_launch("gemm");
    return mirrored;
  }

 private:
  static bool same(const view<const float>& x, const view<const float>& y) {
    return x.data == y.data && x.rows == y.rows && x.cols == y.cols && x.row_stride == y.row_stride &&
           x.col_stride == y.col_stride && x.batch_stride == y.batch_stride && x.table == y.table;
  }
  static constexpr std::size_t most_workspace = std::size_t{192} << 20;

  static index_t padded(index_t k) { return (k + 7) / 8 * 8; }
  template <class P>
  static std::size_t bytes(index_t m, index_t n, index_t k) {
    return static_cast<std::size_t>((m + n) * 3 * padded(k)) * sizeof(P);
  }
  // In equal parts that fit into most_workspace.
  template <class P>
  static index_t at_once(index_t m, index_t n, index_t k, index_t batch) {
    const auto fit =
        std::max<index_t>(1, static_cast<index_t>(most_workspace / std::max<std::size_t>(1, bytes<P>(m, n, k))));
    const index_t parts = std::max<index_t>(1, (batch + fit - 1) / fit);
    return (batch + parts - 1) / parts;
  }
  template <class P>
  static void split(cudaStream_t stream, const status_word* guard, const view<const float>& x, P* out, index_t depth,
                    side which) {
    using stored = typename piece<P>::stored;
    const auto to = reinterpret_cast<stored*>(out);
    const auto deep = static_cast<unsigned>(depth), batch = static_cast<unsigned>(std::min(most_batch, x.batch));
    const index_t chunks = x.rows * ((depth * static_cast<index_t>(sizeof(stored)) + 15) / 16);
    if (x.col_stride == 1 && chunks < index_t{1} << 31) {
      const auto whole = [](auto v) { return v % 4 == 0; };
      const bool aligned = whole(x.row_stride) && (x.batch == 1 || whole(x.batch_stride)) &&
                           reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && !x.table;
      const dim3 grid(static_cast<unsigned>((chunks + block_size - 1) / block_size), batch);
      pieces_of_rows<P><<<grid, block_size, 0, stream>>>(guard, x, to, deep, which, aligned);
    } else {
      const dim3 grid(static_cast<unsigned>((depth + piece_tile - 1) / piece_tile),
                      static_cast<unsigned>((x.rows + 31) / 32), batch);
      pieces_of_columns<P><<<grid, block_size, 0, stream>>>(guard, x, to, deep, which);
    }
  }

  bool tensor_cores_;
};

}  // namespace MATOPT_NAMESPACE::cuda
