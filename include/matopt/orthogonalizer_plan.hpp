// orthogonalizer_plan: an orthogonalizer by itself, on matrices of one shape, with all its memory allocated once.
//
//   orthogonalizer_plan plan(backend, newton_schulz<>{}, x);      x: a view, or what view_of makes one of
//   plan(x);                                                      replaces every matrix of x by about U V^T
//   plan(momentum, x);                                            the same of `momentum`, which is only read
//   orthogonalizer_plan top(backend, subspace_polar{}, x, 32);    the 32 leading singular directions: sum u_i v_i^T
//
// Any orthogonalizer of policy/orthogonalizer/ will do. `k` is for those that honour a rank. Between two whole numbers
// it gives the last direction the weight that is left, as a rank budget of NuMuon does: 2.5 is u_1 v_1^T + u_2 v_2^T +
// u_3 v_3^T / 2. Without k all min(rows, cols) directions are taken.
//
// A call takes matrices of the planned shape, element type and storage: by rows (a stride of 1 along them), by columns,
// or neither; those that are neither, and elements of 16 bits, go through a copy in the scratch. It runs verbs only: it
// allocates nothing, does not wait, and can be recorded in a CUDA graph. What a policy keeps from one step of an
// optimizer to the next, such as the basis of subspace_polar, is kept from call to call and begins as zeros; random
// numbers differ from call to call. Zero stays zero. Entries that are not finite give a result that is not finite, in
// their matrix alone. Errors: bad_value for an illegal k or setting, a matrix of another shape or storage than the
// planned one, or overlapping memory; out_of_memory.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "core/check_view.hpp"
#include "core/limits.hpp"
#include "core/pass.hpp"
#include "core/policy.hpp"
#include "core/view_of.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {
template <class P, class E, class St, class C>
concept begins_state = requires(const P p, E& e, St& s, view<C> w) {
  p.init(e, s, w);
};
}  // namespace detail

template <class Policy, class Backend, class T = float>
requires orthogonalizer_policy<Policy, Backend, types<T>>
class orthogonalizer_plan {
  using C = arithmetic_t<T>;

 public:
  orthogonalizer_plan(Backend& backend, Policy policy, viewed<T> like)
      : orthogonalizer_plan(backend, std::move(policy), like, static_cast<double>(math::min(like.rows, like.cols)), 0) {
  }
  orthogonalizer_plan(Backend& backend, Policy policy, viewed<T> like, double k) requires honours_rank<Policy>
      : orthogonalizer_plan(backend, std::move(policy), like, k, 0) {}

  // Every matrix of x in place.
  void operator()(viewed<T> x) {
    check(x);
    if (detail::no_elements(x)) return;
    begin();
    if (copies(x))
      run_on_copy(view<const T>(x), view<T>(x));
    else
      run(real_pass(), state_, view<T>(x));
  }
  // Every matrix of x becomes what its counterpart in `from` gives; x may be `from` itself.
  template <class X>
  requires viewable<X>
  void operator()(X&& from, viewed<T> x) {
    // A name that is longer than a std::string holds in itself would be allocated in each call.
    const auto source = as_const(matopt::view_of(std::forward<X>(from)));
    check(x);
    require_memory("input", source);
    detail::check_view("input", source, true);
    if (source.rows != x.rows || source.cols != x.cols || source.batch != x.batch)
      throw bad_value("input", detail::text(source), "of the shape of its result, " + detail::text(view<T>(x)));
    const bool same = static_cast<const void*>(source.data) == x.data && source.row_stride == x.row_stride &&
                      source.col_stride == x.col_stride && source.batch_stride == x.batch_stride;
    if (!same && detail::overlap(detail::footprint_of(source), detail::footprint_of(view<T>(x))))
      throw bad_value("input", "in memory of its result", "in memory of its own, or the same view");
    if (detail::no_elements(x)) return;
    begin();
    if (copies(x)) return run_on_copy(source, view<T>(x));
    backend_->for_each(nullptr, fn::assign{}, view<T>(x), source);
    run(real_pass(), state_, view<T>(x));
  }

  const Policy& policy() const { return policy_; }
  index_t rank() const { return rank_; }
  std::size_t bytes() const { return bytes_; }  // of the one allocation

 private:
  using state_type = state_for<Policy, C, C>;

