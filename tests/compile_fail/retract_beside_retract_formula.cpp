// expect: one_form_of_retract
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine : matopt::decoupled_decay {  // its retract_formula would run, and retract never
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class W, class U, class Rate>
  void retract(E& e, St&, matopt::view<W> w, matopt::view<U> u, Rate, double) const {
    e.for_each(matopt::fn::assign{}, w, as_const(u));
  }
#endif
};

template class matopt::optimizer<matopt::muon::with_constraint<mine>, matopt::eigen_backend>;
