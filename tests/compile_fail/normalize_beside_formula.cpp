// expect: one_form_of_normalize
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine : matopt::no_normalizer {  // what leaves the update would go on leaving it
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class U>
  void normalize(E& e, St&, matopt::view<U> u) const {
    e.for_each(matopt::fn::multiple{2}, u, as_const(u));
  }
#else
  using both_forms_agree = mine;
#endif
};

template class matopt::optimizer<matopt::muon::with_normalizer<mine>, matopt::eigen_backend>;
