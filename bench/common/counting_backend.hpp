// counting_backend<Product>: takes the place of a backend and counts what a step asks for, instead of doing it.
//
//   flops  of the products, each counted whole, also where the result is symmetric; and of decompositions by their
//          textbook counts (Golub & Van Loan). Elementwise work is not counted.
//   bytes  what memory would see if each verb read or wrote each of its operands once.
//
// What few matrices need (pass::where_any) is not counted, because a recorded step leaves it out.
//
// Product is what chains of products run in, as the backend in question has it: float on the CPU, float16 on GPUs.
#pragma once
#include <algorithm>
#include <cstdint>
#include <matopt/core/backend.hpp>
#include <matopt/core/broadcast.hpp>

#include "reserved.hpp"

namespace bench {

struct work {
  double flops = 0, bytes = 0;
};

template <class Product>
class counting_backend {
  using index_t = matopt::index_t;
  using guard = const matopt::status_word*;
  template <class T>
  using view = matopt::view<T>;
  template <class T>
  using given = std::type_identity_t<T>;
  template <class T>
  using scalar = matopt::arithmetic_t<T>;

 public:
  using buffer = reserved;
  template <class T>
  static constexpr bool multiplies = true;
  template <class C>
  using product_type = std::conditional_t<std::is_same_v<C, float>, Product, C>;

  work counted;

  buffer allocate(std::size_t bytes) { return buffer(bytes); }
  void upload(void*, const void*, std::size_t) {}
  void download(void*, const void*, std::size_t) {}

  template <class Way>
  void where_any(guard, index_t, const Way& way) {
    const work before = counted;
    way();
    counted = before;
  }
  template <class F, class T, class... V>
  void for_each(guard, F, view<T> first, V... rest) {
    touch(first), (touch(rest), ...);
  }
  template <class F, class T, class... V>
  void reduce(guard, F, view<T> out, V... v) {
    touch(out), (touch(v), ...);
  }
  template <class F, class T, class... V>
  void reduce_rows(guard, F, view<T> out, V... v) {
    touch(out), (touch(v), ...);
  }
  template <class T>
  void gemm(guard, scalar<T>, view<const given<T>> a, view<const given<T>> b, scalar<T> beta, view<const given<T>> c,
            view<T> d) {
    touch(a), touch(b), touch(d);
    if (beta != 0) touch(c);
    counted.flops += 2 * count(d) * static_cast<double>(a.cols);
  }
  template <class T>
  void gemm_symmetric(guard g, scalar<T> alpha, view<const given<T>> a, view<const given<T>> b, scalar<T> beta,
                      view<const given<T>> c, view<T> d) {
    gemm(g, alpha, a, b, beta, c, d);
  }
  template <class T>
  void random_normal(guard, view<T> x, std::uint64_t, view<const std::uint32_t>) {
    touch(x);
  }
  template <class T>
  void quantize(guard, const matopt::block_format&, view<const T> x, view<std::uint8_t> codes, view<float> scales) {
    touch(x), touch(codes), touch(scales);
  }
  template <class T>
  void dequantize(guard, const matopt::block_format&, view<const std::uint8_t> codes, view<const float> scales,
                  view<T> x) {
    touch(codes), touch(scales), touch(x);
  }
  template <class T>
  std::size_t svd_workspace(index_t, index_t, index_t) const {
    return 0;
  }
  template <class T>
  void svd(guard, view<const given<T>> a, view<T> u, view<T> s, view<T> v, std::byte*) {
    touch(a), touch(u), touch(s), touch(v);
    const double m = static_cast<double>(std::max(a.rows, a.cols)), n = static_cast<double>(std::min(a.rows, a.cols));
    counted.flops += static_cast<double>(a.batch) * (6 * m * n * n + 20 * n * n * n);
  }
  template <class T>
  std::size_t orthonormalize_workspace(index_t, index_t, index_t) const {
    return 0;
  }
  template <class T>
  void orthonormalize(guard, view<T> x, given<T>, std::byte*) {
    touch(x), touch(x);
    counted.flops += 4 * count(x) * static_cast<double>(x.cols);
  }
  template <class T>
  std::size_t orthonormal_basis_workspace(index_t, index_t, index_t) const {
    return 0;
  }
  template <class T>
  void orthonormal_basis(guard, view<T> x, std::byte*) {
    touch(x), touch(x);
    const double m = static_cast<double>(x.rows), n = static_cast<double>(x.cols);
    counted.flops += static_cast<double>(x.batch) * 4 * n * n * (m - n / 3);
  }
  template <class T>
  void cholesky(guard, view<T> a, view<matopt::status_word>) {
    touch(a), touch(a);
    counted.flops += count(a) * static_cast<double>(a.cols) / 3;
  }
  template <class T>
  void solve_lower(guard, view<const given<T>> l, view<T> x, bool) {
    touch(l), touch(x), touch(x);
    counted.flops += count(x) * static_cast<double>(x.rows);
  }

 private:
  template <class T>
  static double count(const view<T>& v) {
    return static_cast<double>(v.rows * v.cols) * static_cast<double>(v.batch);
  }
  template <class T>
  void touch(const view<T>& v) {
    counted.bytes += count(v) * static_cast<double>(sizeof(T));
  }
  template <class V>
  void touch(const V&) {}  // one value per row, column or matrix
};

}  // namespace bench
