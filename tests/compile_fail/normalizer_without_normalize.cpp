// expect: normalizer_policy
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine {
  static std::string name() { return "mine"; }
#ifndef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class U>
  void normalize(E&, St&, matopt::view<U>) const {}
#endif
};

template class matopt::optimizer<matopt::muon::with_normalizer<mine>, matopt::eigen_backend>;
