// expect: momentum_policy
#include <matopt/eigen.hpp>
#include <matopt/muon_8bit.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
struct my_backend : matopt::eigen_backend {
  void quantize() = delete;  // hides the real one
};
#else
using my_backend = matopt::eigen_backend;
#endif

template class matopt::optimizer<matopt::muon_8bit, my_backend>;
