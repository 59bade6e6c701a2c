// expect: one_form_of_accumulate
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine : matopt::ema {  // its formula would run, and accumulate never
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class G, class U>
  void accumulate(E& e, St&, matopt::view<G> g, matopt::view<U> u) const {
    e.for_each(matopt::fn::assign{}, u, g);
  }
#endif
};

template class matopt::optimizer<matopt::muon::with_momentum<mine>, matopt::eigen_backend>;
