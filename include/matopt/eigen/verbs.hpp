// Elementwise verbs and reductions on the CPU: how a batch is cut into tasks, and these into lines. By shape alone, so
// that results do not depend on the number of threads. Compiled once for each type of the arithmetic; a functor comes
// as a pointer, with its kernels.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "guarded.hpp"
#include "operand.hpp"
#include "thread_pool.hpp"

namespace MATOPT_NAMESPACE::detail {

inline constexpr index_t grain = 16384;  // elements worth a task

// Small work is not worth waking a thread for.
template <class F>
void run_tasks(thread_pool& pool, index_t tasks, index_t elements, F&& f) {
  pool.parallel_for(tasks, f, elements >= 2 * grain);
}
// range(closure, begin, end) for the units of a task.
[[gnu::noinline]] inline void run_ranges(thread_pool& pool, index_t units, index_t elements, const void* closure,
                                         void (*range)(const void* closure, index_t begin, index_t end)) {
  const index_t per_task = std::max<index_t>(1, grain / std::max<index_t>(1, elements));
  run_tasks(pool, (units + per_task - 1) / per_task, units * elements,
            [&](index_t task) { range(closure, task * per_task, std::min(units, (task + 1) * per_task)); });
}
// f(begin, end) for the units of a task, which have `elements` each; a task is as many of them as are worth one.
template <class F>
void run_tasks_of_units(thread_pool& pool, index_t units, index_t elements, const F& f) {
  run_ranges(pool, units, elements, &f,
             [](const void* closure, index_t begin, index_t end) { (*static_cast<const F*>(closure))(begin, end); });
}
// f(unit) for each
template <class F>
void run_units(thread_pool& pool, index_t units, index_t elements, const F& f) {
  run_tasks_of_units(pool, units, elements, [&](index_t begin, index_t end) {
    for (index_t unit = begin; unit < end; ++unit) f(unit);
  });
}

// The arguments of one verb, the first of which says its shape.
template <class A>
struct operands {
  lines::operand<A>* first;
  int count;

  std::span<lines::operand<A>> all() const { return {first, static_cast<std::size_t>(count)}; }
  bool dense() const {
    return std::all_of(first, first + count, [](const auto& o) { return o.dense(); });
  }
  void transpose() const {
    for (auto& o : all()) o.transpose();
  }
  bool direct() const {
    return std::all_of(first, first + count, [](const auto& o) { return o.direct(); });
  }
  // l: row `at` of matrix b of each
  void lines_at(index_t b, index_t at, lines::line<A>* l) const {
    for (int k = 0; k < count; ++k) l[k] = first[k].line_at(b, at);
  }
  // s: the same from element i on, of direct lines; what is constant is there already, if this is not the first time
  void slots_at(index_t b, index_t at, index_t i, lines::slot<A>* s, bool again) const {
    for (int k = 0; k < count; ++k)
      if (!again || !first[k].constant()) s[k] = first[k].slot_at(b, at, i);
  }
};

template <class A>
[[gnu::noinline]] void map_all(thread_pool& pool, const status_word* guard, const void* functor,
                               lines::map_kernel<A> straight, lines::map_kernel<A> transposed, operands<A> x) {
  const lines::operand<A>& front = *x.first;
  const bool numbers = front.rows * front.cols == 1 && std::all_of(x.first, x.first + x.count, [](const auto& o) {
                         return o.is == lines::role::matrix && !o.table;
                       });
  // The line runs along the weight's contiguous direction; a column vector counts as contiguous along its rows.
  const bool along_rows = front.row_contiguous() && front.cols >= (front.col_contiguous() ? front.rows : 1);
  if (!along_rows) x.transpose();
  const auto kernel = along_rows ? straight : transposed;
  guarded(guard, front.batch, [&](index_t from, index_t batch) {
    if (numbers && batch > 1) {
      for (auto& o : x.all()) o.numbers_in_line(batch);
      batch = 1;
    }
    index_t count = front.rows, length = front.cols;
    if (x.dense()) length *= count, count = 1;
    if (length == 0) return;
    const index_t piece = std::min(length, grain), pieces = (length + piece - 1) / piece;
    const bool direct = x.direct();
    run_tasks_of_units(pool, batch * count * pieces, piece, [&](index_t first, index_t end) {
      lines::slot<A> s[lines::most_arguments];
      bool again = false;
      for (index_t unit = first; unit < end; ++unit) {
        const index_t at = unit / pieces, b = from + at / count, i = at % count;
        const index_t begin = unit % pieces * piece, n = std::min(piece, length - begin);
        if (direct && n % lines::width == 0) {
          x.slots_at(b, i, begin, s, std::exchange(again, true));
          kernel(functor, n, s);
        } else {
          lines::line<A> l[lines::most_arguments];
          x.lines_at(b, i, l);
          lines::map(kernel, functor, begin, n, l, x.count, direct);
        }
      }
    });
  });
}

// A reduction's functor, its kernels, and where its results go: put(out, row, matrix, sums).
template <class A>
struct reduction_work {
  const void* functor;
  lines::reduce_kernel<A> straight, transposed;
  int sums;
  const void* out;
  void (*put)(const void* out, index_t row, index_t b, const double* sums);
};
template <class F, class A, class T>
void put_results(const void* out, index_t row, index_t b, const double* sums) {
  const auto results = fn::finish<F, A>(sums);
  for (int k = 0; k < fn::results_of<F>; ++k)
    (*static_cast<const view<T>*>(out))(row, k, b) = static_cast<T>(results.at[k]);
}
// The sums of one reduction, at first of nothing.
template <class R>
struct sums_in_double {
  double at[lines::most_sums];

