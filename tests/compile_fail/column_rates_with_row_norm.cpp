// expect: column_rates_are_taken
#include <matopt/eigen.hpp>
#include <matopt/namo_d.hpp>
#include <matopt/policy/constraint/row_norm.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using constraint = matopt::row_norm<>;
#else
using constraint = matopt::clamped_decay;
#endif

template class matopt::optimizer<matopt::namo_d::with_constraint<constraint>, matopt::eigen_backend>;
