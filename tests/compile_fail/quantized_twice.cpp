// expect: keeps_state_to_quantize
#include <matopt/eigen.hpp>
#include <matopt/muon_8bit.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using momentum = matopt::quantized<matopt::ema>;
#else
using momentum = matopt::ema;
#endif

template class matopt::optimizer<matopt::muon::with_momentum<matopt::quantized<momentum>>, matopt::eigen_backend>;
