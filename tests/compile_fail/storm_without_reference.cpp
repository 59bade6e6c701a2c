// expect: requires(!two_gradients)
#include <matopt/eigen.hpp>
#include <matopt/muon_storm.hpp>

void use(matopt::optimizer<matopt::muon_storm, matopt::eigen_backend>& opt, float* w, const float* g, const float* r) {
#ifdef MATOPT_MAKE_IT_FAIL
  (void)r;
  opt.add("w", matopt::row_major(w, 2, 3), matopt::row_major(g, 2, 3));
#else
  opt.add("w", matopt::row_major(w, 2, 3), matopt::row_major(g, 2, 3), matopt::row_major(r, 2, 3));
#endif
}
