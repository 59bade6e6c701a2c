// gpt<T> of model.hpp on the GPU: the same tensors in the same order, and the same forward and backward pass, which can
// be read beside it line by line. T is what products are made in and activations are kept in: float, for comparison
// with the CPU, or bfloat16. Weights and gradients are float in both cases; with bfloat16 the products read a copy of
// the weights, which refresh_weights() makes.
//
// Nothing here allocates or waits once the model is made, so all of it can be recorded in a CUDA graph.
#pragma once
#include <matopt/cuda/product.cuh>
#include <memory>
#include <span>
#include <vector>

#include "../gpt_config.hpp"
#include "../gpt_layout.hpp"
#include "activation.cuh"
#include "attention.cuh"
#include "cross_entropy.cuh"
#include "device_memory.cuh"
#include "embedding.cuh"
#include "norm.cuh"
#include "rotary.cuh"

namespace small_gpt::gpu {

// A part of a batch, in device memory: `sequences` times `context` tokens, their targets, and the rows sorted by token.
struct batch_part {
  const std::int32_t *tokens, *targets, *order;
  index_t sequences;
};

template <class T>
class gpu_gpt {
 public:
  // At most `most_sequences` sequences go through the model at once.
  gpu_gpt(const gpt_config& config, index_t most_sequences, cudaStream_t stream)
      : config_(config),
        layout_(config),
        most_sequences_(most_sequences),
        stream_(stream),
        products_(stream),
        weights_(layout_.size(), stream),
        gradient_(layout_.size(), stream) {
    check_head_width<T>(config.head_width());
    if constexpr (!std::is_same_v<T, float>) copy_ = device_array<T>(layout_.size(), stream);
    allocate();
  }

  // What each of the sequences that go through the model at once takes, without logits, in bytes.
  static double bytes_per_sequence(const gpt_config& c) {
    const double w = c.width, norm = c.arch == architecture::modern ? 1 : 2;
    const double of_layer = (12 + 2 * norm) * w * sizeof(T) + 3 * 4.0 * c.heads;
    return c.context * (c.layers * of_layer + (10 + 2 * norm) * w * sizeof(T));
  }

  const gpt_config& config() const { return config_; }
  const gpt_layout& layout() const { return layout_; }
  index_t most_sequences() const { return most_sequences_; }
  // On the device, in the order of the layout. After writing the weights call refresh_weights().
  const device_array<float>& weights() const { return weights_; }
  const device_array<float>& gradients() const { return gradient_; }

  // Device pointers; they stay valid as long as the model.
  std::vector<parameter<float>> parameters() const {
    std::vector<parameter<float>> list;
    for (const gpt_layout::tensor& t : layout_.tensors)
      list.push_back(
          {t.name, weights_.data() + t.offset, gradient_.data() + t.offset, t.rows, t.cols, t.kind, t.row_blocks});
    return list;
  }

  void refresh_weights() {
    if constexpr (!std::is_same_v<T, float>) convert(stream_, weights_.data(), copy_.data(), layout_.size());
  }

  // From now on loss_and_gradient() measures the largest logit of attention of each head, as the CPU's model does. The
  // numbers, [layers, heads], grow from part to part of a batch, and begin anew with begin_attention_logits().
  void measure_attention_logits() {
    attention_logits_ = device_array<float>(index_t{config_.layers} * config_.heads, stream_);
    begin_attention_logits();
  }
  void begin_attention_logits() {
    if (attention_logits_.size() > 0) nothing_yet(stream_, attention_logits_.data(), attention_logits_.size());
  }
  const device_array<float>& largest_attention_logits() const { return attention_logits_; }

  // losses[r] = the cross entropy of row r.
  void loss(const batch_part& part, float* losses) {
    forward(part, nullptr);
    head(part, losses, 0, false);
  }
  // The same, and adds `weight` times the gradient of the sum of the losses to the gradients; `first` says that they
  // hold nothing yet.
  void loss_and_gradient(const batch_part& part, float weight, bool first, float* losses) {
    forward(part, attention_logits_.data());
    head(part, losses, weight, first);
    backward(part, first);
  }

 private:
  using layer_tensors = gpt_layout::layer_tensors;

