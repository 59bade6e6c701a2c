// expect: says_that_it_changes_gradient
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine : matopt::decoupled_decay {
#ifndef MATOPT_MAKE_IT_FAIL
  static constexpr bool changes_gradient = true;
#endif
  template <class E, class St, class W, class G, class U>
  matopt::view<const U> lift(E& e, St&, matopt::view<W>, matopt::view<G> g, matopt::view<U> u) const {
    e.for_each(matopt::fn::assign{}, u, g);
    return u;
  }
};

template class matopt::optimizer<matopt::muon::with_constraint<mine>, matopt::eigen_backend>;
