// deferred_backend<Inner>: a backend whose verbs run late. Each verb is only recorded; synchronize() runs the tape on
// Inner. From the first recorded verb on, the real contents of every allocation and of every tracked array lie in a
// shadow, and the memory itself is full of 0xFF bytes: NaN as a number of any type, and a wild address as a pointer. So
// whatever reads a result before it is synchronised, or writes one behind the backend's back, is found out.
#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <matopt/core/backend.hpp>

namespace matopt::test {

template <class Inner>
class deferred_backend {
  struct region {
    std::byte* data;
    std::size_t bytes;
    std::vector<std::byte> shadow{};
  };
  struct registration {  // of an allocation; running the tape before the memory goes keeps late verbs legal
    deferred_backend& owner;
    std::byte* data;
    registration(deferred_backend& b, std::byte* p) : owner(b), data(p) {}
    registration(const registration&) = delete;
    registration& operator=(const registration&) = delete;
    ~registration() { owner.forget(data); }
  };

 public:
  template <class T>
  static constexpr bool multiplies = multiplies_type<Inner, T>;
  template <class C>
  using product_type = typename matopt::detail::product_type<Inner, C>::type;

  class buffer {
   public:
    buffer() = default;
    buffer(typename Inner::buffer memory, std::size_t bytes, deferred_backend& owner) : memory_(std::move(memory)) {
      owner.track(memory_.data(), bytes);
      registered_ = std::make_unique<registration>(owner, memory_.data());
    }
    buffer(buffer&&) noexcept = default;
    buffer& operator=(buffer&& other) noexcept {
      registered_ = std::move(other.registered_);
      memory_ = std::move(other.memory_);
      return *this;
    }
    std::byte* data() { return memory_.data(); }

   private:
    typename Inner::buffer memory_{};
    std::unique_ptr<registration> registered_{};
  };

  template <class... A>
  explicit deferred_backend(A&&... arguments) : inner_(std::forward<A>(arguments)...) {}
  deferred_backend(const deferred_backend&) = delete;
  deferred_backend& operator=(const deferred_backend&) = delete;

  Inner& inner() { return inner_; }
  std::size_t recorded() const { return tape_.size(); }

  // The bytes at `p` are poisoned, too, while verbs are pending. Tracked arrays must not overlap.
  void track(void* p, std::size_t bytes) {
    regions_.push_back({static_cast<std::byte*>(p), bytes});
    if (!tape_.empty()) poison(regions_.back());
  }
  void forget(void* p) {
    synchronize();
    std::erase_if(regions_, [&](const region& r) { return r.data == p; });
  }

  void synchronize() {
    if (tape_.empty()) return;
    for (auto& r : regions_) std::copy(r.shadow.begin(), r.shadow.end(), r.data);
    const auto tape = std::exchange(tape_, {});
    for (const auto& verb : tape) verb();
  }

  buffer allocate(std::size_t bytes) { return {inner_.allocate(bytes), bytes, *this}; }
  void upload(void* to, const void* from, std::size_t bytes) {
    const auto* const begin = static_cast<const std::byte*>(from);
    const std::vector<std::byte> copy(begin, begin + bytes);
    record([this, to, copy] { inner_.upload(to, copy.data(), copy.size()); });
  }
  void download(void* to, const void* from, std::size_t bytes) {
    synchronize();
    inner_.download(to, from, bytes);
  }

  template <class F, class... V>
  void for_each(const status_word* guard, F f, V... v) {
    record([=, this] { inner_.for_each(guard, f, v...); });
  }
  template <class F, class T, class... V>
  void reduce(const status_word* guard, F f, view<T> out, V... v) {
    record([=, this] { inner_.reduce(guard, f, out, v...); });
  }
  template <class F, class T, class... V>
  void reduce_rows(const status_word* guard, F f, view<T> out, V... v) {
    record([=, this] { inner_.reduce_rows(guard, f, out, v...); });
  }
  template <class T>
  void gemm(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
            view<const std::type_identity_t<T>> b, arithmetic_t<T> beta, view<const std::type_identity_t<T>> c,
            view<T> d) {
    record([=, this] { inner_.gemm(guard, alpha, a, b, beta, c, d); });
  }
  template <class T>
  void gemm_symmetric(const status_word* guard, arithmetic_t<T> alpha, view<const std::type_identity_t<T>> a,
                      view<const std::type_identity_t<T>> b, arithmetic_t<T> beta,
                      view<const std::type_identity_t<T>> c, view<T> d) {
    record([=, this] { inner_.gemm_symmetric(guard, alpha, a, b, beta, c, d); });
  }
  template <class T>
  void random_normal(const status_word* guard, view<T> x, std::uint64_t seed, view<const std::uint32_t> counter) {
    record([=, this] { inner_.random_normal(guard, x, seed, counter); });
  }

  template <class T>
  void quantize(const status_word* guard, const block_format& format, view<const T> x, view<std::uint8_t> codes,
                view<float> scales) {
    record([=, this] { inner_.quantize(guard, format, x, codes, scales); });
  }
  template <class T>
  void dequantize(const status_word* guard, const block_format& format, view<const std::uint8_t> codes,
                  view<const float> scales, view<T> x) {
    record([=, this] { inner_.dequantize(guard, format, codes, scales, x); });
  }

  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template svd_workspace<T>(rows, cols, batch);
  }
  template <class T>
  void svd(const status_word* guard, view<const std::type_identity_t<T>> a, view<T> u, view<T> s, view<T> v,
           std::byte* workspace) {
    record([=, this] { inner_.svd(guard, a, u, s, v, workspace); });
  }
  template <class T>
  std::size_t orthonormalize_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template orthonormalize_workspace<T>(rows, cols, batch);
  }
  template <class T>
  void orthonormalize(const status_word* guard, view<T> x, std::type_identity_t<T> tolerance, std::byte* workspace) {
    record([=, this] { inner_.orthonormalize(guard, x, tolerance, workspace); });
  }
  template <class T>
  std::size_t orthonormal_basis_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template orthonormal_basis_workspace<T>(rows, cols, batch);
  }
  template <class T>
  void orthonormal_basis(const status_word* guard, view<T> x, std::byte* workspace) {
    record([=, this] { inner_.orthonormal_basis(guard, x, workspace); });
  }
  template <class T>
  void cholesky(const status_word* guard, view<T> a, view<status_word> status) {
    record([=, this] { inner_.cholesky(guard, a, status); });
  }
  template <class T>
  void solve_lower(const status_word* guard, view<const std::type_identity_t<T>> l, view<T> x, bool transpose) {
    record([=, this] { inner_.solve_lower(guard, l, x, transpose); });
  }

 private:
  void record(std::function<void()> verb) {
    if (tape_.empty())
      for (auto& r : regions_) poison(r);
    tape_.push_back(std::move(verb));
  }
  static void poison(region& r) {
    r.shadow.assign(r.data, r.data + r.bytes);
    std::fill_n(r.data, r.bytes, std::byte{0xFF});
  }

  Inner inner_;
  std::vector<region> regions_{};
  std::vector<std::function<void()>> tape_{};
};

}  // namespace matopt::test