  sums_in_double() { std::fill(std::begin(at), std::end(at), R::template identity<double>()); }
  void combine(const sums_in_double& next, int count) {
    for (int k = 0; k < count; ++k) at[k] = R::combine(at[k], next.at[k]);
  }
};

template <class A, class R>
[[gnu::noinline]] void reduce_rows_of_all(thread_pool& pool, const status_word* guard, const reduction_work<A>& f,
                                          operands<A> x) {
  const index_t rows = x.first->rows, length = x.first->cols;
  const bool direct = x.direct();
  guarded(guard, x.first->batch, [&](index_t from, index_t batch) {
    run_units(pool, batch * rows, length, [&](index_t unit) {
      const index_t b = from + unit / rows, i = unit % rows;
      lines::line<A> l[lines::most_arguments];
      x.lines_at(b, i, l);
      sums_in_double<R> sums;
      lines::reduce<A, R>(f.straight, f.functor, sums.at, f.sums, 0, length, l, x.count, direct);
      f.put(f.out, i, b, sums.at);
    });
  });
}

// Lines, or pieces of long ones, and then their results in double, in an order that the shape fixes: at most 64 chunks
// per matrix.
template <class A, class R>
[[gnu::noinline]] void reduce_all(thread_pool& pool, const status_word* guard, const reduction_work<A>& f,
                                  operands<A> x) {
  using sums = sums_in_double<R>;
  constexpr index_t most = 64;
  const bool along_rows = !(x.first->row_stride < x.first->col_stride);
  if (!along_rows) x.transpose();
  const auto kernel = along_rows ? f.straight : f.transposed;
  index_t count = x.first->rows, length = x.first->cols;
  // A maximum has no order. Of sums, what storage allows must not change the order.
  if (std::is_same_v<R, fn::maximum> && x.dense()) length *= count, count = 1;
  const index_t piece = std::min(std::max<index_t>(1, length), grain), pieces = (length + piece - 1) / piece;
  const index_t units = count * pieces;
  const index_t per_chunk = std::max({index_t{1}, grain / piece, (units + most - 1) / most});
  const index_t chunks = (units + per_chunk - 1) / per_chunk;
  const bool direct = x.direct();
  const auto chunk = [&](index_t b, index_t c) {
    sums sum;
    lines::line<A> l[lines::most_arguments];
    for (index_t unit = c * per_chunk; unit < std::min(units, (c + 1) * per_chunk); ++unit) {
      const index_t begin = unit % pieces * piece;
      sums of_unit;
      x.lines_at(b, unit / pieces, l);
      lines::reduce<A, R>(kernel, f.functor, of_unit.at, f.sums, begin, std::min(piece, length - begin), l, x.count,
                          direct);
      sum.combine(of_unit, f.sums);
    }
    return sum;
  };
  guarded(guard, x.first->batch, [&](index_t from, index_t batch) {
    // Small matrices are taken several at a time, many large ones one at a time, and few large ones are cut.
    if (chunks < 8 || batch >= 8 * pool.size()) {
      run_units(pool, batch, count * length, [&](index_t b) {
        sums sum;
        for (index_t c = 0; c < chunks; ++c) sum.combine(chunk(from + b, c), f.sums);
        f.put(f.out, 0, from + b, sum.at);
      });
      return;
    }
    for (index_t b = from; b < from + batch; ++b) {
      sums parts[most], sum;
      run_tasks(pool, chunks, count * length, [&](index_t c) { parts[c] = chunk(b, c); });
      for (index_t c = 0; c < chunks; ++c) sum.combine(parts[c], f.sums);
      f.put(f.out, 0, b, sum.at);
    }
  });
}

}  // namespace MATOPT_NAMESPACE::detail