  struct norm_state {
    device_array<T> hat, scaled;  // scaled: gain * hat, empty without a gain
    device_array<float> scale;
    const T* output() const { return scaled.size() > 0 ? scaled.data() : hat.data(); }
  };
  // What forward keeps of one layer for backward.
  struct layer_state {
    norm_state attention_norm, mlp_norm;
    device_array<T> qkv, attended, mlp_in, mlp_hidden;
    device_array<float> qk_scale, log_sum;
  };

  // Logits that exist at the same time.
  static constexpr index_t most_logits = index_t{1} << 29;

  bool modern() const { return config_.arch == architecture::modern; }
  norm_kind norm() const { return modern() ? norm_kind::rms_norm : norm_kind::layer_norm; }
  activation mlp_activation() const { return modern() ? activation::squared_relu : activation::gelu; }
  index_t width() const { return config_.width; }
  index_t context() const { return config_.context; }
  index_t vocabulary() const { return config_.vocabulary; }
  index_t logits_stride() const { return (vocabulary() + 63) / 64 * 64; }
  // Equal parts of the rows, as few as most_logits allows.
  index_t logits_rows() const {
    const index_t rows = most_sequences_ * context(), most = std::max<index_t>(128, most_logits / logits_stride());
    const index_t parts = (rows + most - 1) / most;
    return ((rows + parts - 1) / parts + 127) / 128 * 128;
  }
  attention_shape shape(index_t sequences) const { return {sequences, context(), config_.heads, config_.head_width()}; }

  // ------------------------------------------------------------------------------------------------------- weights

  const T* weight(std::size_t i) const {
    if constexpr (std::is_same_v<T, float>)
      return weights_.data() + layout_.tensors[i].offset;
    else
      return copy_.data() + layout_.tensors[i].offset;
  }
  const T* gain(std::size_t i) const { return i == gpt_layout::none ? nullptr : weight(i); }
  float* gradient_of(std::size_t i) const { return gradient_.data() + layout_.tensors[i].offset; }

  // ------------------------------------------------------------------------------------------------------- memory

  void allocate() {
    const index_t w = width(), rows = most_sequences_ * context();
    const auto make = [&]<class U>(device_array<U>& a, index_t size) { a = device_array<U>(size, stream_); };
    const auto make_norm = [&](norm_state& n) {
      make(n.hat, rows * w), make(n.scale, rows);
      if (!modern()) make(n.scaled, rows * w);
    };
    layers_.resize(static_cast<std::size_t>(config_.layers));
    for (layer_state& l : layers_) {
      make_norm(l.attention_norm), make_norm(l.mlp_norm);
      make(l.qkv, rows * 3 * w), make(l.attended, rows * w);
      make(l.mlp_in, rows * 4 * w), make(l.mlp_hidden, rows * 4 * w);
      if (modern()) make(l.qk_scale, rows * 2 * config_.heads);
      make(l.log_sum, rows * config_.heads);
    }
    if (modern()) make_norm(embedding_norm_);
    make_norm(final_norm_);
    for (device_array<T>* a : {&x_, &dx_, &d_narrow_}) make(*a, rows * w);
    make(logits_, logits_rows() * logits_stride());
    make(d_qkv_, rows * 3 * w), make(d_hidden_, rows * 4 * w);
    make(delta_, rows * config_.heads);
    if (!modern()) make(partial_, gain_gradient_most_parts * w);
    if (modern()) {
      const std::vector<float> table = rotary_table(context(), config_.head_width());
      make(rotary_, static_cast<index_t>(table.size()));
      matopt::cuda::check(cudaMemcpyAsync(rotary_.data(), table.data(), rotary_.bytes(), cudaMemcpyDefault, stream_),
                          "upload");
    }
  }

  // ------------------------------------------------------------------------------------------------------- products
  // Of row-major matrices with `rows` rows, one per token; a layer is Y = X W', its gradients are dW = dY' X, dX = dY
  // W. To cuBLAS a row-major matrix is the transpose of one that it knows.

