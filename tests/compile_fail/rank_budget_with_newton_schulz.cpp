// expect: rank_budget_is_honoured
#include <matopt/eigen.hpp>
#include <matopt/numuon.hpp>
#include <matopt/policy/orthogonalizer/newton_schulz.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using orthogonalizer = matopt::newton_schulz<>;
#else
using orthogonalizer = matopt::svd_polar;
#endif

template class matopt::optimizer<matopt::numuon::with_orthogonalizer<orthogonalizer>, matopt::eigen_backend>;
