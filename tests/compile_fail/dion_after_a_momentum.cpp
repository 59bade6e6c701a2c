// expect: momentum_is_kept_once
#include <matopt/dion.hpp>
#include <matopt/eigen.hpp>
#include <matopt/policy/momentum/momentum.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using momentum = matopt::ema;
#else
using momentum = matopt::no_momentum;
#endif

template class matopt::optimizer<matopt::dion::with_momentum<momentum>, matopt::eigen_backend>;
