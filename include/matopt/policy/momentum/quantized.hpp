// A momentum that keeps its matrices in 8 bits between steps: codes, and one float per block of them.
//
//   M = dequantized        Inner's step on M, with the update from the M that is not rounded yet        codes <- M
//
// Dettmers et al.: 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861); 8-bit Muon (arXiv 2509.23106) is
// linear with blocks of 2048. core/block_codes.hpp has the maps and their errors; a block is taken row after row,
// whatever the strides of the weight. Any momentum that keeps a matrix will do. What a policy lays out as l.squares(),
// a second moment for example, divides, and a code of 0 there would be a long step: it stays, in the compute type. For
// rules with such a moment the dynamic map is the right one, because it keeps small entries, too. name() is Inner's,
// because how state is stored makes no other rule; the formats show in the names and element types of the state:
// "momentum" in I8, U8 or F8_E4M3, and "momentum_absmax_256" in F32.
//
// Each step makes the error of half a code step anew, so that the momentum has about 1 / sqrt(1 - beta^2) of them. In
// double, what is beyond the largest float is kept as the largest float. State: Inner's, with 1 byte and 4 / block
// bytes per scalar of a matrix. Scratch: Inner's matrices in the compute type, given back before the orthogonalizer
// runs. The update is stored in memory. Memory traffic: 10 bytes per scalar more in float. Needs: a backend that
// quantizes.
//
// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "momentum.hpp"

namespace MATOPT_NAMESPACE {

namespace detail {

template <class C>
struct coded_matrix {
  view<std::uint8_t> codes;
  view<float> scales;
  view<C> values{};  // during a step
};

// What Inner's layout sees when the state is placed: a matrix becomes codes and scales.
template <class Layout, class C>
struct coding_layout {
  Layout& real;
  const block_format& format;
  std::vector<coded_matrix<C>>& coded;
  std::vector<view<C>>& rest;

  index_t row_count() const { return real.row_count(); }
  index_t column_count() const { return real.column_count(); }
  view<C> matrix(std::string_view name) {
    const std::string of_scales = std::string(name) + std::string(absmax_infix) + std::to_string(format.block);
    const auto codes = real.codes(name, element_type_of(format.map));
    coded.push_back({codes, real.scales(of_scales, format.blocks(row_count() * column_count()))});
    return {nullptr, row_count(), column_count(), column_count(), 1, codes.batch};
  }
  view<C> squares(std::string_view name) { return block(name, row_count(), column_count()); }
  view<C> rows(std::string_view name) { return keep(real.rows(name)); }
  view<C> columns(std::string_view name) { return keep(real.columns(name)); }
  view<C> scalar(std::string_view name) { return keep(real.scalar(name)); }
  view<C> block(std::string_view name, index_t m, index_t n) { return keep(real.block(name, m, n)); }

 private:
  view<C> keep(view<C> v) {
    rest.push_back(v);
    return v;
  }
};

// What it sees in a step: the same calls in the same order give scratch for the matrices, and the rest as it was placed.
template <class C>
struct step_layout {
  view<C> like;
  const std::vector<coded_matrix<C>>& coded;
  const std::vector<view<C>>& rest;
  std::size_t matrices = 0, others = 0;

  index_t row_count() const { return like.rows; }
  index_t column_count() const { return like.cols; }
  view<C> matrix(std::string_view) { return coded[matrices++].values; }
  view<C> squares(std::string_view) { return rest[others++]; }
  view<C> rows(std::string_view) { return rest[others++]; }
  view<C> columns(std::string_view) { return rest[others++]; }
  view<C> scalar(std::string_view) { return rest[others++]; }
  view<C> block(std::string_view, index_t, index_t) { return rest[others++]; }
};

// Whether a momentum has a learning rate of its own, which lies in scratch that accumulate() took.
template <class P, class E, class S>
constexpr bool has_rate() {
  if constexpr (requires(const P p, E& e, S& s) { p.rate(e, s); })
    return true;
  else if constexpr (decorator<P>)
    return has_rate<typename P::decorates, E,
                    std::remove_reference_t<decltype(inner_state(std::declval<const P&>(), std::declval<S&>()))>>();
  else
    return false;
}

}  // namespace detail

// clang-format off
// A momentum that remembers, and does not quantize itself.
template <class P>
concept keeps_state_to_quantize = !remembers_nothing<P> && !keeps_codes<P> && !std::is_same_v<state_for<P, float, float>, no_state>;
// clang-format on

template <keeps_state_to_quantize Inner>
struct quantized {
  using decorates = Inner;
  static constexpr bool keeps_codes = true;

  Inner inner{};
  code_map map = code_map::linear;
  index_t block = 256;

  static std::string name() { return Inner::name(); }
  template <class Self, class Visit>
  static void settings(Self& self, Visit&& visit) {
    // The element type of the optimizer's state, which limits averages, is not what these are kept in.
    Inner::settings(self.inner, [&](std::string_view name, auto& field, range legal = {}) {
      legal.average = 0;
      visit(name, field, legal);
    });
    visit("momentum_map", self.map);
    visit("momentum_block", self.block, range{.low = 1});
  }

  template <class S, class C>
  struct state {
    using compute = C;
    std::vector<detail::coded_matrix<C>> coded;
    std::vector<view<C>> rest;
    state_for<Inner, C, C> inner{};
  };
  template <class Layout, class St>
  void layout(Layout& l, St& s) const {
    s.coded.clear(), s.rest.clear();
    const block_format in = format();
    detail::coding_layout<Layout, typename St::compute> own{l, in, s.coded, s.rest};
    lay_out(inner, own, s.inner);
  }
  // Inner may set its state at the start, but matrices begin as zeros, and the codes of zeros need not be 0.
  template <class E, class St, class W>
  void init(E& e, St& s, view<W> w) const {
    detail::init(inner, e, s.inner, w);
    const auto zero = e.take_like(w);
    e.for_each(fn::set_zero{}, zero);
    for (auto& m : s.coded) e.quantize(format(), as_const(zero), m.codes, m.scales);
  }

  template <class E, class St, class G, class C>
  requires(E::can_quantize&& detail::takes_gradient<Inner, E, decltype(St::inner), G>) void accumulate(
      E& e, St& s, const G& g, view<C> u) const {
    if constexpr (detail::has_rate<Inner, E, decltype(St::inner)>()) {
      step(e, s, g, u);
    } else {
      const auto frame = e.frame();
      step(e, s, g, u);
    }
  }

 private:
  template <class E, class St, class G, class C>
  void step(E& e, St& s, const G& g, view<C> u) const {
    for (auto& m : s.coded) {
      m.values = e.take_like(u);
      e.dequantize(format(), as_const(m.codes), as_const(m.scales), m.values);
    }
    detail::step_layout<C> own{u, s.coded, s.rest};
    lay_out(inner, own, s.inner);
    detail::accumulate_all(inner, e, s.inner, g, u);
    for (auto& m : s.coded) e.quantize(format(), as_const(m.values), m.codes, m.scales);
  }
  block_format format() const { return {map, block}; }
};

}  // namespace MATOPT_NAMESPACE
