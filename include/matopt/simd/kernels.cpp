// Compiles the kernels and the product once for a program: the CMake targets do this where Highway is found.
#include "kernels.hpp"
#include "product_definition.hpp"
