// expect: orthogonalizer_policy
#include <matopt/eigen.hpp>
#include <matopt/numuon.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
struct my_backend : matopt::eigen_backend {
  void svd() = delete;  // hides the real one
};
#else
using my_backend = matopt::eigen_backend;
#endif

template class matopt::optimizer<matopt::numuon_krylov, my_backend>;
