// The trainer's compositions on the GPU.
#include "../compositions.hpp"

#include "cuda_device.cuh"

namespace small_gpt {
void add_compositions(cuda_rule_book& book) { add_compositions_to(book); }
}  // namespace small_gpt
