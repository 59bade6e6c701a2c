// pass: one walk of a step over one bucket, as a policy sees it. It carries the backend's verbs (with the guards filled
// in), scratch memory, and the numbers of this step. A policy never sees the backend, an address or an allocation.
//
// A dry pass, pass(dry_run{}, ...), is one on which no verb does anything: the step's own code, run on it, takes its
// scratch from a counting arena, and so finds the size that the real step needs.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "arena.hpp"
#include "backend.hpp"
#include "broadcast.hpp"
#include "check_row_works.hpp"
#include "scaled_view.hpp"
#include "stochastic_store.hpp"
#include "work.hpp"

namespace MATOPT_NAMESPACE {

// Numbers of a step that live in the backend's memory, so that a recorded step can be replayed with new ones.
template <class C>
struct step_numbers {
  C lr = 0;    // learning rate of the bucket
  C step = 0;  // 1 for the first step
  C tail = 1;  // weight of the last of the `rank` directions (less than 1 only with a residual direction)
  std::uint32_t counter = 0;  // step, for random numbers
  C gradient_scale = 1;       // factor of the gradients, with optimizer_options::scales_gradient
};

struct dry_run {};

template <class B, class C>
class pass {
 public:
  using compute = C;
  template <class T>
  using given = std::type_identity_t<T>;  // T is deduced from the output, so that const and non-const inputs mix
  static constexpr bool can_factor = factoring_backend<B, C>;
  static constexpr bool can_quantize = quantizing_backend<B, C>;
  template <class T>
  static constexpr bool can_multiply = multiplies_type<B, T>;
  using product = typename detail::product_type<B, C>::type;  // what a chain of products is best done in
  // ... unless prefers_bfloat16() says at run time that bfloat16 is better
  static constexpr bool may_prefer_bfloat16 =
      std::is_same_v<C, float> && can_multiply<bfloat16> && requires(const B& b) {
    b.prefers_bfloat16(1.0);
  };

  // `guard`: one word for each matrix of the bucket, or null.
  pass(B& backend, arena& scratch, const status_word* guard, step_numbers<C>* numbers, index_t batch, index_t rank,
       index_t phase = 0)
      : backend_(backend),
        scratch_(scratch),
        guard_(guard),
        numbers_(numbers),
        batch_(batch),
        rank_(rank),
        phase_(phase) {}
  pass(dry_run, B& backend, arena& counting, index_t batch, index_t rank, index_t phase = 0)
      : pass(backend, counting, nullptr, nullptr, batch, rank, phase) {
    dry_ = true;
  }

  // --- numbers of this step ---
  matrix_broadcast<C> lr() const { return number(numbers_ ? &numbers_->lr : nullptr); }
  matrix_broadcast<C> step() const { return number(numbers_ ? &numbers_->step : nullptr); }
  matrix_broadcast<C> tail() const { return number(numbers_ ? &numbers_->tail : nullptr); }
  matrix_broadcast<C> gradient_scale() const { return number(numbers_ ? &numbers_->gradient_scale : nullptr); }
  index_t rank() const { return rank_; }    // singular directions that the constraint allows, or all_directions
  index_t phase() const { return phase_; }  // what the momentum's phase() says of this step
  index_t batch() const { return batch_; }  // matrices in the bucket
  // The pass of some members of the bucket, for views of these members alone.
  pass part(index_t first, index_t count) const {
    pass p = *this;
    p.guard_ = guard_ ? guard_ + first : nullptr, p.batch_ = count;
    return p;
  }
  // The pass of the members whose word is 0: for the second of two methods, which only few matrices need. Kernels
  // return at once for the others, and so do products where the backend can do that; for_each guards what either method
  // writes.
  view<status_word> take_words() { return {take_batch<status_word>(1, batch_, 1).data, 1, 1, 1, 1, batch_, 1}; }
  pass only(view<status_word> words) const {
    if (guard_) backend_.for_each(nullptr, fn::raise{}, words, view<const status_word>{guard_, 1, 1, 1, 1, batch_, 1});
    pass p = *this;
    p.guard_ = words.data, p.few_ = true;
    return p;
  }
  // way(), for the verbs of this pass: a recorded step leaves it out while no member's word is 0.
  template <class Way>
  void where_any(const Way& way) {
    if constexpr (requires { backend_.where_any(guard_, batch_, way); }) {
      if (guard_) return backend_.where_any(guard_, batch_, way);
    }
    way();
  }
  // Matrices of m x n, m <= n, that are best taken through a chain of products at a time.
  template <class T>
  index_t product_batch(index_t m, index_t n) const {
    if constexpr (requires { backend_.template product_batch<T>(m, n, batch_); })
      return backend_.template product_batch<T>(m, n, batch_);
    else
      return batch_;
  }

