// Plain arrays, as a training loop in C has them. Rows are outputs and columns inputs, whatever the storage; a view
// says how the memory is to be read, and nothing is copied:
//
//   fused QKV [3d, d]          one array, three matrices: row_blocks {d, d, d}
//   stacked layers [L, d, h]   one array, L matrices: a batch
//   transposed [in, out]       stored the other way round: .t()
//
// The check: the same numbers in separate, row-major arrays take exactly the same steps.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <matopt/eigen.hpp>
#include <matopt/muon.hpp>
#include <string>

using matopt::index_t;
using matopt::row_major;

namespace {

constexpr index_t d = 32, hidden = 48, layers = 3;

struct model {
  float qkv[3 * d * d];
  float up[layers * hidden * d];  // [layer, out, in]
  float down[hidden * d];         // [in, out]: the transpose of a d x hidden matrix
};
// The same weights, each matrix an array of its own, row-major.
struct plain_model {
  float q[d * d], k[d * d], v[d * d], up[layers][hidden * d], down[d * hidden];
};

// The same number for the same place, in both models.
float value(int matrix, index_t row, index_t col, int step) {
  return std::sin(static_cast<float>(7 * matrix + 3 * row + 5 * col + 11 * row * col % 17 + 13 * step));
}

void fill(model& m, int step) {
  for (index_t i = 0; i < 3 * d; ++i)
    for (index_t j = 0; j < d; ++j) m.qkv[i * d + j] = value(static_cast<int>(i / d), i % d, j, step);
  for (int l = 0; l < layers; ++l)
    for (index_t i = 0; i < hidden; ++i)
      for (index_t j = 0; j < d; ++j) m.up[(l * hidden + i) * d + j] = value(3 + l, i, j, step);
  for (index_t i = 0; i < d; ++i)
    for (index_t j = 0; j < hidden; ++j) m.down[j * d + i] = value(9, i, j, step);
}

void fill(plain_model& m, int step) {
  float* const square[3] = {m.q, m.k, m.v};
  for (int s = 0; s < 3; ++s)
    for (index_t i = 0; i < d; ++i)
      for (index_t j = 0; j < d; ++j) square[s][i * d + j] = value(s, i, j, step);
  for (int l = 0; l < layers; ++l)
    for (index_t i = 0; i < hidden; ++i)
      for (index_t j = 0; j < d; ++j) m.up[l][i * d + j] = value(3 + l, i, j, step);
  for (index_t i = 0; i < d; ++i)
    for (index_t j = 0; j < hidden; ++j) m.down[i * hidden + j] = value(9, i, j, step);
}

model w, g;
plain_model plain_w, plain_g;

}  // namespace

int main() {
  matopt::eigen_backend cpu;
  using optimizer = matopt::optimizer<matopt::muon, matopt::eigen_backend>;

  optimizer opt(cpu);
  opt.add("qkv", row_major(w.qkv, 3 * d, d), row_major(g.qkv, 3 * d, d), {.row_blocks = {d, d, d}});
  opt.add("up", row_major(w.up, hidden, d, layers), row_major(g.up, hidden, d, layers));
  opt.add("down", row_major(w.down, hidden, d).t(), row_major(g.down, hidden, d).t());

  optimizer plain(cpu);
  plain.add("q", row_major(plain_w.q, d, d), row_major(plain_g.q, d, d));
  plain.add("k", row_major(plain_w.k, d, d), row_major(plain_g.k, d, d));
  plain.add("v", row_major(plain_w.v, d, d), row_major(plain_g.v, d, d));
  for (int l = 0; l < layers; ++l)
    plain.add("up." + std::to_string(l), row_major(plain_w.up[l], hidden, d), row_major(plain_g.up[l], hidden, d));
  plain.add("down", row_major(plain_w.down, d, hidden), row_major(plain_g.down, d, hidden));

  std::printf("%td matrices step together in %td buckets\n", opt.size(), opt.bucket_count());
  for (const auto& line : opt.memory().state)
    std::printf("  state    %8zu bytes  %s of the %s\n", line.bytes, line.what.c_str(), line.slot.c_str());
  std::printf("  scratch  %8zu bytes\n", opt.memory().scratch_bytes);

  opt.finalize(), plain.finalize();
  fill(w, 0), fill(plain_w, 0);
  for (int t = 1; t <= 5; ++t) {
    fill(g, t), fill(plain_g, t);
    opt.step(0.02), plain.step(0.02);
  }

  float worst = 0;
  const auto compare = [&](matopt::view<const float> a, matopt::view<const float> b) {
    for (index_t i = 0; i < a.rows; ++i)
      for (index_t j = 0; j < a.cols; ++j) worst = std::fmax(worst, std::fabs(a(i, j) - b(i, j)));
  };
  const auto qkv = row_major(w.qkv, 3 * d, d);
  compare(qkv.row_block(0, d), row_major(plain_w.q, d, d));
  compare(qkv.row_block(d, d), row_major(plain_w.k, d, d));
  compare(qkv.row_block(2 * d, d), row_major(plain_w.v, d, d));
  for (int l = 0; l < layers; ++l)
    compare(row_major(w.up, hidden, d, layers).matrix(l), row_major(plain_w.up[l], hidden, d));
  compare(row_major(w.down, hidden, d).t(), row_major(plain_w.down, d, hidden));

  const float moved = std::fabs(w.down[0] - value(9, 0, 0, 0));
  std::printf("after 5 steps: a weight moved by %.4f; largest difference to separate arrays %.1e\n",
              static_cast<double>(moved), static_cast<double>(worst));
  return moved > 1e-3F && worst < 1e-5F ? EXIT_SUCCESS : EXIT_FAILURE;
}
