// small_gpt with the device "cuda" and two more rules, on both devices.
#include "compositions.hpp"

#include <matopt/eigen.hpp>

#include "../command_line.hpp"
#include "../rules.hpp"

namespace small_gpt {
void use_cuda_with_compositions();  // compositions.cu
}

int main(int argc, char** argv) {
  small_gpt::use_cuda_with_compositions();
  small_gpt::add_compositions(small_gpt::rules());
  return small_gpt::run(argc, argv);
}
