// expect: momentum_policy
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using momentum = matopt::decoupled_decay;
#else
using momentum = matopt::ema;
#endif

template class matopt::optimizer<matopt::muon::with_momentum<momentum>, matopt::eigen_backend>;
