// expect: the compute type is float or double
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using compute = matopt::bfloat16;
#else
using compute = float;
#endif

matopt::types<matopt::bfloat16, matopt::bfloat16, matopt::bfloat16, compute> t;