  // For a chain that takes `arithmetic` times as many operations in bfloat16.
  bool prefers_bfloat16(double arithmetic) const requires may_prefer_bfloat16 {
    return backend_.prefers_bfloat16(arithmetic);
  }

  // --- scratch: one matrix per member of the bucket, given back at the end of the frame ---
  arena_frame frame() { return arena_frame(scratch_); }
  template <class T = C>
  view<T> take(index_t rows, index_t cols, bool column_major = false) {
    return take_batch<T>(batch_, rows, cols, column_major);
  }
  // For a part of the bucket, or for something else.
  template <class T = C>
  view<T> take_batch(index_t batch, index_t rows, index_t cols, bool column_major = false) {
    return scratch_.template take<T>(rows, cols, batch, column_major);
  }
  template <class T = C, class U>
  view<T> take_like(view<U> v) {
    return take<T>(v.rows, v.cols, !v.row_contiguous());
  }

  // --- verbs ---
  // What is written for another number of matrices than the bucket has is scratch, and needs no guard.
  template <class F, class T, class... V>
  void for_each(const F& f, const view<T>& first, const V&... v) {
    if (dry_) return;
    prepare([&](const auto& g, const auto&... x) { backend_.for_each(guard_of(first), g, x...); }, f, first, v...);
  }
  template <class F, class T, class... V>
  void reduce(const F& f, const view<T>& out, const V&... v) {
    if (dry_) return;
    prepare([&](const auto& g, const auto&... x) { backend_.reduce(guard_of(out), g, out, x...); }, f, v...);
  }
  template <class F, class T, class... V>
  void reduce_rows(const F& f, const view<T>& out, const V&... v) {
    if (dry_) return;
    prepare([&](const auto& g, const auto&... x) { backend_.reduce_rows(guard_of(out), g, out, x...); }, f, v...);
  }
  // Sums of rows, to `out`, and a formula on numbers of rows.
  template <class Sums, class T, class Numbers>
  void for_rows(const Sums& sums, view<T> out, const Numbers& numbers) {
    detail::spread([&](auto... v) { reduce_rows(sums.f, out, not_shared(v)...); }, sums.on);
    detail::spread([&](auto... v) { for_each(numbers.f, not_shared(v)...); }, numbers.on);
  }
  // One row after the other, or many at once: its sums, to `out`; then a formula on the numbers of the row; then one on
  // its elements. What one writes the next ones read of this row only, as numbers per row, and marked by shared() or
  // sum_result(): a backend that has the verb reads all else before.
  // (Both conditions stand in one requires: nvcc 13.0 decides `condition && requires {...}` one way for the host and
  // another for the device, and then a kernel is missing.)
  template <class Sums, class T, class Numbers, class Elements>
  void for_rows(const Sums& sums, view<T> out, const Numbers& numbers, const Elements& elements) {
    detail::check_row_works(sums, out, numbers, elements);
    if (dry_) return;
    const status_word* const guards = guard_of(out);
    if constexpr (requires {
                    requires !detail::rounds_work<Elements>;
                    backend_.for_rows(guards, sums, out, numbers, elements);
                  }) {
      backend_.for_rows(guards, sums, out, numbers, elements);
    } else {
      for_rows(sums, out, numbers);
      detail::spread([&](auto... v) { for_each(elements.f, not_shared(v)...); }, elements.on);
    }
  }
  // The same with a reduction of the whole matrix last, to `total`.
  template <class Sums, class T, class Numbers, class Elements, class U>
  void for_rows_and_reduce(const Sums& sums, view<T> out, const Numbers& numbers, const Elements& elements,
                           view<U> total) {
    detail::check_row_works(sums, out, numbers, elements);
    if (dry_) return;
    const status_word* const guards = guard_of(out);
    if constexpr (requires {
                    requires !detail::rounds_work<Elements>;
                    backend_.for_rows_and_reduce(guards, sums, out, numbers, elements, total);
                  }) {
      backend_.for_rows_and_reduce(guards, sums, out, numbers, elements, total);
    } else {
      for_rows(sums, out, numbers);
      detail::spread([&](auto... v) { reduce(elements.f, total, not_shared(v)...); }, elements.on);
    }
  }
  template <class T>
  [[gnu::noinline]] void gemm(arithmetic_t<T> alpha, view<const given<T>> a, view<const given<T>> b,
                              arithmetic_t<T> beta, view<const given<T>> c, view<T> d,
                              factor_entries of = factor_entries::any) {
    with_workspace<T>(a, b, of, [&](auto... more) { backend_.gemm(guard_of(d), alpha, a, b, beta, c, d, more...); });
  }
  template <class T>
  [[gnu::noinline]] void gemm_symmetric(arithmetic_t<T> alpha, view<const given<T>> a, view<const given<T>> b,
                                        arithmetic_t<T> beta, view<const given<T>> c, view<T> d,
                                        factor_entries of = factor_entries::any) {
    with_workspace<T>(a, b, of,
                      [&](auto... more) { backend_.gemm_symmetric(guard_of(d), alpha, a, b, beta, c, d, more...); });
  }
  template <class T>
  void random_normal(view<T> x, std::uint64_t seed) {
    if (dry_) return;
    backend_.random_normal(guard_of(x), x, seed,
                           view<const std::uint32_t>{numbers_ ? &numbers_->counter : nullptr, 1, 1, 1, 1});
  }
  template <class T>
  void svd(view<const given<T>> a, view<T> u, view<T> s, view<T> v) requires can_factor {
    const arena_frame held(scratch_);
    std::byte* workspace = scratch_.bytes(backend_.template svd_workspace<T>(a.rows, a.cols, a.batch));
    if (!dry_) backend_.svd(guard_of(a), a, u, s, v, workspace);
  }
  template <class T>
  void orthonormalize(view<T> x, given<T> tolerance) requires can_factor {
    const arena_frame held(scratch_);
    std::byte* workspace = scratch_.bytes(backend_.template orthonormalize_workspace<T>(x.rows, x.cols, x.batch));
    if (!dry_) backend_.orthonormalize(guard_of(x), x, tolerance, workspace);
  }
  // The columns, at most as many as rows: always orthonormal, completed where one depends on those before it.
  template <class T>
  void orthonormal_basis(view<T> x) requires can_factor {
    const arena_frame held(scratch_);
    std::byte* workspace = scratch_.bytes(backend_.template orthonormal_basis_workspace<T>(x.rows, x.cols, x.batch));
    if (!dry_) backend_.orthonormal_basis(guard_, x, workspace);
  }
  // For matrices that are positive definite by construction.
  template <class T>
  void cholesky(view<T> a) requires can_factor {
    const arena_frame held(scratch_);
    const view<status_word> status = take<status_word>(1, 1);
    if (!dry_) backend_.cholesky(guard_of(a), a, status);
  }
  template <class T>
  void solve_lower(view<const given<T>> l, view<T> x, bool transpose) requires can_factor {
    if (!dry_) backend_.solve_lower(guard_of(x), l, x, transpose);
  }
  // x as codes and scales (core/block_codes.hpp), and back.
  void quantize(const block_format& format, view<const C> x, view<std::uint8_t> codes,
                view<float> scales) requires can_quantize {
    if (!dry_) backend_.quantize(guard_of(codes), format, x, codes, scales);
  }
  void dequantize(const block_format& format, view<const std::uint8_t> codes, view<const float> scales,
                  view<C> x) requires can_quantize {
    if (!dry_) backend_.dequantize(guard_of(codes), format, codes, scales, x);
  }

