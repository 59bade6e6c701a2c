#include <matopt/muon.hpp>
#include <matopt/policy/constraint/cautious_decay.hpp>
#include <matopt/policy/constraint/cautious_decay_after.hpp>
#include <matopt/policy/constraint/clamped_decay.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>
#include <matopt/policy/constraint/decay_after.hpp>
#include <matopt/policy/constraint/look_ahead.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>
#include <matopt/policy/constraint/norm_sphere.hpp>
#include <matopt/policy/constraint/radial_brake.hpp>
#include <matopt/policy/constraint/rate_penalty.hpp>
#include <matopt/policy/constraint/relative_update.hpp>
#include <matopt/policy/constraint/tail_average.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>

#include "constraint_contract.hpp"

namespace matopt::test {

void append_norm_constraints(std::vector<constraint_rule>& rules) {
  using coupled = muon::with_constraint<coupled_decay>;
  rules.push_back(describe_constraint("coupled_decay", coupled{}, at_rest::exact));

  using rate = muon::with_constraint<projected<rate_penalty, cautious_decay>>;
  rules.push_back(describe_constraint("rate_penalty, cautious_decay",
                                      rate{.constraint = {.projection = {.lambda = 5}, .inner = {.decay = .1}}},
                                      at_rest::moves));

  using brakes = muon::with_constraint<projected<
      norm_brake, projected<radial_brake, projected<update_floor, projected<first_order_radius, clamped_decay>>>>>;
  rules.push_back(describe_constraint("brakes, clamped_decay", brakes{}, at_rest::rounded));

  using lines =
      muon::with_constraint<projected<cautious_decay_after, projected<norm_control, projected<oblique, decay_after>>>>;
  lines by_lines{};
  by_lines.constraint.inner.projection = {.rate = .1, .axis = norm_axis::rows};
  by_lines.constraint.inner.inner.projection.axis = norm_axis::columns;
  rules.push_back(describe_constraint("norm_control by rows, oblique by columns", by_lines, at_rest::rounded));

  using ball = muon::with_constraint<projected<hyperball, projected<relative_update>>>;
  rules.push_back(describe_constraint("hyperball, relative_update", ball{}, at_rest::rounded));

  using averages = muon::with_constraint<projected<look_ahead, projected<tail_average>>>;
  averages early{};
  early.constraint.projection.from = 0, early.constraint.inner.projection.start = 1;
  rules.push_back(describe_constraint("look_ahead, tail_average", early, at_rest::exact));

  using by_gradient = muon::with_constraint<weight_normalization<sgd_magnitude>>;
  rules.push_back(describe_constraint("weight_normalization<sgd_magnitude>", by_gradient{}, at_rest::rounded));
  using by_sign = muon::with_constraint<projected<rate_penalty, weight_normalization<lion_magnitude>>>;
  rules.push_back(describe_constraint("rate_penalty, weight_normalization<lion_magnitude>",
                                      by_sign{.constraint = {.projection = {.lambda = 5}}}, at_rest::moves));

  using master = muon::with_constraint<master_weights<weight_normalization<>>>;
  rules.push_back(describe_constraint("master_weights, weight_normalization",
                                      master{.constraint = {.rounding = rounding_mode::stochastic}}, at_rest::rounded));
}

}  // namespace matopt::test
