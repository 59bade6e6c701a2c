// A training run on the CPU: checks.hpp says what is asked of it.
#include <matopt/policy/constraint/projected.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>
#include <matopt/published_rules.hpp>

#include "checks.hpp"
#include "qk_clip.hpp"

using namespace matopt;
using namespace matopt::test;
using world = cpu_world;
namespace training = matopt::test::training;

TEST_CASE("training: a schedule is a setting set in each step", "[training]") {
  training::schedule_is_set_in_each_step<world>();
}
TEST_CASE("training: a decay that follows the rate", "[training]") { training::decay_follows_rate<world>(); }
TEST_CASE("training: settings that are refused change nothing", "[training]") {
  training::refused_settings_change_nothing<world>();
}
TEST_CASE("training: a setting has one schedule, and set() ends it", "[training]") {
  training::schedules_have_one_name_and_an_end<world>();
  training::optimizers_bring_their_schedules<world>();
}
TEST_CASE("training: rate and decay of one parameter", "[training]") {
  training::parameters_change_their_rate_and_decay<world>();
}
TEST_CASE("training: groups step as optimizers side by side would", "[training]") {
  training::groups_are_optimizers_side_by_side<world>();
}
TEST_CASE("training: gradients and weights move between steps", "[training]") {
  training::gradients_move_between_steps<world>();
  training::reference_gradients_move_between_steps<world>();
}
TEST_CASE("training: parameters without a gradient are left out", "[training]") {
  training::no_gradient_is_left_out<world>();
  training::left_out_while_others_come_and_go<world>();
}
TEST_CASE("training: a matrix that was left out goes on as if those steps had not been", "[training]") {
  const auto with = [](auto rule) {
    return [rule](eigen_backend& b) { return any_optimizer<eigen_backend>(b, rule); };
  };
  training::left_out<world>(with(muon{}), true), training::left_out<world>(with(adamw{}), true);
  training::left_out<world>(with(namo{}), true), training::left_out<world>(with(muown{}), true);
}
TEST_CASE("training: weights written from outside last after resync()", "[training]") {
  using mixed = types<bfloat16, bfloat16, float>;
  training::writes_last_after_resync<world, muon>(false);
  training::writes_last_after_resync<world, soap>(false);
  training::writes_last_after_resync<world, muown>(true);
  training::writes_last_after_resync<world, angular_muown>(true);
  training::writes_last_after_resync<world, adamw::with_constraint<master_weights<>>, mixed>(true);
  using half = types<float16, float16, float>;
  training::writes_last_after_resync<world, adamw::with_constraint<master_weights<>>, half>(true);
  training::writes_last_after_resync<world, muown::with_constraint<master_weights<muown::constraint_type>>, mixed>(
      true);
}
TEST_CASE("training: writes without resync() are told where they would be undone", "[training]") {
  training::unsynced_writes_are_told<world, muon>(false);
  training::unsynced_writes_are_told<world, muown>(true);
  training::unsynced_writes_are_told<world, adamw::with_constraint<master_weights<>>, types<bfloat16, bfloat16, float>>(
      true);
  training::unsynced_writes_are_told<world, muon::with_constraint<projected<hard_cap<>>>>(false);
  training::unsynced_writes_are_told<world, muown::with_constraint<projected<hard_cap<>, muown::constraint_type>>>(
      true);
}
TEST_CASE("training: parameters come and go", "[training]") { training::parameters_come_and_go<world>(); }
TEST_CASE("training: clipping by the norm of all gradients", "[training]") {
  for (const double most : {0.5, 4.0, 1e6})
    for (const double scale : {1.0, 0.25, 1024.0}) {
      CAPTURE(most, scale);
      training::clips_by_the_norm_of_all<world, adamw>(most, scale);
      training::clips_by_the_norm_of_all<world, muon>(most, scale);
      training::clips_by_the_norm_of_all<world, adamw, double>(most, scale);
    }
  training::measuring_changes_nothing<world>();
}
TEST_CASE("training: what an observer says of a step", "[training]") { training::observed_steps<world>(); }
TEST_CASE("training: QK-clip scales the rows of heads whose logits are too large", "[training]") {
  training::heads_are_clipped<world, float>(), training::heads_are_clipped<world, double>();
  training::heads_in_range_keep_their_bits<world>();
  training::wrong_heads_are_refused<world>();
}
TEST_CASE("training: what QK-clip has scaled lasts", "[training]") {
  training::clipped_weights_last<world, muon, types<float>>();
  training::clipped_weights_last<world, muown, types<float>>();
  training::clipped_weights_last<world, adamw::with_constraint<master_weights<>>, types<bfloat16, bfloat16, float>>();
}
