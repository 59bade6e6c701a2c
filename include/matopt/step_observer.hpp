// step_observer: what a step did to each matrix, measured where it lies, on request.
//
//   step_observer look(opt);                  opt: an optimizer or a param_groups, after finalize()
//   look.before();                            copies the weights
//   opt.step(lr);                             or the replay of a recorded step
//   for (const step_observation& o : look.after()) ...     waits, and gives one line per matrix
//
// With W the weight after the step, U = W before - W and G the gradient as it is stored:
//
//   ||W||_F   ||U||_F   ||U||_F / ||W||_F   ||G||_F   <U, G> / (||U||_F ||G||_F)   sigma_1(W)
//
// The cosine is positive where the step descends. sigma_1 is the estimate of a power iteration (spectral_norm.hpp): it
// is never too large, and goes on from the direction of the last call. What is 0 / 0 is given as 0: so is the cosine of
// a matrix that was left out, or of a step that was skipped. Norms neither overflow nor vanish.
//
// An optimizer that nobody observes does nothing for it. Memory, in the backend's: a copy of the weights in the compute
// type and what a power iteration takes; allocated here, and anew after a finalize() of the optimizer. before() and
// after() run verbs on the backend; only after() waits. Errors: bad_order for after() without before(), and before
// finalize(); out_of_memory.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/pass.hpp"
#include "core/state_layout.hpp"
#include "policy/constraint/spectral_norm.hpp"
#include "policy/detail/norms.hpp"

namespace MATOPT_NAMESPACE {

struct step_observation {
  std::string name;
  double weight_norm = 0, update_norm = 0, update_to_weight = 0, gradient_norm = 0, cosine = 0, spectral_norm = 0;
};

namespace fn {
// y = y - x
struct subtract {
  template <class T>
  MATOPT_HD void operator()(T& y, T x) const {
    y -= x;
  }
};
// sum of x y, each times two factors
struct scaled_product {
  template <class T>
  MATOPT_HD T operator()(T x, T y, T x_scale, T x_factor, T y_scale, T y_factor) const {
    return (x * x_scale * x_factor) * (y * y_scale * y_factor);
  }
};
}  // namespace fn

template <class Optimizer>
class step_observer {
  using B = typename Optimizer::backend_type;
  using C = typename Optimizer::element_types::compute;
  using bucket_view = typename Optimizer::bucket_view;

 public:
  explicit step_observer(Optimizer& opt, index_t power_iterations = 8) : opt_(&opt) {
    norm_.iterations = power_iterations;
    validate_settings(norm_);
    make_room();
  }

  void before() {
    if (plan_number_ != opt_->plan_number()) make_room();
    buckets_ = opt_->buckets();
    for (std::size_t i = 0; i < buckets_.size(); ++i)
      opt_->backend().for_each(nullptr, fn::assign{}, places_[i].copy, buckets_[i].w);
    copied_ = true;
  }

  std::vector<step_observation> after() {
    if (!std::exchange(copied_, false) || plan_number_ != opt_->plan_number())
      throw bad_order("after() of a step_observer without before() and a step");
    for (std::size_t i = 0; i < buckets_.size(); ++i)
      measure(pass_of(scratch_, nullptr, buckets_[i]), pass_of(scratch_, buckets_[i].guards, buckets_[i]), buckets_[i],
              places_[i]);
    return downloaded();
  }

 private:
  enum column : index_t { weight = 0, update = 2, gradient = 4, cosine = 6, sigma = 7, columns = 8 };
  struct place {
    view<C> copy, results;  // results: 1 x columns
    power_iteration::state<C, C> direction;
  };

