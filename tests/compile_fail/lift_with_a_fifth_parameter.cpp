// expect: lift_has_four_parameters
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>

struct mine : matopt::decoupled_decay {  // a lift that nobody would call
#ifdef MATOPT_MAKE_IT_FAIL
  template <class E, class St, class W, class G, class U>
  matopt::view<const U> lift(E& e, St&, matopt::view<W>, matopt::view<G> g, matopt::view<U> u) const {
    e.for_each(matopt::fn::assign{}, u, g);
    return u;
  }
#else
  template <class E, class St, class W, class G>
  auto lift(E&, St&, matopt::view<W>, G g) const {
    return matopt::elementwise(matopt::fn::assign{}, matopt::update_slot{}, g);
  }
#endif
};

template class matopt::optimizer<matopt::muon::with_constraint<mine>, matopt::eigen_backend>;
