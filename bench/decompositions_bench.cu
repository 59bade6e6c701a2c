// Singular value decompositions on a GPU, the library's own beside cuSOLVER's: a table in Markdown.
//
//   cuda_decompositions_bench [--few] [--recorded]
//
// For every shape, type and spectrum the median time of a batch in milliseconds; how far U S V^T is from A, in units of
// eps sqrt(n) ||A||_F / sqrt(n), and U and V from orthonormal columns, the largest entry; and whether the routine can
// be recorded in a CUDA graph. Factors are checked on the device, in double.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <matopt/cuda.cuh>
#include <matopt/cuda/cusolver.cuh>
#include <memory>
#include <string>
#include <vector>

using namespace matopt;

namespace {

struct shape {
  index_t rows, cols, batch;
};

// G - I, for the columns that are not left out as noise
struct without_identity {
  template <class C>
  MATOPT_HD void operator()(C& x, C row, C column) const {
    if (row == column) x = x > C(0.5) ? x - C(1) : C(0);
  }
};
struct times {
  template <class C>
  MATOPT_HD void operator()(C& x, C s) const {
    x *= s;
  }
};

// One backend, its factors, and what checks them.
template <class T>
class subject {
 public:
  subject(cudaStream_t stream, std::unique_ptr<cuda::svd_library> library, shape s)
      : gpu_(stream, std::move(library)),
        s_(s),
        q_(std::min(s.rows, s.cols)),
        memory_(gpu_.allocate(static_cast<std::size_t>((s.rows * q_ + q_ + s.cols * q_) * s.batch) * sizeof(T))),
        workspace_(gpu_.allocate(gpu_.svd_workspace<T>(s.rows, s.cols, s.batch))) {
    T* at = reinterpret_cast<T*>(memory_.data());
    const auto take = [&](index_t rows, index_t cols) {
      const view<T> v{at, rows, cols, 1, rows, s.batch, rows * cols};
      at += rows * cols * s.batch;
      return v;
    };
    u_ = take(s.rows, q_), values_ = take(q_, 1), v_ = take(s.cols, q_);
  }