  orthogonalizer_plan(Backend& backend, Policy policy, viewed<T> like, double k, int)
      : backend_(&backend), policy_(std::move(policy)), shape_(like) {
    require_memory("matrix", shape_);
    detail::check_view("matrix", shape_);
    validate_settings(policy_);
    validate_settings_in<C>(policy_);
    detail::validate(policy_);
    shape_.data = nullptr;
    if (detail::no_elements(shape_)) return;
    const index_t q = math::min(shape_.rows, shape_.cols);
    if (!(k > 0 && k <= static_cast<double>(q)))
      throw bad_value("k", detail::text(k), "above 0 and at most " + std::to_string(q) + ", the smaller side");
    rank_ = math::max(index_t{1}, static_cast<index_t>(std::ceil(k - 1e-9)));
    allowed_ = k < static_cast<double>(q) ? rank_ : all_directions;
    const double tail = math::min(1.0, k - static_cast<double>(rank_ - 1));

    arena counting;
    place(counting);
    bytes_ = counting.top;
    memory_ = backend_->allocate(bytes_);
    arena real{memory_.data()};
    place(real);
    const step_numbers<C> numbers{.step = 1, .tail = static_cast<C>(tail)};
    const status_word one = 1;
    backend_->upload(numbers_, &numbers, sizeof numbers);
    backend_->upload(one_, &one, sizeof one);
    init(real_pass(), state_);
  }

  // Numbers, state and scratch; of an arena without memory only the sizes count.
  void place(arena& memory) {
    numbers_ = reinterpret_cast<step_numbers<C>*>(memory.bytes(sizeof(step_numbers<C>)));
    one_ = reinterpret_cast<status_word*>(memory.bytes(sizeof(status_word)));
    state_layout<C, C> layout(memory, shape_.rows, shape_.cols, shape_.batch, !shape_.row_contiguous());
    lay_out(policy_, layout, state_);
    if (memory.base) {
      scratch_ = arena{memory.base + memory.top};
      return;
    }
    // The policy's own code finds its scratch, on a pass that does nothing.
    arena scratch;
    const pass<Backend, C> dry(dry_run{}, *backend_, scratch, shape_.batch, allowed_);
    state_type state = state_;
    init(dry, state);
    if (copies(shape_))
      on_copy(dry, state, view<const T>(shape_), shape_);
    else
      run(dry, state, shape_);
    memory.bytes(scratch.peak);
  }
  pass<Backend, C> real_pass() { return {*backend_, scratch_, nullptr, numbers_, shape_.batch, allowed_}; }
  void init(pass<Backend, C> e, state_type& state) {
    if constexpr (detail::begins_state<Policy, pass<Backend, C>, state_type, C>) {
      const auto frame = e.frame();
      policy_.init(e, state, e.take(shape_.rows, shape_.cols, !shape_.row_contiguous()));
    }
  }
  // The next number for random numbers.
  void begin() {
    backend_->for_each(nullptr, fn::add{}, row_major(&numbers_->counter, 1, 1),
                       row_major<const status_word>(one_, 1, 1));
  }

  // Products want a unit stride and the compute type.
  static bool copies(const view<T>& v) { return !std::is_same_v<T, C> || !(v.row_contiguous() || v.col_contiguous()); }
  template <class U>
  void run(pass<Backend, C> e, state_type& state, view<U> x) {
    if constexpr (std::is_same_v<U, C>) {
      const auto frame = e.frame();
      detail::orthogonalize(policy_, e, state, x);
    }
  }
  template <class U>
  void on_copy(pass<Backend, C> e, state_type& state, view<const U> from, view<T> x) {
    const auto frame = e.frame();
    const view<C> u = e.take_like(x);
    e.for_each(fn::assign{}, u, from);
    detail::orthogonalize(policy_, e, state, u);
    e.for_each(fn::assign{}, x, as_const(u));
  }
  template <class U>
  void run_on_copy(view<const U> from, view<T> x) {
    on_copy(real_pass(), state_, from, x);
  }

  void check(const view<T>& x) const {
    require_memory("matrix", x);
    detail::check_view("matrix", x);
    const auto storage = [](const view<T>& v) { return v.row_contiguous() ? 0 : v.col_contiguous() ? 1 : 2; };
    view<T> planned = shape_;
    planned.data = x.data;
    if (x.rows != planned.rows || x.cols != planned.cols || x.batch != planned.batch || storage(x) != storage(planned))
      throw bad_value("matrix", detail::text(x),
                      "of the shape and storage that were planned, " + detail::text(planned));
  }
  template <class U>
  void require_memory(const std::string& what, const view<U>& v) const {
    if constexpr (requires { backend_->require_memory(what, v.data); })
      if (v.data && !detail::no_elements(v)) backend_->require_memory(what, v.data);
  }

  Backend* backend_;
  Policy policy_;
  view<T> shape_;
  index_t rank_ = 0, allowed_ = 0;
  std::size_t bytes_ = 0;
  typename Backend::buffer memory_{};
  arena scratch_{};
  step_numbers<C>* numbers_ = nullptr;
  status_word* one_ = nullptr;
  state_type state_{};
};

template <class B, class P, viewable X, class... Rank>
orthogonalizer_plan(B&, P, X&&, Rank...)
    -> orthogonalizer_plan<P, B, std::remove_pointer_t<decltype(view_of(std::declval<X>()).data)>>;

}  // namespace MATOPT_NAMESPACE
