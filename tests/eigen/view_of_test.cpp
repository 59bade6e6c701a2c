// view_of reads every kind of Eigen storage in place, and refuses what has none; and it takes tensors of other classes,
// whose authors or users say how.
#include <catch2/catch.hpp>
#include <cstdio>
#include <matopt/adapters/dlpack.hpp>
#include <matopt/adapters/mdspan.hpp>
#include <matopt/eigen.hpp>
#include <matopt/lion.hpp>
#include <matopt/muon.hpp>
#include <matopt/optimizer.hpp>
#include <string>
#include <utility>
#include <vector>
#if __has_include(<version>)
#include <version>
#endif
#ifdef __cpp_lib_mdspan
#include <mdspan>
#endif
#if __has_include(<cuda/std/mdspan>)
#include <cuda/std/mdspan>
#endif

// From here to the test the code is that of docs/your-own-tensors.md.
namespace lab {

// A stack of row-major matrices, whose rows are padded to `pitch` elements.
class tensor {
 public:
  tensor(long count, long rows, long cols) : count(count), rows(rows), cols(cols), pitch((cols + 7) / 8 * 8) {
    numbers.resize(static_cast<std::size_t>(count * rows * pitch));
  }
  float* data() { return numbers.data(); }
  const float* data() const { return numbers.data(); }

  long count, rows, cols, pitch;

 private:
  std::vector<float> numbers;
};

// How matopt reads it.
matopt::view<float> view_of(tensor& t) { return {t.data(), t.rows, t.cols, t.pitch, 1, t.count, t.rows * t.pitch}; }
matopt::view<const float> view_of(const tensor& t) {
  return {t.data(), t.rows, t.cols, t.pitch, 1, t.count, t.rows * t.pitch};
}

}  // namespace lab

namespace elsewhere {

// A handle to memory that someone else holds, in a namespace that is not yours.
struct handle {
  double* first;
  int inputs, outputs;
};

}  // namespace elsewhere

template <>
struct matopt::tensor_adapter<elsewhere::handle> {
  // Stored as inputs x outputs, row by row: a transposed matrix.
  static view<double> view_of(const elsewhere::handle& h) { return row_major(h.first, h.inputs, h.outputs).t(); }
};
template <>
inline constexpr bool matopt::points_to_memory<elsewhere::handle> = true;

using namespace matopt;

