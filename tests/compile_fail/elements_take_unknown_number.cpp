// expect: elements take a shared() number that the formula on numbers does not have
#include <matopt/core/arena.hpp>
#include <matopt/core/pass.hpp>
#include <matopt/eigen.hpp>

#ifdef MATOPT_MAKE_IT_FAIL
constexpr int number = 2;
#else
constexpr int number = 1;
#endif

void scale_rows(matopt::pass<matopt::eigen_backend, float>& e, matopt::view<float> x, matopt::view<float> n,
                matopt::view<float> twice) {
  using namespace matopt;
  e.for_rows(work_on(fn::norm{}, as_const(x)), n,
             work_on(fn::multiple{2}, shared<1>(twice), sum_result<0>(as_const(n))),
             work_on(fn::divide{}, x, as_const(x), shared<number>(per_row(twice))));
}
