// expect: norm_estimate
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/constraint/spectral_cap.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
struct estimate {  // no estimate(pass, state, w, triple)
  static std::string name() { return "none"; }
};
#else
using estimate = matopt::power_iteration;
#endif

using capped = matopt::muon::with_constraint<matopt::projected<matopt::hard_cap<estimate>>>;
void use(matopt::optimizer<capped, matopt::eigen_backend>& opt) { opt.step(0.02); }