 private:
  template <class T>
  const status_word* guard_of(const view<T>& v) const {
    return v.batch == batch_ ? guard_ : nullptr;
  }
  // multiply(workspace, of, few_), or multiply() where the backend takes no memory for such a product.
  template <class T, class Product>
  void with_workspace(const view<const T>& a, const view<const T>& b, [[maybe_unused]] factor_entries of,
                      Product multiply) {
    if constexpr (requires { backend_.template gemm_workspace<T>(a.rows, b.cols, a.cols, a.batch, of); }) {
      const std::size_t bytes = backend_.template gemm_workspace<T>(a.rows, b.cols, a.cols, a.batch, of);
      if (bytes > 0) {
        const arena_frame held(scratch_);
        std::byte* const workspace = scratch_.bytes(bytes);
        if (!dry_) multiply(workspace, of, few_);
        return;
      }
    }
    if (!dry_) multiply();
  }
  // use(f, v...) with arguments that a backend knows, and with the rounding of stochastic state behind f.
  template <class Use, class F, class... V>
  void prepare(const Use& use, const F& f, const V&... v) {
    if constexpr (!(detail::is_scaled<V> || ...) && !detail::writes_stochastic<V...>)
      use(f, v...);
    else
      detail::with_scales_apart(
          f, [&](auto g, auto... x) { detail::with_rounding_apart(g, step(), use, x...); }, v...);
  }
  static matrix_broadcast<C> number(const C* p) { return {view<const C>{p, 1, 1, 1, 1}}; }

  B& backend_;
  arena& scratch_;
  const status_word* guard_;
  step_numbers<C>* numbers_;  // in the backend's memory: only its address is used here
  index_t batch_, rank_, phase_;
  bool few_ = false;  // most members' guards are expected to be raised
  bool dry_ = false;
};

}  // namespace MATOPT_NAMESPACE