  // One walk that sizes and one that places.
  void make_room() {
    buckets_ = opt_->buckets();
    arena counting;
    lay_out_all(counting);
    arena scratch;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      const pass<B, C> dry(dry_run{}, opt_->backend(), scratch, buckets_[i].w.batch, all_directions);
      measure(dry, dry, buckets_[i], places_[i]);
    }
    const std::size_t own = counting.top;
    memory_ = opt_->backend().allocate(own + scratch.peak);
    arena real{memory_.data()};
    lay_out_all(real);
    scratch_ = arena{memory_.data() + own};
    const step_numbers<C> none{};
    opt_->backend().upload(numbers_, &none, sizeof none);
    for (const place& p : places_) opt_->backend().for_each(nullptr, fn::set_zero{}, p.direction.right);
    plan_number_ = opt_->plan_number(), copied_ = false;
  }
  void lay_out_all(arena& memory) {
    numbers_ = reinterpret_cast<step_numbers<C>*>(memory.bytes(sizeof(step_numbers<C>)));
    places_.assign(buckets_.size(), {});
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      const auto& w = buckets_[i].w;
      places_[i].copy = memory.template take<C>(w.rows, w.cols, w.batch, !w.row_contiguous());
      places_[i].results = memory.template take<C>(1, columns, w.batch);
      state_layout<C, C> layout(memory, w.rows, w.cols, w.batch, !w.row_contiguous());
      lay_out(norm_, layout, places_[i].direction);
    }
  }

  pass<B, C> pass_of(arena& scratch, const status_word* guards, const bucket_view& k) {
    return {opt_->backend(), scratch, guards, numbers_, k.w.batch, all_directions};
  }
  // `stepped`: with the guards of the step; `all`: without.
  void measure(pass<B, C> all, pass<B, C> stepped, const bucket_view& k, place& p) const {
    const auto frame = all.frame();
    const auto result = [&](index_t first, index_t count) { return p.results.col_block(first, count); };
    all.for_each(fn::set_zero{}, p.results);
    const view<C> u = p.copy;
    all.for_each(fn::subtract{}, u, k.w);
    const detail::scaled_norm<C> of_w{result(weight, 2)}, of_u{result(update, 2)}, of_g{result(gradient, 2)};
    all.reduce(fn::scaled_norm{}, of_w.pair, k.w);
    all.reduce(fn::scaled_norm{}, of_u.pair, as_const(u));
    // The gradient of what was left out may not be there.
    stepped.reduce(fn::scaled_norm{}, of_g.pair, k.g);
    const view<C> unit_u = detail::normalizing_factors(all, of_u, 1, 0, true),
                  unit_g = detail::normalizing_factors(all, of_g, 1, 0, true);
    stepped.reduce(fn::scaled_product{}, result(cosine, 1), as_const(u), k.g, per_matrix(unit_u.col_block(0, 1)),
                   per_matrix(unit_u.col_block(1, 1)), per_matrix(unit_g.col_block(0, 1)),
                   per_matrix(unit_g.col_block(1, 1)));
    const singular_triple<C> top = detail::take_triple(all, k.w);
    norm_.estimate(all, p.direction, k.w, top);
    all.for_each(fn::assign{}, result(sigma, 1), as_const(top.value));
  }

  std::vector<step_observation> downloaded() const {
    std::vector<step_observation> found;
    std::vector<C> numbers;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      const view<C>& r = places_[i].results;
      numbers.resize(static_cast<std::size_t>(r.batch * r.batch_stride));
      if (!numbers.empty()) opt_->backend().download(numbers.data(), r.data, numbers.size() * sizeof(C));
      for (index_t b = 0; b < r.batch; ++b) {
        const auto number = [&](index_t c) {
          return static_cast<double>(numbers[static_cast<std::size_t>(b * r.batch_stride + c)]);
        };
        const auto norm = [&](index_t c) { return number(c) * std::sqrt(number(c + 1)); };
        const double w = norm(weight), u = norm(update);
        found.push_back({buckets_[i].names[static_cast<std::size_t>(b)], w, u, w > 0 ? u / w : 0, norm(gradient),
                         number(cosine), number(sigma)});
      }
    }
    return found;
  }

  Optimizer* opt_;
  power_iteration norm_{};
  std::vector<bucket_view> buckets_;
  std::vector<place> places_;
  typename B::buffer memory_{};
  arena scratch_{};
  step_numbers<C>* numbers_ = nullptr;
  std::uint64_t plan_number_ = 0;
  bool copied_ = false;
};

}  // namespace MATOPT_NAMESPACE
