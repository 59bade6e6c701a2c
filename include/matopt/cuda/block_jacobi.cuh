// The thin singular value decomposition by one-sided Jacobi rotations of blocks of columns, for batches of matrices of
// more than some dozen columns, without the host.
//
//   A = Q R            tall side first, by orthonormal_basis; R = Q^T A
//   X = R^T            n x n; its columns start more orthogonal than A's, so fewer sweeps do
//   X J = Y S          J from rotations of pairs of blocks; Y's columns are orthonormal, or zero
//   A = (Q J) S Y^T    Q J is orthonormal even where singular values are zero
//
// A sweep takes every pair of blocks once, in rounds of disjoint pairs (a round-robin tournament), which run side by
// side. A round is two launches. In the first a CUDA block forms the Gram matrix of a pair's columns, in double, and
// makes one sweep of two-sided rotations over it in shared memory; the product of the rotations, with its columns
// sorted by what they make of X's, longest first, is what the second launch multiplies the columns of X and J by. Pairs
// whose columns are orthogonal are left alone, and once a matrix has none else, the rest of its launches return at
// once: the shape alone decides what is launched, so that a graph can hold it.
//
// Rotating R^T: Drmac, Veselic (SIAM J. Matrix Anal. 29, 2008). Blocks: Becka, Oksa, Vajtersic (Parallel Computing 28,
// 2002).
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>

#include "../core/functors.hpp"
#include "../core/householder.hpp"
#include "error.cuh"
#include "factorize.cuh"

namespace matopt::fn {
// to = from, or 0 if A = 0
struct assign_unless_zero {
  template <class T>
  MATOPT_HD void operator()(T& to, T from, T largest) const {
    to = largest > T(0) ? from : T(0);
  }
};
}  // namespace matopt::fn

namespace matopt::cuda {

__host__ __device__ inline index_t tournament_player(index_t i, index_t round, index_t players) {
  return i == 0 ? 0 : 1 + (round + i - 1) % (players - 1);
}

// What the kernels of one decomposition share. X and J of matrix b are n x n and column-major at b n^2.
template <class T>
struct block_jacobi_memory {
  index_t n, blocks;  // blocks of columns; an even number, so some may be empty
  T *x, *j;
  T* rotation;  // of each pair of blocks of each matrix, by rows
  T* norm;      // of X's columns
  T *largest, *squares;  // |A|'s largest entry; ||X||_F^2
  int* turned;           // of each matrix: flags of three sweeps, the number of sweeps, and a flag for each pair

