// One round of orthonormalize (core/block_gram_schmidt.hpp) for the columns of a block, P = Q R, on the whole device:
//
//   G = P^T P              in twice the precision: piece by piece of the rows, many blocks of threads
//   R^T R = G              one block of threads per matrix
//   P <- P R^-1            solve_rows
//
// From a G of twice the precision, R is as good as Gram-Schmidt's own where columns are nearly dependent (Yamazaki,
// Tomov, Dongarra, SIAM J. Sci. Comput. 37, 2015). Only the last round drops columns, for then their lengths are known
// as they came out; before it, a pivot is not less than half of what counts as nothing.
#pragma once
#include <limits>

#include "../core/block_gram_schmidt.hpp"
#include "factorize.cuh"

namespace matopt::cuda {

template <class T>
struct panel_round {
  using method = matopt::detail::block_gram_schmidt<T>;
  using wide = std::conditional_t<std::is_same_v<T, float>, double, double_double>;
  static constexpr int width = 32, rows_at_once = 128;
  static_assert(method::width == width, "a warp's lanes are the columns");

  static index_t pieces(index_t rows) { return (rows + rows_at_once - 1) / rows_at_once; }
  static std::size_t sums_bytes(index_t rows, index_t batch) {
    return static_cast<std::size_t>(batch * pieces(rows) * width * width) * sizeof(wide);
  }
  static std::size_t workspace(index_t rows, index_t batch) {
    return sums_bytes(rows, batch) + static_cast<std::size_t>(batch * width * width) * sizeof(T);
  }
  static void run(cudaStream_t stream, const status_word* guard, const view<T>& p, const view<T>& kept, index_t before,
                  index_t round, T tolerance, std::byte* workspace);
};

// The Gram matrix of `rows_at_once` rows of p, 32 x 32, to the place of this piece of this matrix.
template <class T>
__global__ void __launch_bounds__(256)
    gram_kernel(const status_word* guard, view<const T> p, typename panel_round<T>::wide* sums) {
  if (guard && guard[blockIdx.x]) return;
  constexpr int width = panel_round<T>::width, rows_at_once = panel_round<T>::rows_at_once;
  __shared__ double tile[32][width + 1];
  const index_t b = blockIdx.x, first = static_cast<index_t>(blockIdx.y) * rows_at_once, n = p.cols;
  const int thread = static_cast<int>(threadIdx.x), x = thread % 16, y = thread / 16;
  typename panel_round<T>::wide sum[2][2] = {};
  for (int at = 0; at < rows_at_once; at += 32) {
    __syncthreads();
    const int row = thread % 32;
    const bool inside = first + at + row < p.rows;
    for (int j = thread / 32; j < width; j += 8)
      tile[row][j] = inside && j < n ? static_cast<double>(p(first + at + row, j, b)) : 0.0;
    __syncthreads();
#pragma unroll 4
    for (int r = 0; r < 32; ++r) {
      const double left[2] = {tile[r][y], tile[r][y + 16]}, right[2] = {tile[r][x], tile[r][x + 16]};
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) sum[i][j] = add_product(sum[i][j], left[i], right[j]);
    }
  }
  sums += (b * gridDim.y + blockIdx.y) * (width * width);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) sums[(y + 16 * i) * width + x + 16 * j] = sum[i][j];
}

// R of each matrix, 32 x 32 by rows, and what is kept of each column's length.
template <class T>
__global__ void __launch_bounds__(1024)
    panel_factor_kernel(const status_word* guard, const typename panel_round<T>::wide* sums, index_t pieces, T* r,
                        view<T> kept, index_t before, index_t round, T tolerance) {
  if (guard && guard[blockIdx.x]) return;
  using wide = typename panel_round<T>::wide;
  constexpr int width = panel_round<T>::width;
  const index_t b = blockIdx.x, place = threadIdx.x;
  const int x = static_cast<int>(threadIdx.x) % width, y = static_cast<int>(threadIdx.x) / width;
  __shared__ T left[width];
  if (threadIdx.x < static_cast<unsigned>(kept.rows)) left[threadIdx.x] = round == 0 ? T(1) : kept(place, 0, b);
  __syncthreads();
  wide g(0);
  for (index_t i = 0; i < pieces; ++i) g = g + sums[(b * pieces + i) * (width * width) + place];
  const bool last = round + 1 == panel_round<T>::method::rounds;
  const wide mine = upper_factor(g, static_cast<int>(kept.rows), [&](int k, wide pivot) {
    const T least = math::max(tolerance, matopt::detail::rounding_of_projections<T>(before + k));
    const wide length = root(pivot);
    const T now = static_cast<T>(static_cast<double>(length));
    if (last) return now > T(0.5) && now * left[k] > least ? length : wide(std::numeric_limits<double>::infinity());
    const T floor = least / (2 * left[k]);
    return now > floor ? length : wide(static_cast<double>(floor));
  });
  r[b * (width * width) + place] = static_cast<T>(static_cast<double>(mine));
  if (x == y && x < kept.rows) kept(x, 0, b) = left[x] * static_cast<T>(static_cast<double>(mine));
}

template <class T>
void panel_round<T>::run(cudaStream_t stream, const status_word* guard, const view<T>& p, const view<T>& kept,
                         index_t before, index_t round, T tolerance, std::byte* workspace) {
  const auto batch = static_cast<unsigned>(p.batch);
  auto* const sums = reinterpret_cast<wide*>(workspace);
  T* const r = reinterpret_cast<T*>(workspace + sums_bytes(p.rows, p.batch));
  gram_kernel<T><<<dim3(batch, static_cast<unsigned>(pieces(p.rows))), 256, 0, stream>>>(guard, as_const(p), sums);
  panel_factor_kernel<T><<<batch, 1024, 0, stream>>>(guard, sums, pieces(p.rows), r, kept, before, round, tolerance);
  const view<T> factors = row_major(r, width, width, p.batch);
  solve_rows(stream, guard, as_const(factors.row_block(0, p.cols).col_block(0, p.cols)), p);
}

}  // namespace matopt::cuda
