// expect: orthogonalized_once
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <matopt/policy/constraint/spectral_sphere.hpp>
#include <matopt/policy/orthogonalizer/no_orthogonalizer.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
using orthogonalizer = matopt::newton_schulz<>;
#else
using orthogonalizer = matopt::no_orthogonalizer;
#endif

template class matopt::optimizer<
    matopt::muon::with_orthogonalizer<orthogonalizer>::with_constraint<matopt::projected<matopt::spectral_sphere<>>>,
    matopt::eigen_backend>;
