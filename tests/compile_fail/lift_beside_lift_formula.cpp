// expect: one_form_of_lift
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/constraint/coupled_decay.hpp>

struct mine : matopt::coupled_decay {  // with a momentum that is a formula only lift_formula would run
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class W, class G, class U>
  matopt::view<const U> lift(E& e, St&, matopt::view<W>, matopt::view<G> g, matopt::view<U> u) const {
    e.for_each(matopt::fn::assign{}, u, g);
    return u;
  }
#else
  using both_forms_agree = mine;
#endif
};

template class matopt::optimizer<matopt::muon::with_constraint<mine>, matopt::eigen_backend>;
