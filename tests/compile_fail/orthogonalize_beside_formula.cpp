// expect: one_form_of_orthogonalize
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>

struct mine : matopt::sign_direction {  // in a step of formulas only, orthogonalize would not run
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class U>
  void orthogonalize(E& e, St&, matopt::view<U> u) const {
    e.for_each(matopt::fn::multiple{2}, u, as_const(u));
  }
#else
  using both_forms_agree = mine;
#endif
};

template class matopt::optimizer<matopt::lion::with_orthogonalizer<mine>, matopt::eigen_backend>;
