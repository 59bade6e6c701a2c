// small_gpt with the device "cuda".
#include "../command_line.hpp"
#include "cuda_device.cuh"

int main(int argc, char** argv) {
  small_gpt::cuda_device_maker() = small_gpt::make_cuda_device;
  return small_gpt::run(argc, argv);
}
