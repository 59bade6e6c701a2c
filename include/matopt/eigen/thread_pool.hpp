// A small pool of threads for loops of independent tasks.
//
// `parallel_for(n, f)` calls f(task) for task = 0 .. n-1, each exactly once, on the pool's threads and on the caller's,
// and returns when all are done. Tasks are handed out one by one, so a thread whose core is taken away delays only the
// task it holds. Which thread runs a task is not fixed: tasks must not depend on it, and then results do not depend on
// the number of threads. No call allocates. Calls from several threads, and calls from inside a task, are not allowed.
// A process that fork() made has none of the threads: there the caller does all tasks itself.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <pthread.h>

#include "../core/error.hpp"
#include "../core/index.hpp"

namespace MATOPT_NAMESPACE {

class thread_pool {
 public:
  static constexpr int max_threads = 1024;

  // `threads` includes the calling thread; 0 asks for one per hardware thread.
  [[gnu::cold]] explicit thread_pool(int threads = 0) {
    if (threads < 0 || threads > max_threads)
      throw bad_value("threads", std::to_string(threads), "0 (one per hardware thread) to 1024");
    const int n =
        threads > 0 ? threads : std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, max_threads);
    count_forks();
    made_after_ = forks_.load();
    workers_.reserve(static_cast<std::size_t>(n - 1));
    try {
      for (int i = 1; i < n; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::exception& e) {
      const int made = size();
      stop();
      throw error("only " + std::to_string(made) + " of " + std::to_string(n) +
                  " threads could be had, with the calling one: " + e.what() +
                  "; ask for fewer, or raise the limit on threads or memory");
    }
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    if (threads_are_gone())  // they can be neither joined nor detached, so their handles are left behind
      new std::vector<std::thread>(std::move(workers_));
    else
      stop();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // f is called as f(task), or as f(task, worker) with worker in [0, size()) to pick that thread's own workspace. What
  // is not worth waking a thread for is done by the caller. An exception thrown by a task is rethrown here when all
  // tasks are done.
  template <class F>
  void parallel_for(index_t n, F&& f, bool worth_waking = true) {
    run({const_cast<void*>(static_cast<const void*>(std::addressof(f))),
         [](void* closure, index_t task, int worker) {
           auto& g = *static_cast<std::remove_reference_t<F>*>(closure);
           if constexpr (std::is_invocable_v<F&, index_t, int>)
             g(task, worker);
           else
             g(task);
         }},
        n, worth_waking);
  }

 private:
  struct job {
    void* closure = nullptr;
    void (*call)(void*, index_t, int) = nullptr;
  };

  void run(job j, index_t n, bool worth_waking) {
    if (n <= 0) return;
    if (!worth_waking || n == 1 || workers_.empty() || threads_are_gone()) return run_alone(j, n);
    job_ = j, tasks_ = n;
    failure_ = nullptr;
    failed_.clear();
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    announce();
    run_tasks(0);
    wait_while([this] { return busy_.load(std::memory_order_acquire) != 0; }, busy_);
    if (failure_) std::rethrow_exception(failure_);
  }
  static void run_alone(job j, index_t n) {
    std::exception_ptr failure;
    for (index_t i = 0; i < n; ++i) {
      try {
        j.call(j.closure, i, 0);
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }

  void stop() {
    stop_ = true;
    announce();
    for (auto& t : workers_) t.join();
  }
  // How many forks lie between the process that was first and this one; each child counts one more.
  static void count_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { ++forks_; });
    if (registered != 0) throw error("threads: no memory to watch for fork()");
  }
  bool threads_are_gone() const { return made_after_ != forks_.load(std::memory_order_relaxed); }

  void announce() {
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }

  void run_tasks(int worker) {
    for (index_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) {
      try {
        job_.call(job_.closure, i, worker);
      } catch (...) {
        if (!failed_.test_and_set()) failure_ = std::current_exception();
      }
    }
  }

  void work(int worker) {
    for (std::uint32_t seen = 0;; ++seen) {
      wait_while([&] { return round_.load(std::memory_order_acquire) == seen; }, round_, seen);
      if (stop_) return;
      run_tasks(worker);
      if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
    }
  }

  // Spins for some microseconds, because the next verb usually follows at once, then sleeps in the kernel. Meanwhile it
  // gives way now and then: the thread it waits for may have to run on the same core.
  template <class Pending, class Atomic, class... Old>
  static void wait_while(Pending pending, Atomic& a, Old... old) {
    for (int spin = 0; spin < 4096; ++spin) {
      if (!pending()) return;
      if (spin % 64 == 63) std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
    while (pending()) {
      if constexpr (sizeof...(Old) > 0)
        a.wait(old...);
      else if (const auto value = a.load(std::memory_order_acquire); value != 0)
        a.wait(value);
    }
  }

  static inline std::atomic<int> forks_{0};

  int made_after_ = 0;
  std::vector<std::thread> workers_;
  std::atomic<std::uint32_t> round_{0};
  std::atomic<int> busy_{0};
  std::atomic<index_t> next_{0};
  std::atomic<bool> stop_{false};
  std::atomic_flag failed_{};
  std::exception_ptr failure_;
  index_t tasks_ = 0;
  job job_;
};

}  // namespace MATOPT_NAMESPACE
