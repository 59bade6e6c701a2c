// expect: orthogonalizer_policy
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using orthogonalizer = matopt::ema;
#else
using orthogonalizer = matopt::newton_schulz<>;
#endif

template class matopt::optimizer<matopt::muon::with_orthogonalizer<orthogonalizer>, matopt::eigen_backend>;
