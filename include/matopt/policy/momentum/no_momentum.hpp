// Remembers nothing: u = G. For orthogonalizers that keep a buffer of their own (dion), and for plain descent.
// State: none.
#pragma once
#include "../../core/policy.hpp"

namespace matopt {

struct no_momentum {
  static std::string name() { return "no_momentum"; }
  template <class E, class St, class G, class U>
  void accumulate(E& e, St&, view<G> g, view<U> u) const {
    if (static_cast<const void*>(g.data) != static_cast<const void*>(u.data) || !u.data)
      e.for_each(fn::assign{}, u, as_const(g));
  }
};

}  // namespace matopt