  MATOPT_HD index_t pairs() const { return blocks / 2; }
  MATOPT_HD index_t flags() const { return 4 + pairs(); }
};

// J = I, and the flag that lets the first sweep run.
template <class T>
__global__ void __launch_bounds__(256) block_jacobi_begin(const status_word* guard, block_jacobi_memory<T> l) {
  const index_t b = blockIdx.y, column = blockIdx.x;
  if (guard && guard[b]) return;
  T* const j = l.j + (b * l.n + column) * l.n;
  for (index_t i = threadIdx.x; i < l.n; i += blockDim.x) j[i] = T(i == column);
  if (column == 0)
    for (index_t i = threadIdx.x; i < l.flags(); i += blockDim.x) l.turned[b * l.flags() + i] = i == 0;
}

// One launch of a round: a block of threads per pair of blocks, and per matrix.
template <class T, int Width>
struct pair_diagonalization {
  static constexpr int columns = 2 * Width, line = columns + 1, threads = 256, rows_at_once = 32, tile = columns / 16;
  static_assert(columns % 16 == 0 && Width <= 32 && rows_at_once <= columns);
  static constexpr std::size_t shared_bytes = 2 * columns * line * sizeof(double);
  static constexpr int fetched = rows_at_once * columns / threads;  // by each thread
};
template <class T, int Width, int Sweeps>
__global__ void __launch_bounds__(256)
    diagonalize_pairs_kernel(const status_word* guard, block_jacobi_memory<T> l, int sweep, index_t round) {
  using sizes = pair_diagonalization<T, Width>;
  constexpr int columns = sizes::columns, line = sizes::line, tile = sizes::tile;
  const index_t b = blockIdx.y, n = l.n, pair = blockIdx.x;
  if (guard && guard[b]) return;
  const int id = static_cast<int>(threadIdx.x), lane = id % 32, warp = id / 32;
  // Whether the sweep before turned something, this one does, and the next one will: three flags that take turns.
  int* const flags = l.turned + b * l.flags();
  const bool active = flags[sweep % 3] != 0;
  if (id == 0) {
    flags[4 + pair] = 0;
    if (round == 0 && pair == 0) {
      flags[(sweep + 2) % 3] = 0;
      if (active) ++flags[3];
    }
  }
  if (!active) return;

  extern __shared__ double shared[];
  double *const gram = shared, *const j = shared + columns * line, *const stage = j;
  __shared__ double sine[Width], half_tangent[Width];
  __shared__ int left[Width], right[Width], from[columns];

  const index_t one = tournament_player(pair, round, l.blocks),
                other = tournament_player(l.blocks - 1 - pair, round, l.blocks);
  // The lower block comes first, so what is missing of the last block's columns is the end of the pair.
  const index_t first = math::min(one, other) * Width, second = math::max(one, other) * Width;
  const T* const x = l.x + b * n * n;

  // The Gram matrix; a thread sums tile x tile of its entries, those above the diagonal of tiles only.
  T next[sizes::fetched];
  const auto fetch = [&](index_t row) {
    for (int e = 0; e < sizes::fetched; ++e) {
      const int c = warp + e * (sizes::threads / 32);
      const index_t column = c < Width ? first + c : second + c - Width;
      next[e] = row + lane < n && column < n ? x[column * n + row + lane] : T(0);
    }
  };
  double sum[tile][tile] = {};
  const int ty = id / 16, tx = id % 16;
  fetch(0);
  for (index_t row = 0; row < n; row += sizes::rows_at_once) {
    __syncthreads();
    for (int e = 0; e < sizes::fetched; ++e)
      stage[lane * line + warp + e * (sizes::threads / 32)] = static_cast<double>(next[e]);
    __syncthreads();
    fetch(row + sizes::rows_at_once);
#pragma unroll 4
    for (int r = 0; r < sizes::rows_at_once; ++r) {
      double of_row[tile], of_column[tile];
      for (int k = 0; k < tile; ++k) of_row[k] = stage[r * line + ty + 16 * k];
      for (int k = 0; k < tile; ++k) of_column[k] = stage[r * line + tx + 16 * k];
      for (int p = 0; p < tile; ++p)
        for (int q = p; q < tile; ++q) sum[p][q] += of_row[p] * of_column[q];
    }
  }
  for (int p = 0; p < tile; ++p)
    for (int q = p; q < tile; ++q) {
      gram[(ty + 16 * p) * line + tx + 16 * q] = sum[p][q];
      if (p != q) gram[(tx + 16 * q) * line + ty + 16 * p] = sum[p][q];
    }
  __syncthreads();

  constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  const double negligible = static_cast<double>(l.squares[b]) * eps * eps * eps;
  const auto cosine_above = [&](double limit, int p, int q) {
    const double pp = gram[p * line + p], qq = gram[q * line + q];
    return pp > negligible && qq > negligible && math::abs(gram[p * line + q]) > limit * math::sqrt(pp * qq);
  };
  // By the sine and the tangent of half the angle: in this form the rotation's rounding has no preferred sign, and the
  // product of thousands stays orthogonal. By cosine and sine J's columns would grow.
  const auto turn = [](double& p, double& q, double s, double h) {
    const double u = p, v = q;
    p = u - s * (v + h * u);
    q = v + s * (u - h * v);
  };
  bool turns = false;
  const double limit = eps * math::sqrt(static_cast<double>(n));
  for (int e = id; e < columns * columns; e += sizes::threads) {
    const int p = e / columns, q = e % columns;
    turns = turns || (p < q && cosine_above(limit, p, q));
  }
  if (!__syncthreads_or(turns)) return;
  if (id == 0) flags[4 + pair] = flags[(sweep + 1) % 3] = 1;
  for (int e = id; e < columns * columns; e += sizes::threads)
    j[e / columns * line + e % columns] = e / columns == e % columns ? 1.0 : 0.0;

  // Sweeps over the pairs of columns, in rounds of disjoint ones. Each thread turns the columns of one pair in some
  // of the rows; those of `gram` belong to pairs, too, and are turned at the same time.
  constexpr int groups = sizes::threads / Width;
  const int mine = id % Width, group = id / Width;
  for (int r = 0; r < Sweeps * (columns - 1); ++r) {
    bool turning = false;
    if (id < Width) {
      const int some = static_cast<int>(tournament_player(id, r, columns)),
                others = static_cast<int>(tournament_player(columns - 1 - id, r, columns));
      const int p = math::min(some, others), q = math::max(some, others);
      double s = 0, h = 0;
      turning = cosine_above(eps / 2, p, q);
      if (turning) {
        const double zeta = (gram[q * line + q] - gram[p * line + p]) / (2 * gram[p * line + q]);
        const double t = (zeta < 0 ? -1.0 : 1.0) / (math::abs(zeta) + math::sqrt(1 + zeta * zeta));
        const double root = math::sqrt(1 + t * t);
        s = t / root, h = t / (1 + root);
      }
      left[id] = p, right[id] = q, sine[id] = s, half_tangent[id] = h;
    }
    if (!__syncthreads_or(turning)) continue;
    if (group < groups) {
      const int p = left[mine], q = right[mine];
      const double s = sine[mine], h = half_tangent[mine];
      for (int k = group; k < Width; k += groups) {
        double *const upper = gram + left[k] * line, *const lower = gram + right[k] * line;
        double pp = upper[p], pq = upper[q], qp = lower[p], qq = lower[q];
        turn(pp, pq, s, h), turn(qp, qq, s, h);
        turn(pp, qp, sine[k], half_tangent[k]), turn(pq, qq, sine[k], half_tangent[k]);
        if (k == mine && s != 0) pq = qp = 0;
        upper[p] = pp, upper[q] = pq, lower[p] = qp, lower[q] = qq;
      }
      for (int i = group; i < columns; i += groups) turn(j[i * line + p], j[i * line + q], s, h);
    }
    __syncthreads();
  }

  // The longest column first: then blocks meet with their columns sorted, which saves sweeps.
  if (id < columns) from[id] = id;
  __syncthreads();
  if (id < columns) {
    const double length = gram[id * line + id];
    int before = 0;
    for (int i = 0; i < columns; ++i) {
      const double l_i = gram[i * line + i];
      before += l_i > length || (l_i == length && i < id);
    }
    from[before] = id;
  }
  __syncthreads();
  T* const rotation = l.rotation + (b * l.pairs() + pair) * columns * columns;
  for (int e = id; e < columns * columns; e += sizes::threads)
    rotation[e] = static_cast<T>(j[e / columns * line + from[e % columns]]);
}

// The other launch of a round: the columns of a pair times its rotation, in place. A block of threads takes some rows
// of X or J, all columns of the pair.
template <class T, int Width>
struct pair_turn {
  static constexpr int columns = 2 * Width, threads = 256, rows_of_lane = 16 / sizeof(T), rows = 32 * rows_of_lane,
                       columns_of_warp = columns / (threads / 32);
  static constexpr std::size_t shared_bytes = columns * (rows + columns) * sizeof(T);
  // Blocks for X alone
  static index_t tiles(index_t n) { return (n + rows - 1) / rows; }
};
template <class T, int Width>
__global__ void __launch_bounds__(256)
    turn_pairs_kernel(const status_word* guard, block_jacobi_memory<T> l, index_t round) {
  using sizes = pair_turn<T, Width>;
  constexpr int columns = sizes::columns, rows = sizes::rows, mine = sizes::columns_of_warp;
  const index_t b = blockIdx.z, n = l.n, pair = blockIdx.y;
  if ((guard && guard[b]) || !l.turned[b * l.flags() + 4 + pair]) return;
  extern __shared__ double shared[];
  T *const tile = reinterpret_cast<T*>(shared), *const turn = tile + columns * rows;
  const int id = static_cast<int>(threadIdx.x), lane = id % 32, warp = id / 32;
  const index_t one = tournament_player(pair, round, l.blocks),
                other = tournament_player(l.blocks - 1 - pair, round, l.blocks);
  const index_t first = math::min(one, other) * Width, second = math::max(one, other) * Width;
  const index_t tiles = gridDim.x / 2, row = static_cast<index_t>(blockIdx.x) % tiles * rows;
  T* const matrix = (static_cast<index_t>(blockIdx.x) < tiles ? l.x : l.j) + b * n * n;
  const auto column = [&](int c) { return c < Width ? first + c : second + c - Width; };

  const T* const rotation = l.rotation + (b * l.pairs() + pair) * columns * columns;
  for (int e = id; e < columns * columns; e += sizes::threads) turn[e] = rotation[e];
  for (int c = warp; c < columns; c += sizes::threads / 32)
    for (int i = lane; i < rows; i += 32)
      tile[c * rows + i] = row + i < n && column(c) < n ? matrix[column(c) * n + row + i] : T(0);
  __syncthreads();
  T sum[sizes::rows_of_lane][mine] = {};
#pragma unroll 4
  for (int k = 0; k < columns; ++k) {
    T of_row[sizes::rows_of_lane], of_column[mine];
    for (int i = 0; i < sizes::rows_of_lane; ++i) of_row[i] = tile[k * rows + lane + 32 * i];
    for (int c = 0; c < mine; ++c) of_column[c] = turn[k * columns + warp * mine + c];
    for (int i = 0; i < sizes::rows_of_lane; ++i)
      for (int c = 0; c < mine; ++c) sum[i][c] += of_row[i] * of_column[c];
  }
  for (int c = 0; c < mine; ++c) {
    const index_t to = column(warp * mine + c);
    for (int i = 0; i < sizes::rows_of_lane; ++i)
      if (to < n && row + lane + 32 * i < n) matrix[to * n + row + lane + 32 * i] = sum[i][c];
  }
}

template <class T>
__global__ void __launch_bounds__(256) block_jacobi_norms(const status_word* guard, block_jacobi_memory<T> l) {
  const index_t b = blockIdx.y, k = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if ((guard && guard[b]) || k >= l.n) return;
  const T* const x = l.x + (b * l.n + k) * l.n;
  double squares = 0;
  for (index_t i = threadIdx.x % 32; i < l.n; i += 32) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  squares = warp_sum(squares);
  if (threadIdx.x % 32 == 0) l.norm[b * l.n + k] = static_cast<T>(math::sqrt(squares));
}

// The columns in the order of their norms, descending: X / norm to y, J to `other`. A warp takes a column.
template <class T>
__global__ void __launch_bounds__(256)
    block_jacobi_store(const status_word* guard, block_jacobi_memory<T> l, view<T> y, view<T> values, view<T> other) {
  const index_t b = blockIdx.y, k = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if ((guard && guard[b]) || k >= l.n) return;
  const T *const norm = l.norm + b * l.n, n = norm[k];
  int before = 0;
  for (index_t i = lane; i < l.n; i += 32) before += norm[i] > n || (norm[i] == n && i < k);
  before = warp_sum(before);
  if (lane == 0) values(before, 0, b) = n * l.largest[b];
  const T *const x = l.x + (b * l.n + k) * l.n, *const j = l.j + (b * l.n + k) * l.n;
  for (index_t i = lane; i < l.n; i += 32) {
    y(i, before, b) = n > T(0) ? x[i] / n : T(0);
    other(i, before, b) = j[i];
  }
}

// Width: columns of a block. Sweeps: over a pair's columns each time it is met.
template <class T, int Width = 24, int Sweeps = 1>
class block_jacobi_svd {
 public:
  static constexpr int most_sweeps = 20;

