// expect: view<double>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using element = double;
#else
using element = float;
#endif

void use(matopt::optimizer<matopt::muon, matopt::eigen_backend>& opt, element* w, const float* g) {
  opt.add("w", matopt::row_major(w, 2, 3), matopt::row_major(g, 2, 3));
}