  static matopt::view<const T> rows_of(const T* data, index_t rows, index_t cols, index_t stride) {
    return {data, rows, cols, stride, 1};
  }
  // y (+)= x w'
  void multiply(const T* x, index_t rows, std::size_t w, bool add, T* y, index_t y_stride) {
    const gpt_layout::tensor& t = layout_.tensors[w];
    const matopt::view<T> to{y, t.rows, rows, 1, y_stride};
    products_.run<T>(stream_, 1.0F, rows_of(weight(w), t.rows, t.cols, t.cols), rows_of(x, rows, t.cols, t.cols).t(),
                     add ? 1.0F : 0.0F, to, to);
  }
  void multiply(const T* x, index_t rows, std::size_t w, bool add, T* y) {
    multiply(x, rows, w, add, y, layout_.tensors[w].rows);
  }
  // dw (+)= dy' x
  void weight_gradient(const T* dy, index_t dy_stride, const T* x, index_t rows, std::size_t w, bool add) {
    const gpt_layout::tensor& t = layout_.tensors[w];
    const matopt::view<float> to{gradient_of(w), t.cols, t.rows, 1, t.cols};
    products_.run<float, T>(stream_, 1.0F, rows_of(x, rows, t.cols, t.cols).t(), rows_of(dy, rows, t.rows, dy_stride),
                            add ? 1.0F : 0.0F, to, to);
  }
  // dx = dy w
  void input_gradient(const T* dy, index_t dy_stride, index_t rows, std::size_t w, T* dx) {
    const gpt_layout::tensor& t = layout_.tensors[w];
    const matopt::view<T> to{dx, t.cols, rows, 1, t.cols};
    products_.run<T>(stream_, 1.0F, rows_of(weight(w), t.rows, t.cols, t.cols).t(),
                     rows_of(dy, rows, t.rows, dy_stride).t(), 0.0F, to, to);
  }

  // ------------------------------------------------------------------------------------------------------- the model

  void apply_norm(const T* x, std::size_t gain_tensor, index_t rows, norm_state& to) {
    norm_forward(stream_, norm(), x, nullptr, gain(gain_tensor), rows, width(), to.hat.data(), to.scale.data(),
                 to.scaled.data());
  }
  // dx (+)= the gradient of the norm's input, from d_narrow_, that of its output
  void apply_norm_backward(const norm_state& of, std::size_t gain_tensor, index_t rows, bool first, bool add) {
    if (gain_tensor != gpt_layout::none)
      gain_gradient(stream_, of.hat.data(), d_narrow_.data(), rows, width(), partial_.data(), !first,
                    gradient_of(gain_tensor));
    norm_backward(stream_, norm(), of.hat.data(), of.scale.data(), gain(gain_tensor), d_narrow_.data(), rows, width(),
                  add, dx_.data());
  }

  // `largest`: of attention's logits in each layer; null: not measured.
  void forward(const batch_part& part, float* largest) {
    const index_t w = width(), rows = part.sequences * context();
    T* x = x_.data();
    if (modern())
      norm_forward(stream_, norm(), weight(layout_.embedding), part.tokens, static_cast<const T*>(nullptr), rows, w,
                   embedding_norm_.hat.data(), embedding_norm_.scale.data(), x);
    else
      embed(stream_, part.tokens, weight(layout_.embedding), weight(layout_.positions), rows, context(), w, x);

    for (std::size_t i = 0; i < layout_.layers.size(); ++i) {
      const layer_tensors& id = layout_.layers[i];
      layer_state& l = layers_[i];

      apply_norm(x, id.attention_gain, rows, l.attention_norm);
      multiply(l.attention_norm.output(), rows, id.qkv, false, l.qkv.data());
      if (modern())
        qk_norm_rotary_forward(stream_, rows, context(), config_.heads, config_.head_width(), rotary_.data(), context(),
                               l.qkv.data(), l.qk_scale.data());
      attention_forward(stream_, shape(part.sequences), l.qkv.data(), l.attended.data(), l.log_sum.data(), largest);
      if (largest) largest += config_.heads;
      multiply(l.attended.data(), rows, id.attention_out, true, x);

      apply_norm(x, id.mlp_gain, rows, l.mlp_norm);
      multiply(l.mlp_norm.output(), rows, id.mlp_in, false, l.mlp_in.data());
      activation_forward(stream_, mlp_activation(), l.mlp_in.data(), l.mlp_hidden.data(), rows * 4 * w);
      multiply(l.mlp_hidden.data(), rows, id.mlp_out, true, x);
    }
    apply_norm(x, layout_.final_gain, rows, final_norm_);
  }