  // Bytes
  static std::size_t workspace(index_t rows, index_t cols, index_t batch) {
    return pieces(rows, cols, batch).bytes;
  }

  // A = U diag(s) V^T; `verbs` are the backend's, and its memory has a workspace for this shape.
  template <class Backend>
  static void run(Backend& verbs, cudaStream_t stream, const status_word* guard, const view<const T>& a,
                  const view<T>& u, const view<T>& s, const view<T>& v, std::byte* workspace) {
    if (a.rows < a.cols) return run(verbs, stream, guard, a.t(), v, s, u, workspace);
    const index_t m = a.rows, n = a.cols, batch = a.batch;
    const pieces at(m, n, batch);
    const auto part = [&](std::size_t bytes) { return reinterpret_cast<T*>(workspace + bytes); };
    const block_jacobi_memory<T> l = memory(m, n, batch, workspace);
    const view<T> scaled = col_major(part(at.scaled), m, n, batch), q = col_major(part(at.q), m, n, batch),
                  x = col_major(l.x, n, n, batch), sorted = col_major(scaled.data, n, n, batch),
                  product = col_major(part(at.shared), m, n, batch), largest = col_major(l.largest, 1, 1, batch),
                  squares = col_major(l.squares, 1, 1, batch);
    // Long sums piece by piece: their rounding grows with the length.
    const auto multiply = [&](const view<const T>& left, const view<const T>& right, const view<T>& to) {
      constexpr index_t longest = matopt::detail::householder<T>::longest_sum;
      for (index_t first = 0; first < left.cols; first += math::min(longest, left.cols)) {
        const index_t count = math::min(longest, left.cols - first);
        verbs.template gemm<T>(guard, T(1), left.col_block(first, count), right.row_block(first, count), T(first > 0),
                               to, to);
      }
    };
    // No square overflows.
    verbs.reduce(guard, fn::abs_max{}, largest, a);
    verbs.for_each(guard, fn::divide{}, scaled, a, per_matrix(as_const(largest)));
    verbs.for_each(guard, fn::assign{}, q, as_const(scaled));
    verbs.orthonormal_basis(guard, q, workspace + at.shared);
    multiply(scaled.t(), q, x);
    verbs.reduce(guard, fn::square{}, squares, as_const(x));

    const auto grid = [&](index_t blocks) { return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(batch)); };
    block_jacobi_begin<<<grid(n), 256, 0, stream>>>(guard, l);
    rotate(stream, guard, l, batch);
    block_jacobi_norms<<<grid((n + 7) / 8), 256, 0, stream>>>(guard, l);
    block_jacobi_store<<<grid((n + 7) / 8), 256, 0, stream>>>(guard, l, v, s, sorted);
    check_launch("svd");
    multiply(q, sorted, product);
    verbs.for_each(guard, fn::assign_unless_zero{}, u, as_const(product), per_matrix(as_const(largest)));
  }

