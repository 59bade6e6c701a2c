// expect: scale_policy
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine {
  static std::string name() { return "mine"; }
#ifndef MATOPT_MAKE_IT_FAIL
  double factor(matopt::index_t, matopt::index_t) const { return 1; }
#endif
};

template class matopt::optimizer<matopt::muon::with_scale<mine>, matopt::eigen_backend>;
