// expect: momentum_policy
#include <matopt/eigen.hpp>
#include <matopt/soap.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
struct my_backend : matopt::eigen_backend {
  void orthonormalize() = delete;  // hides the real one
};
#else
using my_backend = matopt::eigen_backend;
#endif

template class matopt::optimizer<matopt::soap, my_backend>;
