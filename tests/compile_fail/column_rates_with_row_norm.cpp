// expect: column_rates_are_taken
#include <matopt/eigen.hpp>
#include <matopt/namo_d.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using constraint = matopt::weight_normalization<>;
#else
using constraint = matopt::clamped_decay;
#endif

template class matopt::optimizer<matopt::namo_d::with_constraint<constraint>, matopt::eigen_backend>;
