// A step allocates nothing, whatever its rule: the program's malloc and operator new count while a step runs.
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <matopt/eigen.hpp>
#include <matopt/orthogonalizer_plan.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>
#include <matopt/policy/orthogonalizer/subspace_polar.hpp>

#include "harness.hpp"

// The sanitizers bring their own malloc; there only the counting of operator new remains out, too, and the test is
// void.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MATOPT_COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MATOPT_COUNTS 0
#endif
#endif
#ifndef MATOPT_COUNTS
#define MATOPT_COUNTS 1
#endif

namespace {
std::atomic<bool> armed{false};
std::atomic<long> allocations{0};

[[maybe_unused]] void count() {
  if (armed.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if MATOPT_COUNTS
// glibc's own entry points lie behind these names; operator new calls malloc.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) {
  count();
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  count();
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  count();
  return __libc_realloc(p, n);
}
void* memalign(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  count();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  count();
  *p = __libc_memalign(alignment, n);
  return *p ? 0 : 12;
}
}
#endif

using namespace matopt;
using namespace matopt::test;

namespace {

template <class T>
void check_steps(const contract_rule& rule, int threads) {
  CAPTURE(rule.name, threads, sizeof(T));
  bench<T> b(rule.make<T>({.threads = threads, .optimizer = {.scales_gradient = threads > 1}}));
  b.add("small.a", {24, 40}), b.add("small.b", {24, 40}), b.add("tall", {40, 7}, layout::column_major);
  b.add("large", {300, 200}, layout::row_major, 3), b.add("block", {65, 130}, layout::sub_block, 4);
  b.finalize();
  // The ranks of the contract's rules differ from step to step, so none is warmed up by another.
  for (std::uint64_t t = 0; t < 2; ++t) {
    for (std::size_t i = 0; i < b.size(); ++i) fill_gradient(b[i].g, content::random, t + 31 * i);
    if (t == 1 && threads > 1) b[1].g.v()(0, 0) = std::numeric_limits<T>::quiet_NaN();  // a skipped step, too
    allocations = 0;
    armed = true;
    b->step(0.02);
    armed = false;
    CHECK(allocations == 0);
  }
}

}  // namespace

#if MATOPT_COUNTS
TEST_CASE("the counter counts", "[allocation]") {
  allocations = 0;
  armed = true;
  void* volatile p = std::malloc(10);
  int* volatile q = new int(3);
  armed = false;
  std::free(p);
  delete q;
  CHECK(allocations == 2);
}

TEST_CASE("contract: step() allocates nothing", "[allocation]") {
  for (const auto& rule : contract_rules()) {
    check_steps<float>(rule, 1);
    check_steps<double>(rule, 2);
  }
}

TEST_CASE("an orthogonalizer_plan allocates nothing when it is used again", "[allocation]") {
  eigen_backend cpu(2);
  const auto check = [&](const auto& policy, layout l) {
    stored<float> x(130, 90, l, 3), y(130, 90, l, 3);
    x.fill_random(1);
    orthogonalizer_plan plan(cpu, policy, x.v());
    allocations = 0;
    armed = true;
    plan(x.cv(), y.v());
    plan(x.v()), plan(x.v());
    armed = false;
    CHECK(allocations == 0);
  };
  for (const layout l : all_layouts) check(newton_schulz<>{}, l), check(subspace_polar{}, l);
}
#endif
