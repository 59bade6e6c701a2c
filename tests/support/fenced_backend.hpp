// fenced_backend: the CPU's verbs on memory that only they can reach. Outside of a verb its pages cannot be touched: a
// host that looks into the backend's memory dies there and then, as one that looks into a GPU's does, and add() refuses
// an array that is not in it.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <string>

#include <matopt/core/error.hpp>
#include <matopt/eigen.hpp>

#include "tolerance.hpp"

namespace matopt::test {

class fenced_backend {
  static constexpr std::size_t reserved = std::size_t{1} << 28;  // address space; pages come when they are written

  struct opened {
    std::byte* memory;
    explicit opened(std::byte* m) : memory(m) { mprotect(memory, reserved, PROT_READ | PROT_WRITE); }
    opened(const opened&) = delete;
    opened& operator=(const opened&) = delete;
    ~opened() { mprotect(memory, reserved, PROT_NONE); }
  };

 public:
  class buffer {
   public:
    explicit buffer(std::byte* start = nullptr) : start_(start) {}
    std::byte* data() { return start_; }

   private:
    std::byte* start_;
  };

  explicit fenced_backend(int threads) : inner_(threads) {
    void* p = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<std::byte*>(p);
  }
  fenced_backend(const fenced_backend&) = delete;
  fenced_backend& operator=(const fenced_backend&) = delete;
  ~fenced_backend() { munmap(memory_, reserved); }

  int threads() const { return inner_.threads(); }

  // Nothing is used twice: fresh pages are zero.
  buffer allocate(std::size_t bytes) {
    if (bytes > reserved - used_) throw std::bad_alloc();
    buffer b(memory_ + used_);
    used_ += (bytes + 255) / 256 * 256;
    return b;
  }
  void require_memory(const std::string& what, const void* p) const {
    if (p < memory_ || p >= memory_ + reserved) throw bad_value(what, "elsewhere", "in the backend's memory");
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    const opened o(memory_);
    if (bytes > 0) std::memcpy(to, from, bytes);  // of nothing the address may be null
  }
  void download(void* to, const void* from, std::size_t bytes) {
    const opened o(memory_);
    if (bytes > 0) std::memcpy(to, from, bytes);  // of nothing the address may be null
  }

  template <class... A>
  void for_each(const A&... a) {
    const opened o(memory_);
    inner_.for_each(a...);
  }
  template <class... A>
  void reduce(const A&... a) {
    const opened o(memory_);
    inner_.reduce(a...);
  }
  template <class... A>
  void reduce_rows(const A&... a) {
    const opened o(memory_);
    inner_.reduce_rows(a...);
  }
  template <class... A>
  void gemm(const A&... a) {
    const opened o(memory_);
    inner_.gemm(a...);
  }
  template <class... A>
  void gemm_symmetric(const A&... a) {
    const opened o(memory_);
    inner_.gemm_symmetric(a...);
  }
  template <class... A>
  void random_normal(const A&... a) {
    const opened o(memory_);
    inner_.random_normal(a...);
  }
  template <class... A>
  void quantize(const A&... a) {
    const opened o(memory_);
    inner_.quantize(a...);
  }
  template <class... A>
  void dequantize(const A&... a) {
    const opened o(memory_);
    inner_.dequantize(a...);
  }
  template <class T>
  std::size_t svd_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template svd_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void svd(const A&... a) {
    const opened o(memory_);
    inner_.svd(a...);
  }
  template <class T>
  std::size_t orthonormalize_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template orthonormalize_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void orthonormalize(const A&... a) {
    const opened o(memory_);
    inner_.orthonormalize(a...);
  }
  template <class T>
  std::size_t orthonormal_basis_workspace(index_t rows, index_t cols, index_t batch) const {
    return inner_.template orthonormal_basis_workspace<T>(rows, cols, batch);
  }
  template <class... A>
  void orthonormal_basis(const A&... a) {
    const opened o(memory_);
    inner_.orthonormal_basis(a...);
  }
  template <class... A>
  void cholesky(const A&... a) {
    const opened o(memory_);
    inner_.cholesky(a...);
  }
  template <class... A>
  void solve_lower(const A&... a) {
    const opened o(memory_);
    inner_.solve_lower(a...);
  }

 private:
  eigen_backend inner_;
  std::byte* memory_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace matopt::test
