// expect: master_is_outermost
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/constraint/master_weights.hpp>
#include <matopt/policy/constraint/norm_control.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using constraint = matopt::projected<matopt::norm_control, matopt::master_weights<>>;
#else
using constraint = matopt::master_weights<matopt::projected<matopt::norm_control>>;
#endif

template class matopt::optimizer<matopt::muon::with_constraint<constraint>, matopt::eigen_backend,
                                 matopt::types<matopt::bfloat16, matopt::bfloat16, float>>;
