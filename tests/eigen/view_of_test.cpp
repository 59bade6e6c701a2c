// view_of reads every kind of Eigen storage in place, and refuses what has none.
#include <catch2/catch.hpp>
#include <matopt/eigen.hpp>
#include <utility>

using namespace matopt;

namespace {

using column_major = Eigen::MatrixXf;
using row_major_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class M>
concept viewable = requires(M&& m) {
  view_of(std::forward<M>(m));
};
template <class M>
using element = std::remove_pointer_t<decltype(view_of(std::declval<M>()).data)>;

static_assert(viewable<column_major&> && viewable<const column_major&> && viewable<Eigen::Map<column_major>> &&
              viewable<Eigen::Block<column_major>> && viewable<Eigen::Ref<column_major>>);
static_assert(!viewable<column_major>, "a temporary takes its memory with it");
static_assert(!viewable<decltype(std::declval<column_major&>() + std::declval<column_major&>())>);
static_assert(std::is_same_v<element<column_major&>, float> &&
              std::is_same_v<element<const column_major&>, const float>);
static_assert(std::is_same_v<element<Eigen::Map<const column_major>>, const float>);

// Same place, not only same value.
template <class M>
void check(M&& m) {
  const auto v = view_of(m);
  REQUIRE(v.rows == m.rows());
  REQUIRE(v.cols == m.cols());
  for (index_t i = 0; i < v.rows; ++i)
    for (index_t j = 0; j < v.cols; ++j) CHECK(&v(i, j) == &m.coeffRef(i, j));
}

}  // namespace

TEST_CASE("view_of: every storage", "[eigen]") {
  column_major a(5, 7);
  row_major_matrix b(5, 7);
  Eigen::Matrix3f fixed;
  Eigen::VectorXf column(9);
  Eigen::RowVectorXf row(9);
  using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  Eigen::Map<column_major, 0, strides> sparse(a.data(), 2, 3, strides(10, 2));
  check(a), check(b), check(fixed), check(column), check(row), check(sparse);
  check(a.block(1, 2, 3, 4)), check(b.block(1, 2, 3, 4)), check(a.transpose()), check(b.block(1, 2, 3, 4).transpose());
  check(a.row(2)), check(b.col(3)), check(a.topRows(2));
}
