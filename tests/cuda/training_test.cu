// A training run on the GPU, by eager and by recorded steps: tests/training/checks.hpp says what is asked of it.
#include "../training/qk_clip.hpp"
#include "world.cuh"

using namespace matopt;
using namespace matopt::test;
namespace training = matopt::test::training;

namespace {
template <class F>
void in_both(F f) {
  SECTION("eager") { f(gpu_world()); }
  SECTION("recorded") { f(recorded_world()); }
}
}  // namespace

TEST_CASE("GPU training: a schedule is a setting set in each step", "[cuda][training]") {
  in_both([]<class World>(const World&) { training::schedule_is_set_in_each_step<World>(); });
}
TEST_CASE("GPU training: a decay that follows the rate", "[cuda][training]") {
  in_both([]<class World>(const World&) { training::decay_follows_rate<World>(); });
}
TEST_CASE("GPU training: settings that are refused change nothing", "[cuda][training]") {
  training::refused_settings_change_nothing<gpu_world>();
}
TEST_CASE("GPU training: rate and decay of one parameter", "[cuda][training]") {
  training::parameters_change_their_rate_and_decay<gpu_world>();
}
TEST_CASE("GPU training: groups step as optimizers side by side would", "[cuda][training]") {
  in_both([]<class World>(const World&) { training::groups_are_optimizers_side_by_side<World>(); });
}
TEST_CASE("GPU training: gradients and weights move between steps", "[cuda][training]") {
  in_both([]<class World>(const World&) {
    training::gradients_move_between_steps<World>();
    training::reference_gradients_move_between_steps<World>();
  });
}
TEST_CASE("GPU training: parameters without a gradient are left out", "[cuda][training]") {
  in_both([]<class World>(const World&) {
    training::no_gradient_is_left_out<World>();
    training::left_out<World>([](cuda_backend& b) { return any_optimizer<cuda_backend>(b, muon{}); }, true);
    training::left_out<World>([](cuda_backend& b) { return any_optimizer<cuda_backend>(b, adamw{}); }, true);
    training::left_out<World>([](cuda_backend& b) { return any_optimizer<cuda_backend>(b, muown{}); }, true);
  });
}
TEST_CASE("GPU training: parameters come and go", "[cuda][training]") {
  training::parameters_come_and_go<gpu_world>();
  training::left_out_while_others_come_and_go<gpu_world>();
}
TEST_CASE("GPU training: a setting has one schedule, and set() ends it", "[cuda][training]") {
  training::schedules_have_one_name_and_an_end<gpu_world>();
  training::optimizers_bring_their_schedules<gpu_world>();
}
TEST_CASE("GPU training: clipping by the norm of all gradients", "[cuda][training]") {
  in_both([]<class World>(const World&) {
    for (const double most : {0.5, 1e6})
      for (const double scale : {1.0, 1024.0}) {
        CAPTURE(most, scale);
        training::clips_by_the_norm_of_all<World, adamw>(most, scale);
      }
    training::measuring_changes_nothing<World>();
  });
}
TEST_CASE("GPU training: weights written from outside last after resync()", "[cuda][training]") {
  training::writes_last_after_resync<gpu_world, muown>(true);
  training::writes_last_after_resync<gpu_world, adamw::with_constraint<master_weights<>>,
                                     types<bfloat16, bfloat16, float>>(true);
}
TEST_CASE("GPU training: what an observer says of a step", "[cuda][training]") {
  in_both([]<class World>(const World&) { training::observed_steps<World>(); });
}
TEST_CASE("GPU training: QK-clip scales the rows of heads whose logits are too large", "[cuda][training]") {
  training::heads_are_clipped<gpu_world, float>(), training::heads_are_clipped<gpu_world, double>();
  training::heads_in_range_keep_their_bits<gpu_world>();
  training::wrong_heads_are_refused<gpu_world>();
  training::clipped_weights_last<gpu_world, muown, types<float>>();
  training::clipped_weights_last<gpu_world, adamw::with_constraint<master_weights<>>,
                                 types<bfloat16, bfloat16, float>>();
}
TEST_CASE("GPU training: writes without resync() are told where they would be undone", "[cuda][training]") {
  training::unsynced_writes_are_told<gpu_world, muon>(false);
  training::unsynced_writes_are_told<gpu_world, muown>(true);
}