  // Where the kernels' numbers lie in a workspace.
  static block_jacobi_memory<T> memory(index_t rows, index_t cols, index_t batch, std::byte* workspace) {
    const index_t n = math::min(rows, cols);
    const pieces at(rows, cols, batch);
    T* const x = reinterpret_cast<T*>(workspace + at.shared);
    T* const rest = reinterpret_cast<T*>(workspace + at.rest);
    block_jacobi_memory<T> l{};
    l.n = n, l.blocks = at.blocks;
    l.x = x, l.j = x + batch * n * n;
    l.rotation = rest;
    l.norm = l.rotation + batch * l.pairs() * 4 * Width * Width;
    l.largest = l.norm + batch * n;
    l.squares = l.largest + batch;
    l.turned = reinterpret_cast<int*>(l.squares + batch);
    return l;
  }

 private:
  // A workspace's parts: A scaled, then J sorted; Q; what orthonormal_basis needs, then X and J, then Q J; and the rest.
  struct pieces {
    index_t blocks;
    std::size_t scaled, q, shared, rest, bytes;
    pieces(index_t rows, index_t cols, index_t batch) {
      const index_t m = math::max(rows, cols), n = math::min(rows, cols);
      blocks = (n + Width - 1) / Width;
      blocks += blocks % 2;
      const auto after = [](std::size_t at, std::size_t size) { return (at + size + 255) / 256 * 256; };
      const auto scalars = [](index_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
      scaled = 0;
      q = after(scaled, scalars(m * n * batch));
      shared = after(q, scalars(m * n * batch));
      rest = after(shared, std::max(matopt::detail::householder<T>::workspace(m, n, batch), scalars(2 * n * n * batch)));
      const index_t pairs = blocks / 2;
      bytes = after(rest, scalars(batch * (pairs * 4 * Width * Width + n + 2)) +
                              static_cast<std::size_t>(batch * (4 + pairs)) * sizeof(int));
    }
  };

