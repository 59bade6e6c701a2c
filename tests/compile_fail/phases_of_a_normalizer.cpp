// expect: has_no_phases
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine {
#ifdef MATOPT_MAKE_IT_FAIL
  static constexpr matopt::index_t phases = 2;
  matopt::index_t phase(matopt::index_t step) const { return step % 2; }
#endif
  static std::string name() { return "mine"; }
  template <class E, class St, class U>
  void normalize(E&, St&, matopt::view<U>) const {}
};

template class matopt::optimizer<matopt::muon::with_normalizer<mine>, matopt::eigen_backend>;
