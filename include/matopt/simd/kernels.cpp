// Compiles the kernels and the product once for a program: the CMake targets do this where Highway is found.
//
// SPDX-License-Identifier: MIT
#include "kernels.hpp"
#include "product_definition.hpp"
