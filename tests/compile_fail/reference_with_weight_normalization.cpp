// expect: reference_is_comparable
#include <matopt/eigen.hpp>
#include <matopt/muon_storm.hpp>
#include <matopt/policy/constraint/weight_normalization.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using constraint = matopt::weight_normalization<>;
#else
using constraint = matopt::decoupled_decay;
#endif

template class matopt::optimizer<matopt::muon_storm::with_constraint<constraint>, matopt::eigen_backend>;