  static void rotate(cudaStream_t stream, const status_word* guard, const block_jacobi_memory<T>& l, index_t batch) {
    using diagonalization = pair_diagonalization<T, Width>;
    using turn = pair_turn<T, Width>;
    allow(diagonalize_pairs_kernel<T, Width, Sweeps>, diagonalization::shared_bytes);
    allow(turn_pairs_kernel<T, Width>, turn::shared_bytes);
    const auto pairs = static_cast<unsigned>(l.pairs()), matrices = static_cast<unsigned>(batch),
               tiles = static_cast<unsigned>(2 * turn::tiles(l.n));
    for (int sweep = 0; sweep < most_sweeps; ++sweep)
      for (index_t round = 0; round < l.blocks - 1; ++round) {
        diagonalize_pairs_kernel<T, Width, Sweeps>
            <<<dim3(pairs, matrices), diagonalization::threads, diagonalization::shared_bytes, stream>>>(guard, l,
                                                                                                         sweep, round);
        turn_pairs_kernel<T, Width>
            <<<dim3(tiles, pairs, matrices), turn::threads, turn::shared_bytes, stream>>>(guard, l, round);
      }
  }
  // More shared memory than a kernel may have without asking.
  template <class Kernel>
  static void allow(Kernel kernel, std::size_t bytes) {
    if (bytes > 48 * 1024 - 1024)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "svd");
  }
};

}  // namespace matopt::cuda
