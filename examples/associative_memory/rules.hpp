// The rules that are compared, all without momentum. What the library does not have is a small policy here, which also
// shows what a policy takes: a name and the operation of its slot.
#pragma once
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>
#include <matopt/policy/orthogonalizer/svd_polar.hpp>
#include <string>

#include "memory.hpp"

namespace associative_memory {

namespace fn {
struct to_sign {
  template <class T>
  MATOPT_HD void operator()(T& u) const {
    u = matopt::math::sign(u);
  }
};
// u = length x / ||x||, with ||x|| = largest sqrt(squares)
struct to_length {
  double length;
  template <class T>
  MATOPT_HD void operator()(T& u, T largest, T squares) const {
    u = largest > T(0) ? T(length) * (u / largest) / matopt::math::sqrt(squares) : T(0);
  }
};
}  // namespace fn

// The sign of each entry, in the coordinates that W happens to have.
struct entrywise_sign {
  static std::string name() { return "entrywise_sign"; }
  template <class E, class St, class C>
  void orthogonalize(E& e, St&, matopt::view<C> u) const {
    e.for_each(fn::to_sign{}, u);
  }
};

// The gradient with the Frobenius norm of a polar factor, sqrt(min(rows, cols)): as long a step as Muon's, and the
// proportions of the gradient.
struct fixed_length {
  static std::string name() { return "fixed_length"; }
  template <class E, class St, class C>
  void orthogonalize(E& e, St&, matopt::view<C> u) const {
    const auto frame = e.frame();
    const auto norm = matopt::detail::frobenius(e, u);
    const double length = std::sqrt(static_cast<double>(matopt::math::min(u.rows, u.cols)));
    e.for_each(fn::to_length{length}, u, matopt::per_matrix(norm.scale), matopt::per_matrix(norm.squares));
  }
};

// The sign of each entry in the task's own coordinates, which no practical optimizer knows: the oracle that Muon is
// measured against. For one matrix of doubles.
struct task_basis_sign {
  matopt::view<const double> inputs, outputs;

  static std::string name() { return "task_basis_sign"; }
  template <class E, class St>
  void orthogonalize(E& e, St&, matopt::view<double> u) const {
    const auto frame = e.frame();
    const auto half = e.take_like(u), logits = e.take_like(u);
    e.gemm(1, outputs.t(), u, 0, half, half);
    e.gemm(1, half, inputs, 0, logits, logits);
    e.for_each(fn::to_sign{}, logits);
    e.gemm(1, outputs, logits, 0, half, half);
    e.gemm(1, half, inputs.t(), 0, u, u);
  }
};

template <class Orthogonalizer>
using plain = typename matopt::muon::with_momentum<matopt::ema>::with_orthogonalizer<
    Orthogonalizer>::template with_scale<matopt::unit_scale>;

// A mean with weight 0 on its past is the gradient itself.
template <class Orthogonalizer>
plain<Orthogonalizer> without_momentum(const Orthogonalizer& orthogonalizer = {}) {
  return {.momentum = {.beta = 0}, .orthogonalizer = orthogonalizer};
}

using exact_muon = plain<matopt::svd_polar>;
using muon_ns5 = plain<matopt::newton_schulz<>>;
using gradient_descent = plain<matopt::no_orthogonalizer>;
using normalized_descent = plain<fixed_length>;
using sign_descent = plain<entrywise_sign>;
using task_sign_descent = plain<task_basis_sign>;

}  // namespace associative_memory
