// The layers of a small GPT that are not matrix products: normalisation, activations, attention, rotary positions and
// the cross entropy, each as a forward function and its hand-written transpose.
//
// All matrices are row-major and dense; a row is a token. Every formula is per row, so results do not depend on how
// rows are distributed over threads.
#pragma once
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "matopt/core/index.hpp"

namespace small_gpt {

using matopt::index_t;

template <class T>
using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
// Storage. Eigen aligns it for the widest vector, so vectorised sums take the same order in every run.
template <class T>
using buffer = Eigen::Array<T, Eigen::Dynamic, 1>;

template <class T>
auto as_matrix(T* data, index_t rows, index_t cols) {
  return Eigen::Map<matrix<T>>(data, rows, cols);
}
template <class T>
auto as_matrix(const T* data, index_t rows, index_t cols) {
  return Eigen::Map<const matrix<T>>(data, rows, cols);
}
template <class T>
auto as_array(T* data, index_t size) {
  return Eigen::Map<buffer<T>>(data, size);
}
template <class T>
auto as_array(const T* data, index_t size) {
  return Eigen::Map<const buffer<T>>(data, size);
}

// ---------------------------------------------------------------------------------------------------------------------------
// LayerNorm with a gain and RMSNorm without parameters.
//   forward   c = x - mean(x) (LayerNorm) or x (RMSNorm);  s = 1 / sqrt(mean(c^2) + eps);  hat = s c;  y = gain * hat
//   backward  e = gain * dy;  dx = s (e - mean(e) - hat mean(e hat)), without mean(e) for RMSNorm;  dgain = sum dy hat

enum class norm_kind { layer_norm, rms_norm };

template <class T>
inline constexpr T norm_epsilon =
    T(1e-5);  // nn.LayerNorm's default; of no effect in RMSNorm, whose rows are of order 1

template <class T>
struct norm_state {
  buffer<T> hat, scale, scaled;  // hat: what backward needs; scaled: gain * hat, empty without a gain
  void resize(index_t rows, index_t width, bool gain) {
    hat.resize(rows * width);
    scale.resize(rows);
    if (gain) scaled.resize(rows * width);
  }
  const T* output() const { return scaled.size() > 0 ? scaled.data() : hat.data(); }
};

template <class T>
void norm_forward(norm_kind kind, const T* x, const T* gain, index_t rows, index_t width, norm_state<T>& state) {
  const T inverse = T(1) / static_cast<T>(width);
  for (index_t r = 0; r < rows; ++r) {
    const auto in = as_array(x + r * width, width);
    auto hat = as_array(state.hat.data() + r * width, width);
    const T mean = kind == norm_kind::layer_norm ? in.sum() * inverse : T(0);
    hat = in - mean;
    const T scale = T(1) / std::sqrt(hat.square().sum() * inverse + norm_epsilon<T>);
    hat *= scale;
    state.scale[r] = scale;
    if (gain) as_array(state.scaled.data() + r * width, width) = hat * as_array(gain, width);
  }
}

// Adds to dx and to gain_gradient. dy is overwritten.
template <class T>
void norm_backward(norm_kind kind, const norm_state<T>& state, const T* gain, T* gain_gradient, index_t rows,
                   index_t width, T* dy, T* dx) {
  const T inverse = T(1) / static_cast<T>(width);
  for (index_t r = 0; r < rows; ++r) {
    const auto hat = as_array(state.hat.data() + r * width, width);
    auto e = as_array(dy + r * width, width);
    if (gain) {
      as_array(gain_gradient, width) += e * hat;
      e *= as_array(gain, width);
    }
    const T mean = kind == norm_kind::layer_norm ? e.sum() * inverse : T(0);
    const T along = (e * hat).sum() * inverse;
    as_array(dx + r * width, width) += state.scale[r] * (e - mean - hat * along);
  }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Activations. Forward writes h = f(u) and replaces u by the slope f'(u), so that backward is one product.

// relu(u)^2, slope 2 relu(u)
template <class T>
void squared_relu(T* u, T* h, index_t size) {
  auto in = as_array(u, size);
  in = in.max(T(0));
  as_array(h, size) = in.square();
  in *= T(2);
}

// GELU in its exact form: u F(u) with the normal distribution function F(u) = (1 + erf(u / sqrt 2)) / 2; slope F(u) + u
// f(u).
inline void gelu(double* u, double* h, index_t size) {
  for (index_t i = 0; i < size; ++i) {
    const double below = 0.5 * std::erfc(-u[i] / std::numbers::sqrt2);
    const double density = std::exp(-0.5 * u[i] * u[i]) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
    h[i] = u[i] * below;
    u[i] = below + u[i] * density;
  }
}

// In float, with a = |u| and the tail Q(a) = 1 - F(a):  Q(a) = exp(-a^2 / 2) t P(t),  t = 1 / (1 + 0.28 a),
//   h = max(u, 0) - a Q(a)
// Abramowitz and Stegun 7.1.26 has this shape; the coefficients are a minimax fit of degree 6 with
// (1 + a) |error of Q| < 1.5e-8, less than float rounding. The one exp, which the slope needs too, is Eigen's
// vectorised one; there is no branch, so the second loop vectorises as well. Blocks keep the intermediate values in the
// first-level cache.
inline void gelu(float* u, float* h, index_t size) {
  constexpr index_t block = 1024;
  constexpr float density_scale = 0.398942280F;  // 1 / sqrt(2 pi)
  for (index_t start = 0; start < size; start += block) {
    const index_t n = std::min(block, size - start);
    float* __restrict x = u + start;
    float* __restrict e = h + start;
    as_array(e, n) = (as_array(x, n).square() * -0.5F).exp();
    for (index_t i = 0; i < n; ++i) {
      const float value = x[i], gauss = e[i];
      const float t = 1.0F / (1.0F + 0.28F * std::abs(value));
      float p = -0.1065512061F;
      p = p * t + 0.3929554922F;
      p = p * t - 0.2420746135F;
      p = p * t + 0.2730727781F;
      p = p * t + 0.06580297434F;
      p = p * t + 0.1167945601F;
      const float below = 0.5F + std::copysign(0.5F - gauss * (t * p), value);
      e[i] = value * below;
      x[i] = below + value * (density_scale * gauss);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Rotary positions: the pair (x_i, x_{i + d/2}) of a head is turned by the angle position * 10000^(-2 i / d).

template <class T>
struct rotary_table {
  buffer<T> cosine, sine;  // [positions, d / 2]
  void resize(index_t positions, index_t head_width) {
    const index_t half = head_width / 2;
    cosine.resize(positions * half);
    sine.resize(positions * half);
    for (index_t p = 0; p < positions; ++p) {
      for (index_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
        cosine[p * half + i] = static_cast<T>(std::cos(angle));
        sine[p * half + i] = static_cast<T>(std::sin(angle));
      }
    }
  }
};

// x <- scale * (a cos + b sin, b cos - a sin) for x = (a, b) of one head. The transpose is the same with -sin.
template <class T>
void rotate(T* x, const T* cosine, const T* sine, index_t half, T direction, T scale) {
  T* __restrict a = x;
  T* __restrict b = x + half;
  for (index_t i = 0; i < half; ++i) {
    const T c = scale * cosine[i], s = scale * direction * sine[i];
    const T turned = a[i] * c + b[i] * s;
    b[i] = b[i] * c - a[i] * s;
    a[i] = turned;
  }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Causal self-attention over `sequences` sequences of `length` tokens.
//   S = Q K' / sqrt(d);  P = softmax of each row over the columns <= row;  Y = P V
//   dV = P' dY;  dP = dY V';  dS = P * (dP - rowsum(P dP)) / sqrt(d);  dQ = dS K;  dK = dS' Q
// qkv rows are [q | k | v], each `heads` times d wide. Rows of S are taken in blocks that end at the diagonal, which
// skips most of the masked half of a long context.

struct attention_shape {
  index_t sequences, length, heads, head_width;
  index_t width() const { return heads * head_width; }
};

inline constexpr index_t attention_block = 64;

// `cols` columns of a row are stored, the first `live` of them take part, the others become zero. Returns the largest of
// these, before the softmax and without the scale.
template <class T>
T softmax_row(T* s, index_t cols, index_t live, T scale) {
  auto row = as_array(s, cols);
  const T top = as_array(s, live).maxCoeff();
  row = ((row - top) * scale).exp();
  row.tail(cols - live).setZero();
  row *= T(1) / row.sum();
  return top;
}

// Raises the maximum so far; a number that is none stays.
template <class T>
void take_larger(T& largest, T value) {
  if (value > largest || std::isnan(value)) largest = value;
}

// `largest`, if given, has a number for each head, which is raised to the largest entry of S up to the diagonal.
template <class T>
void attention_forward(const attention_shape& a, const T* qkv, T* probability, T* y, T* largest = nullptr) {
  const index_t n = a.length, d = a.head_width, w = a.width();
  const T scale = T(1) / std::sqrt(static_cast<T>(d));
  for (index_t s = 0; s < a.sequences; ++s) {
    const auto sequence = as_matrix(qkv + s * n * 3 * w, n, 3 * w);
    auto out = as_matrix(y + s * n * w, n, w);
    for (index_t h = 0; h < a.heads; ++h) {
      const auto q = sequence.middleCols(h * d, d), k = sequence.middleCols(w + h * d, d),
                 v = sequence.middleCols(2 * w + h * d, d);
      auto p = as_matrix(probability + (s * a.heads + h) * n * n, n, n);
      for (index_t first = 0; first < n; first += attention_block) {
        const index_t rows = std::min(attention_block, n - first), cols = first + rows;
        auto tile = p.block(first, 0, rows, cols);
        tile.noalias() = q.middleRows(first, rows) * k.topRows(cols).transpose();
        for (index_t r = 0; r < rows; ++r) {
          const T top = softmax_row(tile.row(r).data(), cols, first + r + 1, scale);
          if (largest) take_larger(largest[h], scale * top);
        }
        out.block(first, h * d, rows, d).noalias() = tile * v.topRows(cols);
      }
    }
  }
}

// Overwrites dqkv. `scratch` holds length * length values.
template <class T>
void attention_backward(const attention_shape& a, const T* qkv, const T* probability, const T* dy, T* scratch,
                        T* dqkv) {
  const index_t n = a.length, d = a.head_width, w = a.width();
  const T scale = T(1) / std::sqrt(static_cast<T>(d));
  for (index_t s = 0; s < a.sequences; ++s) {
    const auto sequence = as_matrix(qkv + s * n * 3 * w, n, 3 * w);
    const auto out = as_matrix(dy + s * n * w, n, w);
    auto grad = as_matrix(dqkv + s * n * 3 * w, n, 3 * w);
    grad.setZero();
    for (index_t h = 0; h < a.heads; ++h) {
      const auto q = sequence.middleCols(h * d, d), k = sequence.middleCols(w + h * d, d),
                 v = sequence.middleCols(2 * w + h * d, d);
      auto dq = grad.middleCols(h * d, d), dk = grad.middleCols(w + h * d, d), dv = grad.middleCols(2 * w + h * d, d);
      const auto p = as_matrix(probability + (s * a.heads + h) * n * n, n, n);
      for (index_t first = 0; first < n; first += attention_block) {
        const index_t rows = std::min(attention_block, n - first), cols = first + rows;
        const auto tile = p.block(first, 0, rows, cols);
        const auto d_out = out.block(first, h * d, rows, d);
        auto ds = as_matrix(scratch, rows, cols);
        ds.noalias() = d_out * v.topRows(cols).transpose();
        for (index_t r = 0; r < rows; ++r) {
          const auto prob = as_array(tile.row(r).data(), cols);
          auto row = as_array(ds.row(r).data(), cols);
          const T mean = (row * prob).sum();
          row = prob * ((row - mean) * scale);
        }
        dv.topRows(cols).noalias() += tile.transpose() * d_out;
        dk.topRows(cols).noalias() += ds.transpose() * q.middleRows(first, rows);
        dq.middleRows(first, rows).noalias() += ds * k.topRows(cols);
      }
    }
  }
}

// RMSNorm of each head of q and k, then the rotation, in place. `scale` keeps the 2 * heads factors of each row.
// The rotation changes no length, so the norm and the rotation commute, and backward can use the stored rotated
// vectors.
template <class T>
void qk_norm_rotary_forward(const attention_shape& a, const rotary_table<T>& table, T* qkv, T* scale) {
  const index_t d = a.head_width, half = d / 2;
  for (index_t r = 0; r < a.sequences * a.length; ++r) {
    const index_t position = r % a.length;
    for (index_t h = 0; h < 2 * a.heads; ++h) {
      T* x = qkv + r * 3 * a.width() + h * d;
      const T s = T(1) / std::sqrt(as_array(x, d).square().sum() / static_cast<T>(d) + norm_epsilon<T>);
      scale[r * 2 * a.heads + h] = s;
      rotate(x, &table.cosine[position * half], &table.sine[position * half], half, T(1), s);
    }
  }
}

//   g = d loss / d (rotated, normalised x);  dx = rotate back(s (g - x mean(g x)))
template <class T>
void qk_norm_rotary_backward(const attention_shape& a, const rotary_table<T>& table, const T* qkv, const T* scale,
                             T* dqkv) {
  const index_t d = a.head_width, half = d / 2;
  for (index_t r = 0; r < a.sequences * a.length; ++r) {
    const index_t position = r % a.length;
    for (index_t h = 0; h < 2 * a.heads; ++h) {
      const auto x = as_array(qkv + r * 3 * a.width() + h * d, d);
      auto g = as_array(dqkv + r * 3 * a.width() + h * d, d);
      const T along = (g * x).sum() / static_cast<T>(d);
      g -= x * along;
      rotate(g.data(), &table.cosine[position * half], &table.sine[position * half], half, T(-1),
             scale[r * 2 * a.heads + h]);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Cross entropy in nats: sum over the rows of log(sum_j exp z_j) - z_target. With `weight` > 0 the logits are replaced
// by their gradient, weight * (softmax(z) - onehot(target)).
template <class T>
double cross_entropy(T* logits, const std::int32_t* targets, index_t rows, index_t vocabulary, T weight) {
  double loss = 0;
  for (index_t r = 0; r < rows; ++r) {
    auto z = as_array(logits + r * vocabulary, vocabulary);
    const T top = z.maxCoeff();
    const T target = z[targets[r]] - top;
    z = (z - top).exp();
    const T sum = z.sum();
    loss += std::log(static_cast<double>(sum)) - static_cast<double>(target);
    if (weight > T(0)) {
      z *= weight / sum;
      z[targets[r]] -= weight;
    }
  }
  return loss;
}

}  // namespace small_gpt
