// A constraint on a master copy of the weight in the compute type; the weight itself is that copy, rounded.
//
//   M_0 = W_0          g' = inner.lift(M, G)          M <- inner.retract(M, u, lr, scale)          W <- round(M)
//
// A step below half a unit in the last place of a bfloat16 weight (about 2^-9 of it; 2^-12 in float16) is lost when the
// weight is rounded; in M it adds up. Rounding is to nearest, ties to even, or stochastic: x between its neighbours a <
// b becomes b with probability (x - a) / (b - a), so that its mean is x. The random bits are word 0 of Philox with
// counter (row, column, step, 0) and key rounding_seed: the same on every backend, for every layout, and for every
// matrix. What is representable stays as it is. Stochastic rounding makes nothing finite infinite; rounding to nearest
// does where every conversion to its type would. Among float16 numbers the random bits are compared with how far x is
// from a.
//
// Papers: Micikevicius et al., Mixed Precision Training, arXiv 1710.03740 (the copy); Gupta et al., arXiv 1502.02551,
// and Zamirai et al., Revisiting BFloat16 Training, arXiv 2010.06192 (stochastic rounding). Where they differ: the
// latter two round stochastically in place of a copy, and each step's rounding stays in the weight. With a copy the
// weight is off by one rounding, however many steps there were; the common choice then is to nearest, and it is the
// default here.
//
// **The master wins.** It is read from the weight once, in finalize(). What the caller writes into the weight later (a
// checkpoint, a clamp, an average) is gone after the next step, unless resync() is called after the write: then every
// entry that is not a rounding of its master replaces it. For the same reason nothing that corrects the weight may
// stand around this decorator: write master_weights<projected<P>>, for projected<P, master_weights<>> does not compile.
// nuclear_budget may stand on either side.
//   using mixed_muon = muon::with_constraint<master_weights<>>;
//   optimizer<mixed_muon, eigen_backend, types<bfloat16, bfloat16, float>> opt(cpu);
//
// For weights of type float or double `rounding` does nothing, and a master pays only if the compute type is wider (it
// has that type; a weight that is wider still loses digits to it).
// State: 1 scalar of the compute type per parameter, and Inner's. FLOPs: none to nearest; stochastic about 100 integer
// operations per parameter. Needs: elementwise verbs, and what Inner needs. Limits: with float as the compute type
// rows, columns and steps are told apart up to 2^24; with double the master is rounded to float on its way to bfloat16.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "../../core/philox.hpp"
#include "../../core/stochastic.hpp"
#include "projected.hpp"

namespace MATOPT_NAMESPACE {

enum class rounding_mode { nearest, stochastic };
constexpr auto enum_names(rounding_mode) { return std::array<std::string_view, 2>{"nearest", "stochastic"}; }

namespace fn {
// w = one of the two neighbours of x in W
template <class W>
struct round_stochastically {
  std::uint64_t seed;
  template <class T>
  MATOPT_HD void operator()(T& w, T x, T row, T column, T step) const {
    const std::uint32_t random = philox::bits(
        {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(column), static_cast<std::uint32_t>(step), 0},
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)})[0];
    w = static_cast<T>(matopt::detail::rounded_by_chance<W>(static_cast<float>(x), random));
  }
};
// the two numbers that x may be rounded to
template <class W>
struct both_neighbours {
  template <class T>
  MATOPT_HD void operator()(T& one, T& other, T x) const {
    one = static_cast<T>(matopt::detail::rounded_by_chance<W>(static_cast<float>(x), 0U));
    other = static_cast<T>(matopt::detail::rounded_by_chance<W>(static_cast<float>(x), 0xffffffffU));
  }
};
// m = w, unless w is one of two roundings of m
struct take_written {
  template <class T>
  MATOPT_HD void operator()(T& m, T w, T one, T other) const {
    m = w == one || w == other ? m : w;
  }
};
}  // namespace fn

template <class Inner = decoupled_decay>
requires master_is_outermost<Inner>
struct master_weights {
  using decorates = Inner;
  static constexpr bool keeps_master = true;

  rounding_mode rounding = rounding_mode::nearest;
  index_t rounding_seed = 0;
  Inner inner{};

  static std::string name() { return "master_weights<" + Inner::name() + ">"; }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    visit("rounding", self.rounding);
    visit("rounding_seed", self.rounding_seed, range{.low = 0, .high = 9007199254740992.0});
    if constexpr (detail::has_settings<Inner>) Inner::settings(self.inner, visit);
  }
  double rank_budget(index_t step, index_t q) const requires limits_rank<Inner> { return inner.rank_budget(step, q); }

  template <class S, class C>
  struct state {
    view<C> master;
    state_for<Inner, S, C> inner{};
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.master = l.block("master", l.row_count(), l.column_count());  // not l.matrix(): State may be narrower
    lay_out(inner, l, s.inner);
  }
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    e.for_each(fn::assign{}, s.master, as_const(w));
    detail::init(inner, e, s.inner, s.master);
  }
  // Where the weight is not what the master is rounded to, somebody has written it.
  template <class E, class St, class W>
  void resync(E& e, St& s, view<W> w) const {
    const auto frame = e.frame();
    const auto one = e.template take_like<W>(w), other = e.template take_like<W>(w);
    e.for_each(fn::assign{}, one, as_const(s.master)), e.for_each(fn::assign{}, other, as_const(s.master));
    if constexpr (rounds<W>)
      if (rounding == rounding_mode::stochastic) e.for_each(fn::both_neighbours<W>{}, one, other, as_const(s.master));
    e.for_each(fn::take_written{}, s.master, as_const(w), as_const(one), as_const(other));
    detail::resync(inner, e, s.inner, s.master);
  }

  template <class E, class St, class W, class G>
  requires detail::lifts<Inner, E, decltype(St::inner), typename E::compute, G>
  auto lift(E& e, St& s, view<W>, const G& g) const { return detail::lift(inner, e, s.inner, s.master, g); }
  template <class E, class St, class W, class U, class Rate>
  requires detail::retracts_from<Inner, E, decltype(St::inner), typename E::compute, U, Rate>
  auto retract(E& e, St& s, view<W>, U u, Rate lr, double scale) const {
    return detail::retract(inner, e, s.inner, s.master, u, lr, scale);
  }
  template <class E, class St, class W, class Rate>
  void finish(E& e, St& s, view<W> w, Rate lr, double scale) const {
    detail::finish(inner, e, s.inner, s.master, lr, scale);
    if constexpr (rounds<W>)
      if (rounding == rounding_mode::stochastic)
        return e.for_each(fn::round_stochastically<W>{static_cast<std::uint64_t>(rounding_seed)}, w, as_const(s.master),
                          row_number{}, column_number{}, e.step());
    e.for_each(fn::assign{}, w, as_const(s.master));
  }

 private:
  template <class W>
  static constexpr bool rounds = std::is_same_v<W, bfloat16> || std::is_same_v<W, float16>;
};

}  // namespace MATOPT_NAMESPACE
