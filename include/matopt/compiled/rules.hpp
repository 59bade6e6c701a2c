// What a program that links matopt::compiled does not compile: the published rules on the CPU, in float and in double, and
// the engine under them. The CMake target compiles rules_float.cpp and rules_double.cpp once, and defines MATOPT_COMPILED
// for whoever links it; the header of a rule then says with MATOPT_COMPILED_RULE that the library has it. The source of the
// program stays the same. Without the macro a rule is compiled where it is used. No class depends on it.
//
// SPDX-License-Identifier: MIT
#pragma once
#ifdef MATOPT_COMPILED
#include "../eigen.hpp"
#include "../engine/any_optimizer.hpp"

// Declarations for the element types that the library has. Its own two files define MATOPT_COMPILED_ELEMENT, the type that
// they are compiled for.
#ifdef MATOPT_COMPILED_ELEMENT
#define MATOPT_COMPILED_RULE(R) MATOPT_COMPILED_RULE_IN(template, R, MATOPT_COMPILED_ELEMENT)
#define MATOPT_COMPILED_ENGINES MATOPT_COMPILED_ENGINE_IN(template, MATOPT_COMPILED_ELEMENT)
#else
#ifdef MATOPT_COMPILED_FLOAT
#define MATOPT_COMPILED_RULE_IN_FLOAT(R) MATOPT_COMPILED_RULE_IN(extern template, R, float)
#define MATOPT_COMPILED_ENGINE_IN_FLOAT MATOPT_COMPILED_ENGINE_IN(extern template, float)
#else
#define MATOPT_COMPILED_RULE_IN_FLOAT(R)
#define MATOPT_COMPILED_ENGINE_IN_FLOAT
#endif
#ifdef MATOPT_COMPILED_DOUBLE
#define MATOPT_COMPILED_RULE_IN_DOUBLE(R) MATOPT_COMPILED_RULE_IN(extern template, R, double)
#define MATOPT_COMPILED_ENGINE_IN_DOUBLE MATOPT_COMPILED_ENGINE_IN(extern template, double)
#else
#define MATOPT_COMPILED_RULE_IN_DOUBLE(R)
#define MATOPT_COMPILED_ENGINE_IN_DOUBLE
#endif
#define MATOPT_COMPILED_RULE(R) MATOPT_COMPILED_RULE_IN_FLOAT(R) MATOPT_COMPILED_RULE_IN_DOUBLE(R)
#define MATOPT_COMPILED_ENGINES MATOPT_COMPILED_ENGINE_IN_FLOAT MATOPT_COMPILED_ENGINE_IN_DOUBLE
#endif

#define MATOPT_COMPILED_RULE_IN(how, R, T) how class typed_rule<R, eigen_backend, types<T>>;
#define MATOPT_COMPILED_ENGINE_IN(how, T)                     \
  how class parameter_list<T, T>;                             \
  how class step_plan<eigen_backend, types<T, T, T, T>>;      \
  how class gradient_check<eigen_backend, types<T, T, T, T>>; \
  how class engine<eigen_backend, types<T, T, T, T>>;         \
  how class any_optimizer<eigen_backend, types<T>>;

namespace MATOPT_NAMESPACE {
MATOPT_COMPILED_ENGINES
}  // namespace MATOPT_NAMESPACE

#else
#define MATOPT_COMPILED_RULE(R)
#endif
