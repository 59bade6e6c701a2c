// expect: orthogonalizer_policy
#include <matopt/eigen.hpp>
#include <matopt/polargrad.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
struct my_backend : matopt::eigen_backend {
  void cholesky() = delete;  // hides the real one
};
#else
using my_backend = matopt::eigen_backend;
#endif

template class matopt::optimizer<matopt::polargrad_qdwh, my_backend>;