namespace {

using column_major = Eigen::MatrixXf;
using row_major_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

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

namespace lab {
// With one function alone, a tensor and a constant one are read in the same way.
struct numbers {
  const double* first;
  index_t count;
};
view<const double> view_of(const numbers& n) { return row_major(n.first, 1, n.count); }

struct opaque {};
int view_of(opaque&);  // gives no view
}  // namespace lab

static_assert(viewable<lab::tensor&> && viewable<const lab::tensor&>);
static_assert(!viewable<lab::tensor> && !viewable<const lab::tensor>, "a temporary takes its memory with it");
static_assert(viewable_as<lab::tensor&, float> && viewable_as<lab::tensor&, const float> &&
              viewable_as<const lab::tensor&, const float> && !viewable_as<const lab::tensor&, float> &&
              !viewable_as<lab::tensor&, double>);
static_assert(viewable<elsewhere::handle> && viewable<const elsewhere::handle&>, "a handle owns nothing");
static_assert(viewable<lab::numbers&> && !viewable<lab::numbers>);
static_assert(!viewable<lab::opaque&> && !viewable<int&> && !viewable<std::vector<float>&>);
static_assert(viewable<view<float>> && viewable_as<view<float>&, const float> &&
              !viewable_as<view<const float>, float>);

TEST_CASE("view_of: a foreign class in place, strided, in a stack, and constant", "[view_of]") {
  lab::tensor t(3, 4, 5);
  const view<float> v = matopt::view_of(t);
  const view<const float> c = matopt::view_of(std::as_const(t));
  REQUIRE((v.rows == 4 && v.cols == 5 && v.batch == 3));
  REQUIRE((c.rows == 4 && c.cols == 5 && c.batch == 3));
  for (long b = 0; b < 3; ++b)
    for (long i = 0; i < 4; ++i)
      for (long j = 0; j < 5; ++j) {
        float* const at = t.data() + (b * 4 + i) * 8 + j;
        CHECK(&v(i, j, b) == at);
        CHECK(&c(i, j, b) == at);
      }
  std::vector<double> memory(6);
  const view<double> h = matopt::view_of(elsewhere::handle{memory.data(), 2, 3});  // a temporary
  REQUIRE((h.rows == 3 && h.cols == 2));
  CHECK(&h(2, 1) == &memory[5]);
  CHECK(&h(1, 0) == &memory[1]);
  const view<float> same = matopt::view_of(v.t());
  CHECK((same.data == v.data && same.rows == 5 && same.batch == 3));
}

TEST_CASE("viewed<T>: a function takes a view, or what has one", "[view_of]") {
  const auto first = [](viewed<const float> x) { return x.empty() ? nullptr : &x(0, 0); };
  lab::tensor t(1, 2, 2);
  Eigen::MatrixXf m(2, 2);
  CHECK(first(t) == t.data());
  CHECK(first(std::as_const(t)) == t.data());
  CHECK(first(m) == m.data());
  CHECK(first(m.row(1)) == m.data() + 1);
  CHECK(first(view_of(t)) == t.data());
  CHECK(first({}) == nullptr);
  static_assert(!std::is_constructible_v<viewed<float>, const lab::tensor&> &&
                !std::is_constructible_v<viewed<float>, lab::tensor> &&
                !std::is_constructible_v<viewed<float>, view<double>>);
}

TEST_CASE("view_of: an optimizer steps tensors of a foreign class", "[view_of]") {
  eigen_backend backend(1);
  lab::tensor weight(3, 4, 5), gradient(3, 4, 5);
  for (long i = 0; i < 3 * 4 * 8; ++i) gradient.data()[i] = i % 2 ? 1.F : -1.F;

  matopt::optimizer<matopt::lion, matopt::eigen_backend> opt(backend);
  opt.add("experts", weight, std::as_const(gradient));
  opt.finalize();
  opt.step(0.25);

  CHECK(opt.size() == 3);
  for (long i = 0; i < 3 * 4 * 8; ++i)
    CHECK(weight.data()[i] == (i % 8 >= 5 ? 0 : i % 2 ? -0.25F : 0.25F));  // what pads the rows is not touched
}

// The next two tests have the code of docs/eigen.md.
TEST_CASE("view_of: an optimizer steps blocks, transposes and maps of Eigen", "[eigen]") {
  eigen_backend cpu(1);
  Eigen::MatrixXf qkv = Eigen::MatrixXf::Random(24, 8), g_qkv = Eigen::MatrixXf::Random(24, 8);
  Eigen::MatrixXf down = Eigen::MatrixXf::Random(16, 8), g_down = Eigen::MatrixXf::Random(16, 8);
  std::vector<float> buffer(48, 1), g_buffer(48, 0.5F);
  const Eigen::MatrixXf start = qkv, start_down = down;

  optimizer<muon, eigen_backend> opt(cpu, {.momentum = {.beta = 0.9}, .constraint = {.decay = 0.01}});
  opt.add("q", view_of(qkv.topRows(8)), view_of(g_qkv.topRows(8)));
  opt.add("kv", view_of(qkv.bottomRows(16)), view_of(g_qkv.bottomRows(16)), {.row_blocks = {8, 8}});
  opt.add("down", view_of(down.transpose()), view_of(g_down.transpose()));  // stored as inputs x outputs
  Eigen::Map<row_major_matrix> map(buffer.data(), 6, 8), g_map(g_buffer.data(), 6, 8);
  opt.add("map", map, g_map);
  opt.finalize();
  opt.step(0.02);

  if (const step_status status = opt.poll_status(); !status)
    for (const std::string& name : status.parameters) std::printf("the gradient of %s was not finite\n", name.c_str());

  CHECK(opt.size() == 5);
  CHECK(opt.poll_status());
  // The same numbers in matrices of their own take the same step.
  optimizer<muon, eigen_backend> plain(cpu, {.momentum = {.beta = 0.9}, .constraint = {.decay = 0.01}});
  Eigen::MatrixXf parts[4], gradients[4];
  for (int i = 0; i < 3; ++i) parts[i] = start.middleRows(8 * i, 8), gradients[i] = g_qkv.middleRows(8 * i, 8);
  parts[3] = start_down.transpose(), gradients[3] = g_down.transpose();
  for (int i = 0; i < 4; ++i) plain.add(std::to_string(i), parts[i], gradients[i]);
  plain.finalize();
  plain.step(0.02);
  for (int i = 0; i < 3; ++i) CHECK((qkv.middleRows(8 * i, 8) - parts[i]).cwiseAbs().maxCoeff() < 1e-6F);
  CHECK((down.transpose() - parts[3]).cwiseAbs().maxCoeff() < 1e-6F);
  CHECK(buffer[0] < 1);
}

TEST_CASE("view_of: an optimizer steps Eigen's doubles", "[eigen]") {
  eigen_backend cpu(1);
  Eigen::MatrixXd w = Eigen::MatrixXd::Ones(3, 4), g = Eigen::MatrixXd::Ones(3, 4);
  optimizer<lion, eigen_backend, types<double>> opt(cpu);
  opt.add("w", view_of(w), view_of(g));
  opt.finalize();
  opt.step(0.25);
  CHECK(w == Eigen::MatrixXd::Constant(3, 4, 0.75));
}

// The structs of DLPack, as a program may declare them itself.
namespace dl {
struct device {
  int device_type;
  std::int32_t device_id;
};
struct data_type {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct tensor {
  void* data;
  dl::device device;
  std::int32_t ndim;
  data_type dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct managed {
  tensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(managed*);
};
struct managed_versioned {
  struct {
    std::uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(managed_versioned*);
  std::uint64_t flags;
  tensor dl_tensor;
};
}  // namespace dl

TEST_CASE("DLPack tensors are views", "[dlpack]") {
  using Catch::Matchers::Contains;
  std::vector<float> numbers(200);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  std::int64_t shape[] = {2, 3, 4}, strides[] = {50, 10, 2};
  const auto tensor = [&](int ndim, bool strided) {
    return dl::tensor{
        numbers.data(), {1, 0}, ndim, {2, 32, 1}, shape + 3 - ndim, strided ? strides + 3 - ndim : nullptr, 8};
  };
  const auto same = [&](const matopt::view<float>& v, const matopt::view<float>& expected) {
    CHECK(v.data == expected.data);
    CHECK((v.rows == expected.rows && v.cols == expected.cols && v.batch == expected.batch));
    CHECK((v.row_stride == expected.row_stride && v.col_stride == expected.col_stride));
    CHECK((v.batch == 1 || v.batch_stride == expected.batch_stride));
  };
  float* const first = numbers.data() + 2;
  same(matopt::dlpack_view<float>(tensor(3, false)), matopt::row_major(first, 3, 4, 2));
  same(matopt::dlpack_view<float>(tensor(2, false)), matopt::row_major(first, 3, 4));
  same(matopt::dlpack_view<float>(tensor(1, false)), matopt::row_major(first, 4, 1));
  same(matopt::dlpack_view<float>(tensor(3, true)), {first, 3, 4, 10, 2, 2, 50});
  same(matopt::dlpack_view<float>(tensor(1, true)), {first, 4, 1, 2, 1, 1, 0});

  dl::managed old{tensor(2, true), nullptr, nullptr};
  same(matopt::dlpack_view<float>(old), {first, 3, 4, 10, 2, 1, 0});
  dl::managed_versioned now{{1, 0}, nullptr, nullptr, 0, tensor(2, true)};
  same(matopt::dlpack_view<float>(now), {first, 3, 4, 10, 2, 1, 0});
  now.flags = 1;
  CHECK_THROWS_WITH(matopt::dlpack_view<float>(now), Contains("read-only"));
  CHECK(matopt::dlpack_view<const float>(now).data == first);
  now.version.major = 2;
  CHECK_THROWS_WITH(matopt::dlpack_view<const float>(now), Contains("major version") && Contains("is 2"));

  using matopt::bad_value;
  dl::tensor t = tensor(2, false);
  CHECK_THROWS_WITH(matopt::dlpack_view<double>(t), Contains("code 2 of 32 bits") && Contains("code 2 of 64"));
  CHECK_THROWS_AS(matopt::dlpack_view<matopt::bfloat16>(t), bad_value);
  t.dtype = {4, 16, 1};
  CHECK(matopt::dlpack_view<matopt::bfloat16>(t).rows == 3);
  CHECK_THROWS_AS(matopt::dlpack_view<matopt::float16>(t), bad_value);
  t.dtype = {2, 32, 4};
  CHECK_THROWS_WITH(matopt::dlpack_view<float>(t), Contains("4 lanes"));
  t = tensor(2, false), t.device.device_type = 2;
  CHECK_THROWS_WITH(matopt::dlpack_view<float>(t), Contains("device type") && Contains("is 2"));
  CHECK(matopt::dlpack_view<float>(t, matopt::dlpack_memory::cuda).cols == 4);
  t.device.device_type = 1;
  CHECK_THROWS_AS(matopt::dlpack_view<float>(t, matopt::dlpack_memory::cuda), bad_value);
  for (const int ndim : {0, 4}) {
    t = tensor(2, false), t.ndim = ndim;
    CHECK_THROWS_WITH(matopt::dlpack_view<float>(t), Contains("dimensions") && Contains("is " + std::to_string(ndim)));
  }
  std::int64_t negative[] = {3, -1}, none[] = {0, 4};
  t = tensor(2, false), t.shape = negative;
  CHECK_THROWS_WITH(matopt::dlpack_view<float>(t), Contains("dimension 1") && Contains("is -1"));
  t = tensor(2, false), t.shape = none, t.data = nullptr;
  CHECK(matopt::dlpack_view<float>(t).data == nullptr);
}

TEST_CASE("a step on tensors of DLPack", "[dlpack]") {
  std::vector<float> weight(12, 1), gradient(12, 2);
  std::int64_t shape[] = {3, 4};
  dl::managed w{{weight.data(), {1, 0}, 2, {2, 32, 1}, shape, nullptr, 0}, nullptr, nullptr},
      g{{gradient.data(), {1, 0}, 2, {2, 32, 1}, shape, nullptr, 0}, nullptr, nullptr};
  matopt::eigen_backend cpu;
  matopt::optimizer<matopt::lion, matopt::eigen_backend> opt(cpu);
  opt.add("w", matopt::dlpack_view<float>(w), matopt::dlpack_view<const float>(g));
  opt.finalize();
  opt.step(0.25);
  for (const float x : weight) CHECK(x == 0.75F);
}

namespace {

// The part of std::mdspan that the adapter looks at, for standard libraries without one.
template <class T, std::size_t Rank>
struct plain_mdspan {
  using element_type = T;
  T* data;
  std::size_t extents[Rank], strides[Rank];
  static constexpr std::size_t rank() { return Rank; }
  static constexpr bool is_always_strided() { return true; }
  T* data_handle() const { return data; }
  std::size_t extent(std::size_t i) const { return extents[i]; }
  std::size_t stride(std::size_t i) const { return strides[i]; }
};
template <class T>
bool same_view(const matopt::view<T>& a, const matopt::view<T>& b) {
  return a.data == b.data && a.rows == b.rows && a.cols == b.cols && a.row_stride == b.row_stride &&
         a.col_stride == b.col_stride && a.batch == b.batch && (a.batch == 1 || a.batch_stride == b.batch_stride);
}

}  // namespace

TEST_CASE("mdspans are views", "[mdspan]") {
  float x[24] = {};
  using matopt::view, matopt::view_of;
  CHECK(same_view(view_of(plain_mdspan<float, 2>{x, {4, 6}, {6, 1}}), matopt::row_major(x, 4, 6)));
  CHECK(same_view(view_of(plain_mdspan<float, 2>{x, {4, 6}, {1, 4}}), matopt::col_major(x, 4, 6)));
  CHECK(same_view(view_of(plain_mdspan<const float, 3>{x, {2, 3, 4}, {12, 4, 1}}),
                  matopt::row_major<const float>(x, 3, 4, 2)));
  CHECK(same_view(view_of(plain_mdspan<float, 1>{x, {6}, {2}}), view<float>{x, 6, 1, 2, 1}));
  STATIC_REQUIRE(!matopt::viewable<plain_mdspan<float, 4>>);
#ifdef __cpp_lib_mdspan
  CHECK(same_view(view_of(std::mdspan(x, 4, 6)), matopt::row_major(x, 4, 6)));
  CHECK(same_view(view_of(std::mdspan<float, std::dextents<int, 2>, std::layout_left>(x, 4, 6)),
                  matopt::col_major(x, 4, 6)));
#endif
#if __has_include(<cuda/std/mdspan>)
  CHECK(same_view(view_of(cuda::std::mdspan<float, cuda::std::dextents<int, 3>>(x, 2, 3, 4)),
                  matopt::row_major(x, 3, 4, 2)));
  CHECK(same_view(view_of(cuda::std::mdspan<float, cuda::std::extents<int, 4, 6>, cuda::std::layout_left>(x)),
                  matopt::col_major(x, 4, 6)));
#endif
}
