// The thread pool: every task once, exceptions, many rounds.
#include <catch2/catch.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <matopt/eigen/thread_pool.hpp>

using matopt::index_t;
using matopt::thread_pool;

TEST_CASE("thread_pool: each task exactly once, workers in range", "[thread_pool]") {
  for (const int threads : {1, 2, 3, 7}) {
    thread_pool pool(threads);
    CHECK(pool.size() == threads);
    for (const index_t n : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
      std::atomic<bool> in_range{true};
      pool.parallel_for(n, [&](index_t i, int worker) {
        ++calls[static_cast<std::size_t>(i)];
        if (worker < 0 || worker >= threads) in_range = false;
      });
      for (const auto& c : calls) REQUIRE(c == 1);
      CHECK(in_range);
    }
  }
}

TEST_CASE("thread_pool: many short rounds, each seen by the next", "[thread_pool]") {
  thread_pool pool(3);
  std::vector<int> values(16, 0);  // plain ints: a round must order its writes before the next
  for (int round = 0; round < 5000; ++round)
    pool.parallel_for(16, [&](index_t i) { values[static_cast<std::size_t>(i)] = round; });
  for (const int v : values) CHECK(v == 4999);
}

TEST_CASE("thread_pool: an exception comes out after all tasks are done, and the pool lives on", "[thread_pool]") {
  for (const int threads : {1, 4}) {
    CAPTURE(threads);
    thread_pool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> done{0};
      CHECK_THROWS_WITH(pool.parallel_for(20,
                                          [&](index_t i) {
                                            ++done;
                                            if (i == 3 || i == 11) throw std::runtime_error("task");
                                          }),
                        "task");
      CHECK(done == 20);
      done = 0;
      pool.parallel_for(20, [&](index_t) { ++done; });
      CHECK(done == 20);
    }
  }
}

TEST_CASE("thread_pool: sizes it refuses", "[thread_pool]") {
  CHECK_THROWS_WITH(thread_pool(-1), Catch::Contains("threads is -1"));
  CHECK_THROWS_AS(thread_pool(1025), matopt::bad_value);
  CHECK(thread_pool(0).size() >= 1);
}

namespace {

// Address space of this process now, in bytes.
rlim_t address_space() {
  std::ifstream pages("/proc/self/statm");
  rlim_t count = 0;
  pages >> count;
  return count * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}
std::ptrdiff_t threads_now() {
  namespace fs = std::filesystem;
  return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
}

}  // namespace

TEST_CASE("thread_pool: threads that cannot be had are an error, and those made before it end", "[thread_pool]") {
  // In a process of its own, whose limit goes with it. Threads want some megabytes of address space each.
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // not Catch's report
    alarm(60);
    const rlim_t limit = address_space() + (rlim_t{256} << 20U);
    const rlimit both{limit, limit};
    std::string told = "no error";
    if (setrlimit(RLIMIT_AS, &both) != 0) told = "setrlimit failed";
    try {
      thread_pool pool(1000);
    } catch (const matopt::error& e) {
      told = e.what();
    }
    told += "\nthreads left: " + std::to_string(threads_now());
    thread_pool small(2);  // a smaller one is to be had
    std::atomic<int> done{0};
    small.parallel_for(9, [&](index_t) { ++done; });
    told += ", tasks done: " + std::to_string(done);
    _exit(write(pipe_ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size()) ? 0 : 1);
  }
  close(pipe_ends[1]);
  std::string told;
  char buffer[512];
  for (ssize_t n; (n = read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
    told.append(buffer, static_cast<std::size_t>(n));
  close(pipe_ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  INFO(told);
  CHECK(WIFEXITED(status));
  int made = 0, wanted = 0;
  REQUIRE(std::sscanf(told.c_str(), "matopt: only %d of %d threads", &made, &wanted) == 2);
  CHECK(wanted == 1000);
  CHECK(made > 1);
  CHECK(made < 1000);
  CHECK_THAT(told, Catch::Contains("Resource temporarily unavailable") || Catch::Contains("bad_alloc"));
  CHECK_THAT(told, Catch::Contains("threads left: 1, tasks done: 9"));
}

namespace {
// What `child` returns in a process of its own; -1 if that has not ended after ten seconds, or in another way.
template <class F>
int in_a_child(F child) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(10);
    int result = 99;
    try {
      result = child();
    } catch (...) {
    }
    _exit(result);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
}  // namespace

TEST_CASE("thread_pool: works in a forked child, and in its children, and goes without a trace", "[thread_pool]") {
  const auto sum = [](thread_pool& pool) {
    std::atomic<int> total{0};
    for (int round = 0; round < 3; ++round)
      pool.parallel_for(
          10, [&](index_t i, int worker) { total += static_cast<int>(i) + (worker < 0 || worker >= pool.size()); });
    return total.load();
  };
  auto pool = std::make_unique<thread_pool>(3);
  CHECK(sum(*pool) == 135);
  CHECK(in_a_child([&] {
          if (sum(*pool) != 135 || pool->size() != 3) return 1;
          thread_pool own(2);  // one that the child makes has threads of its own
          if (sum(own) != 135) return 2;
          if (in_a_child([&] { return sum(*pool) == 135 && sum(own) == 135 ? 0 : 1; }) != 0) return 3;
          pool.reset();
          return 0;
        }) == 0);
  CHECK(in_a_child([&] {
          try {
            pool->parallel_for(4, [](index_t i) {
              if (i == 2) throw std::runtime_error("task");
            });
          } catch (const std::runtime_error&) {
            return sum(*pool) == 135 ? 0 : 2;
          }
          return 1;
        }) == 0);
  CHECK(sum(*pool) == 135);  // and the parent goes on
}
