// The device "cuda", with the compositions.
#include "compositions.hpp"

#include "cuda_device.cuh"

namespace small_gpt {
void use_cuda_with_compositions() {
  add_compositions(cuda_rules());
  cuda_device_maker() = make_cuda_device;
}
}  // namespace small_gpt