  // The losses; and, with weight > 0, the gradients of the head and, in d_narrow_, of its input. The logits are made
  // for some rows after the other, and their gradient takes their place.
  void head(const batch_part& part, float* losses, float weight_of_row, bool first) {
    const index_t rows = part.sequences * context(), stride = logits_stride();
    for (index_t begin = 0; begin < rows; begin += logits_rows()) {
      const index_t count = std::min(logits_rows(), rows - begin);
      const T* input = final_norm_.output() + begin * width();
      multiply(input, count, layout_.head, false, logits_.data(), stride);
      cross_entropy(stream_, logits_.data(), stride, part.targets + begin, count, vocabulary(), weight_of_row,
                    losses + begin);
      if (!(weight_of_row > 0)) continue;
      weight_gradient(logits_.data(), stride, input, count, layout_.head, !first || begin > 0);
      input_gradient(logits_.data(), stride, count, layout_.head, d_narrow_.data() + begin * width());
    }
  }

  // Begins with the gradient of the final norm's output in d_narrow_.
  void backward(const batch_part& part, bool first) {
    const index_t w = width(), rows = part.sequences * context();
    T *dx = dx_.data(), *dy = d_narrow_.data(), *dh = d_hidden_.data(), *dqkv = d_qkv_.data();
    apply_norm_backward(final_norm_, layout_.final_gain, rows, first, false);

    for (std::size_t i = layout_.layers.size(); i-- > 0;) {
      const layer_tensors& id = layout_.layers[i];
      const layer_state& l = layers_[i];

      weight_gradient(dx, w, l.mlp_hidden.data(), rows, id.mlp_out, !first);
      input_gradient(dx, w, rows, id.mlp_out, dh);
      activation_backward(stream_, mlp_activation(), l.mlp_in.data(), dh, rows * 4 * w);
      weight_gradient(dh, 4 * w, l.mlp_norm.output(), rows, id.mlp_in, !first);
      input_gradient(dh, 4 * w, rows, id.mlp_in, dy);
      apply_norm_backward(l.mlp_norm, id.mlp_gain, rows, first, true);

      weight_gradient(dx, w, l.attended.data(), rows, id.attention_out, !first);
      input_gradient(dx, w, rows, id.attention_out, dy);
      attention_backward(stream_, shape(part.sequences), l.qkv.data(), l.attended.data(), dy, l.log_sum.data(),
                         delta_.data(), dqkv);
      if (modern())
        qk_norm_rotary_backward(stream_, rows, context(), config_.heads, config_.head_width(), rotary_.data(),
                                context(), l.qkv.data(), l.qk_scale.data(), dqkv);
      weight_gradient(dqkv, 3 * w, l.attention_norm.output(), rows, id.qkv, !first);
      input_gradient(dqkv, 3 * w, rows, id.qkv, dy);
      apply_norm_backward(l.attention_norm, id.attention_gain, rows, first, true);
    }

    float* embedding = gradient_of(layout_.embedding);
    if (modern()) {
      if (first) clear(layout_.embedding);
      norm_backward(stream_, norm(), embedding_norm_.hat.data(), embedding_norm_.scale.data(),
                    static_cast<const T*>(nullptr), dx, rows, w, false, dy);
      embedding_gradient(stream_, part.tokens, part.order, dy, rows, w, embedding);
    } else {  // the head, which is the embedding, has begun its gradient
      positions_gradient(stream_, dx, part.sequences, context() * w, !first, gradient_of(layout_.positions));
      embedding_gradient(stream_, part.tokens, part.order, dx, rows, w, embedding);
    }
  }

  void clear(std::size_t i) {
    const gpt_layout::tensor& t = layout_.tensors[i];
    matopt::cuda::check(
        cudaMemsetAsync(gradient_of(i), 0, static_cast<std::size_t>(t.rows * t.cols) * sizeof(float), stream_),
        "clear");
  }

  gpt_config config_;
  gpt_layout layout_;
  index_t most_sequences_;
  cudaStream_t stream_;
  matopt::cuda::products products_;
  device_array<float> weights_, gradient_;
  device_array<T> copy_;  // of the weights, for products
  std::vector<layer_state> layers_;
  norm_state embedding_norm_, final_norm_;
  device_array<T> x_, logits_;                        // residual stream; logits, then their gradient
  device_array<T> dx_, d_narrow_, d_qkv_, d_hidden_;  // gradients of the same shapes
  device_array<float> rotary_, delta_, partial_, attention_logits_;
};

}  // namespace small_gpt::gpu
