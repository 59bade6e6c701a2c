// The projections of wide_gram_schmidt.cuh, P <- P - Q (Q^T P), on tensor cores, from two 11-bit pieces of every entry
// as in piecewise_product.cuh:
//
//   x = hi + lo          Q^T P = lo^T hi + hi^T lo + hi^T hi, the small terms first; and the same of Q times that
//
// A column of Q is cut into its pieces once, when it is finished, and not for each of the products that it is part of.
// No sum has more than 768 large terms before it is added by rounding to nearest.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>

#include "../core/float16.hpp"
#include "../core/math.hpp"
#include "../core/view.hpp"

namespace MATOPT_NAMESPACE::cuda {

// Two matrices in 16 bits: entries of at most 64 times 2^9, and what that has lost.
struct halves {
  view<float16> hi, lo;

  static constexpr float scale = 512;
  halves block(index_t row, index_t rows, index_t column, index_t columns) const {
    const auto of = [&](const view<float16>& v) { return v.row_block(row, rows).col_block(column, columns); };
    return {of(hi), of(lo)};
  }
};

// The columns of x; rows that only `to` has become 0. A thread takes 8 rows.
inline constexpr int halves_at_once = 8;
template <class T>
__global__ void __launch_bounds__(128) halves_kernel(const status_word* guard, view<const T> x, halves to) {
  const index_t i = (static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x) * halves_at_once, j = blockIdx.y;
  if (i >= to.hi.rows) return;
  for (index_t b = blockIdx.z; b < x.batch; b += gridDim.z) {
    if (guard && guard[b]) continue;
    alignas(16) T values[halves_at_once];
    const T* const from = &x(0, j, b) + i;
    if (x.rows % 4 == 0 && i + halves_at_once <= x.rows) {
      *reinterpret_cast<float4*>(values) = *reinterpret_cast<const float4*>(from);
      *reinterpret_cast<float4*>(values + 4) = *reinterpret_cast<const float4*>(from + 4);
    } else {
      for (int e = 0; e < halves_at_once; ++e) values[e] = i + e < x.rows ? from[e] : T(0);
    }
    alignas(16) float16 hi[halves_at_once], lo[halves_at_once];
#pragma unroll
    for (int e = 0; e < halves_at_once; ++e) {
      const float all = values[e] * halves::scale;
      hi[e] = float16(all), lo[e] = float16(all - static_cast<float>(hi[e]));
    }
    *reinterpret_cast<uint4*>(&to.hi(i, j, b)) = *reinterpret_cast<const uint4*>(hi);
    *reinterpret_cast<uint4*>(&to.lo(i, j, b)) = *reinterpret_cast<const uint4*>(lo);
  }
}

class wide_projections {
 public:
  // Of x with that many rows and columns, of which `width` go together.
  wide_projections(index_t rows, index_t cols, index_t width, index_t batch, std::byte* workspace) {
    const index_t m = padded(rows), n = finished(cols, width);
    auto* next = reinterpret_cast<float16*>(workspace);
    const auto take = [&](index_t r, index_t c) {
      const view<float16> v = col_major(next, r, c, batch);
      next += r * c * batch;
      return v;
    };
    q_.hi = take(m, n), q_.lo = take(m, n);
    p_.hi = take(m, width), p_.lo = take(m, width);
    along_ = next;
  }
  static std::size_t bytes(index_t rows, index_t cols, index_t width, index_t batch) {
    const index_t m = padded(rows), n = finished(cols, width);
    const auto all = static_cast<std::size_t>(2 * batch * (m * (n + width) + n * width)) * sizeof(float16);
    return (all + 255) / 256 * 256;  // what follows begins where a product likes a matrix to begin
  }

  // As plain_projections of core/block_gram_schmidt.hpp.
  template <class Backend>
  void take_away(Backend& verbs, const status_word* guard, const view<float>& x, const view<float>& p,
                 const view<float>& along, bool) const {
    const index_t n = x.cols, w = p.cols, m = q_.hi.rows;
    const halves q = q_.block(0, m, 0, n), some = p_.block(0, m, 0, w);
    const view<float> sum = col_major(along.data, n, w, p.batch);
    const halves a{col_major(along_, n, w, p.batch), col_major(along_ + n * w * p.batch, n, w, p.batch)};
    cut(verbs, guard, as_const(p), some);
    product(verbs, 1, {q.hi.t(), q.lo.t()}, some, 0, sum);
    cut(verbs, guard, as_const(sum), a);
    product(verbs, -1, q, a, 1, p);
  }
  template <class Backend>
  void finish(Backend& verbs, const status_word* guard, const view<float>& p, index_t first) const {
    cut(verbs, guard, as_const(p), q_.block(0, q_.hi.rows, first, p.cols));
  }

 private:
  static constexpr index_t longest_sum = 768;

  static index_t padded(index_t rows) { return (rows + 7) / 8 * 8; }
  static index_t finished(index_t cols, index_t width) { return (cols - 1) / width * width; }
  template <class Backend>
  static void cut(Backend& verbs, const status_word* guard, const view<const float>& x, const halves& to) {
    const auto threads = static_cast<unsigned>(to.hi.rows / halves_at_once);
    const dim3 grid((threads + 127) / 128, static_cast<unsigned>(x.cols),
                    static_cast<unsigned>(math::min(index_t{65535}, x.batch)));
    halves_kernel<<<grid, 128, 0, verbs.stream()>>>(guard, x, to);
  }
  // D <- sign A B + beta D; rows of A and B that D does not have are left out.
  template <class Backend>
  static void product(Backend& verbs, float sign, const halves& a, const halves& b, float beta, const view<float>& d) {
    const float factor = sign / (halves::scale * halves::scale);
    const auto add = [&](const view<float16>& x, const view<float16>& y, float rest) {
      verbs.gemm_in_float(factor, as_const(x.row_block(0, d.rows)), as_const(y), rest, d);
    };
    add(a.lo, b.hi, beta);
    add(a.hi, b.lo, 1);
    for (index_t at = 0; at < a.hi.cols; at += longest_sum) {
      const index_t count = math::min(longest_sum, a.hi.cols - at);
      add(a.hi.col_block(at, count), b.hi.row_block(at, count), 1);
    }
  }

  halves q_, p_;
  float16* along_;  // where Q^T P's pieces are
};

}  // namespace MATOPT_NAMESPACE::cuda
