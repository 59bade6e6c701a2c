// The device "cuda" of the trainer (device.hpp): the model and the optimizer on a GPU.
//
//   int main(int argc, char** argv) {
//     small_gpt::cuda_rules().add<my_rule>("mine");              if there is a rule of one's own, for both devices
//     small_gpt::rules().add<my_rule>("mine");
//     small_gpt::cuda_device_maker() = small_gpt::make_cuda_device;
//     return small_gpt::run(argc, argv);
//   }
#pragma once
#include <matopt/cuda.cuh>
#include <matopt/engine/rule_registry.hpp>
#include <memory>
#include <span>

#include "../device.hpp"

namespace small_gpt {

using cuda_rule_book = matopt::rule_registry<matopt::cuda_backend>;

// All rules that the device knows. To begin with, those of rules().
cuda_rule_book& cuda_rules();

// Throws bad_value for a GPU that is not there, or a model that has no kernels in this precision; cuda_error;
// out_of_memory.
std::unique_ptr<device> make_cuda_device(const run_settings& settings, const gpt_config& config,
                                         std::span<float> weights);

}  // namespace small_gpt
