// Kernels of singular value decompositions by blocks of columns (block_jacobi_svd.cuh): a round's two launches, and
// what comes before and after all rounds.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "../core/math.hpp"
#include "factorize.cuh"

namespace MATOPT_NAMESPACE::cuda {

template <class Index>
__device__ Index tournament_player(Index i, Index round, Index players) {
  return i == 0 ? 0 : 1 + (round + i - 1) % (players - 1);
}

// A rotation that makes columns with these inner products orthogonal, but for 1e-7 of their cosine: the tangent of half
// its angle, from float arithmetic, which takes a small part of double's time, and the sine that belongs to it. Turned
// by these two, columns keep their length to rounding, and rounding has no preferred sign: by cosine and sine the
// columns of J would grow a little with each of some thousand rotations.
struct half_angle {
  double sine, tangent;

  __device__ static half_angle between(double pp, double qq, double pq) {
    const double difference = qq - pp, twice = 2 * pq;
    // By a power of two: neither square leaves float's range.
    const std::uint64_t exponent =
        std::bit_cast<std::uint64_t>(math::max(math::abs(difference), math::abs(twice))) >> 52;
    const double scale = std::bit_cast<double>((std::uint64_t{2046} - exponent) << 52);
    const float d = static_cast<float>(difference * scale), x = static_cast<float>(twice * scale);
    const float t = (d < 0 ? -x : x) / (math::abs(d) + math::sqrt(d * d + x * x));
    const double h = static_cast<double>(t / (1 + math::sqrt(1 + t * t)));
    return {2 * h / (1 + h * h), h};
  }
  __device__ void turn(double& p, double& q) const {
    const double u = p, v = q;
    p = u - sine * (v + tangent * u);
    q = v + sine * (u - tangent * v);
  }
};

// What the kernels of one decomposition share. X and J of matrix b are n x n and column-major at b n^2.
template <class T>
struct block_jacobi_memory {
  index_t n, blocks;  // blocks of columns; an even number, so some may be empty
  T *x, *j;
  T* rotation;           // of each pair of blocks of each matrix, by rows
  T* norm;               // of X's columns
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
  __shared__ half_angle angle[Width];
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

  // Columns that are nothing but rounding, or too short for a Gram matrix in double to tell them apart, stay as they
  // are.
  constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  const double negligible = static_cast<double>(l.squares[b]) * math::max(eps * eps, static_cast<double>(n) * 0x1p-104);
  const auto cosine_above = [&](double limit, int p, int q) {
    const double pp = gram[p * line + p], qq = gram[q * line + q], pq = gram[p * line + q];
    return pp > negligible && qq > negligible && pq * pq > limit * limit * pp * qq;
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
      const int some = tournament_player(id, r, columns), others = tournament_player(columns - 1 - id, r, columns);
      const int p = math::min(some, others), q = math::max(some, others);
      turning = cosine_above(eps / 2, p, q);
      left[id] = p, right[id] = q;
      angle[id] =
          turning ? half_angle::between(gram[p * line + p], gram[q * line + q], gram[p * line + q]) : half_angle{0, 0};
    }
    if (!__syncthreads_or(turning)) continue;
    if (group < groups) {
      const int p = left[mine], q = right[mine];
      const half_angle own = angle[mine];
      for (int k = group; k < Width; k += groups) {
        double *const upper = gram + left[k] * line, *const lower = gram + right[k] * line;
        double pp = upper[p], pq = upper[q], qp = lower[p], qq = lower[q];
        own.turn(pp, pq), own.turn(qp, qq);
        angle[k].turn(pp, qp), angle[k].turn(pq, qq);
        upper[p] = pp, upper[q] = pq, lower[p] = qp, lower[q] = qq;
      }
      for (int i = group; i < columns; i += groups) own.turn(j[i * line + p], j[i * line + q]);
    }
    __syncthreads();
  }

  // The longest column first: then blocks meet with their columns sorted, which saves sweeps. What rounding has made
  // negative counts as zero, so that columns that the last block lacks stay behind all others.
  const auto length = [&](int i) { return math::max(gram[i * line + i], 0.0); };
  if (id < columns) from[id] = id;
  __syncthreads();
  if (id < columns) {
    const double own = length(id);
    int before = 0;
    for (int i = 0; i < columns; ++i) before += length(i) > own || (length(i) == own && i < id);
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

}  // namespace MATOPT_NAMESPACE::cuda
