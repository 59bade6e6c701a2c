#include "model.hpp"

namespace small_gpt {

template class gpt<float>;

}  // namespace small_gpt