  void run(view<const T> a) { gpu_.svd(nullptr, a, u_, values_, v_, workspace_.data()); }
  double median_ms(view<const T> a, int repeats) {
    cudaEvent_t begin = nullptr, end = nullptr;
    cuda::check(cudaEventCreate(&begin), "make an event"), cuda::check(cudaEventCreate(&end), "make an event");
    run(a);
    std::vector<double> times;
    for (int i = 0; i < repeats; ++i) {
      gpu_.record(begin), run(a), gpu_.record(end), gpu_.synchronize();
      float ms = 0;
      cuda::check(cudaEventElapsedTime(&ms, begin, end), "time");
      times.push_back(static_cast<double>(ms));
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  bool can_be_recorded(view<const T> a) {
    cuda::check(cudaStreamBeginCapture(gpu_.stream(), cudaStreamCaptureModeThreadLocal), "begin to record");
    bool all = true;
    try {
      run(a);
    } catch (const std::exception&) {
      all = false;
    }
    cudaGraph_t graph = nullptr;
    all = cudaStreamEndCapture(gpu_.stream(), &graph) == cudaSuccess && all;
    if (graph) cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    return all;
  }
  // The two errors.
  std::pair<double, double> errors(view<const T> a) {
    cuda_backend::buffer memory = gpu_.allocate(
        static_cast<std::size_t>((3 * s_.rows * s_.cols + q_ * q_ + s_.rows * q_ + s_.cols * q_ + 3) * s_.batch) *
        sizeof(double));
    double* at = reinterpret_cast<double*>(memory.data());
    const auto take = [&](index_t rows, index_t cols) {
      const view<double> v{at, rows, cols, 1, rows, s_.batch, rows * cols};
      at += rows * cols * s_.batch;
      return v;
    };
    const view<double> u = take(s_.rows, q_), v = take(s_.cols, q_), x = take(s_.rows, s_.cols), gram = take(q_, q_),
                       number = take(1, 1);
    const auto largest = [&](view<double> of) {
      gpu_.reduce(nullptr, fn::abs_max{}, number, as_const(of));
      std::vector<double> each(static_cast<std::size_t>(s_.batch));
      gpu_.download(each.data(), number.data, each.size() * sizeof(double));
      return *std::max_element(each.begin(), each.end());
    };
    double orthonormal = 0;
    for (const auto& [from, to] : {std::pair{u_, u}, {v_, v}}) {
      gpu_.for_each(nullptr, fn::assign{}, to, as_const(from));
      gpu_.gemm<double>(nullptr, 1, to.t(), to, 0, gram, gram);
      gpu_.for_each(nullptr, without_identity{}, gram, row_number{}, column_number{});
      orthonormal = std::max(orthonormal, largest(gram));
    }
    gpu_.for_each(nullptr, fn::assign{}, x, a);
    const double size = largest(x);
    gpu_.for_each(nullptr, times{}, u, per_column(as_const(values_.t())));
    gpu_.gemm<double>(nullptr, 1, u, v.t(), -1, x, x);
    return {largest(x) / size / static_cast<double>(std::numeric_limits<T>::epsilon()), orthonormal};
  }

 private:
  cuda_backend gpu_;
  shape s_;
  index_t q_;
  cuda_backend::buffer memory_, workspace_;
  view<T> u_, values_, v_;
};

// Noise; `falling` makes column j 2^-j times as large, down to 1e-6.
struct column_scale {
  template <class C>
  MATOPT_HD void operator()(C& x, C column) const {
    C factor = C(1);
    for (C j = C(0); j < column && factor > C(1e-6); j += C(1)) factor *= C(0.5);
    x *= factor;
  }
};

// For every batch, also where the library's own are faster.
class every_batch : public cuda::cusolver {
 public:
  bool takes(const cuda::svd_problem& p) const override { return p.type == element_type::f32 && p.n > 64; }
};

template <class T>
void measure(shape s, bool falling, int repeats, bool recorded) {
  cudaStream_t stream = nullptr;
  cuda::check(cudaStreamCreate(&stream), "make a stream");
  {
    cuda_backend gpu(stream);
    cuda_backend::buffer memory = gpu.allocate(static_cast<std::size_t>(s.rows * s.cols * s.batch) * sizeof(T)),
                         zero = gpu.allocate(256);
    cuda::check(cudaMemsetAsync(zero.data(), 0, 256, stream), "clear");
    const view<T> a = row_major(reinterpret_cast<T*>(memory.data()), s.rows, s.cols, s.batch);
    gpu.random_normal(nullptr, a, 1,
                      view<const std::uint32_t>{reinterpret_cast<std::uint32_t*>(zero.data()), 1, 1, 1, 1});
    if (falling) gpu.for_each(nullptr, column_scale{}, a, column_number{});
    const auto row = [&](const char* name, std::unique_ptr<cuda::svd_library> library) {
      std::printf("| %lld x %lld x %lld | %s | %s | %s | ", static_cast<long long>(s.batch),
                  static_cast<long long>(s.rows), static_cast<long long>(s.cols), sizeof(T) == 8 ? "double" : "float",
                  falling ? "falling" : "noise", name);
      try {
        subject<T> by(stream, std::move(library), s);
        if (recorded) {
          by.run(a), gpu.synchronize();
          std::printf("%s |\n", by.can_be_recorded(a) ? "can be recorded" : "cannot be recorded");
          return;
        }
        const double ms = by.median_ms(a, repeats);
        const auto [residual, orthonormal] = by.errors(a);
        std::printf("%.3g | %.2g | %.1e |\n", ms, residual, orthonormal);
      } catch (const std::exception& e) {
        std::printf("%s | | |\n", e.what());
        (void)cudaGetLastError();
      }
      std::fflush(stdout);
    };
    row("own", nullptr);
    if constexpr (std::is_same_v<T, float>) row("cuSOLVER", std::make_unique<every_batch>());
  }
  cudaStreamDestroy(stream);
}

}  // namespace

int main(int argc, char** argv) {
  const auto given = [&](const char* option) {
    return std::any_of(argv + 1, argv + argc, [&](const char* a) { return std::strcmp(a, option) == 0; });
  };
  {
    cuda_backend gpu;
    std::printf("%s\n\n", gpu.describe().c_str());
  }
  if (given("--recorded")) {
    measure<float>({256, 256, 1}, false, 1, true);
    return 0;
  }
  std::printf("| batch | type | spectrum | by | ms | residual / eps max | from orthonormal |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  const shape shapes[] = {{256, 256, 1},  {768, 768, 1},  {768, 768, 4},  {768, 768, 8},   {768, 768, 16},
                          {768, 768, 32}, {768, 768, 48}, {3072, 768, 1}, {3072, 768, 24}, {2048, 2048, 1}};
  for (const shape s : shapes) {
    measure<float>(s, false, 3, false);
    if (given("--few")) continue;
    measure<float>(s, true, 3, false);
    if (s.batch == 1 || s.batch == 8) measure<double>(s, false, 3, false);
  }
  return 0;
}
