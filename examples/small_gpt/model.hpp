// A decoder-only GPT with a hand-written backward pass, small enough to read in one sitting.
//
//   x = embed(token) [+ position]               nanogpt: learned positions    modern: norm after it; rotary q and k
//   for each layer:  x += attention(norm(x)) Wp'                              modern: q and k normalised per head
//                    x += f(norm(x) Wf') Wo'    nanogpt: f = GELU             modern: f = relu^2
//   loss = mean cross entropy of (norm(x) Wh')  nanogpt: Wh = embedding       modern: own Wh
//
// `nanogpt` is the GPT-2 variant of karpathy/nanoGPT without biases and dropout; `modern` follows
// KellerJordan/modded-nanogpt up to its untied, zero-initialised head. Linear weights are row-major [fan_out, fan_in],
// so a layer is Y = X W'.
//
// Threads: the batch is cut into `shards` contiguous groups of sequences. Each has its own activations and its own
// gradient; gradients are added in shard order. Results depend on the number of shards, never on the number of threads.
// Within a shard, sequences go through the whole model in chunks of at most `chunk_tokens` tokens, which bounds the
// memory of a large batch and keeps activations in the cache between forward and backward.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gpt_config.hpp"
#include "gpt_layout.hpp"
#include "layers.hpp"
#include "matopt/eigen/thread_pool.hpp"

namespace small_gpt {

template <class T>
class gpt {
 public:
  // Receives the inputs X [tokens, fan_in] of hidden layer `parameters()[index]`, Y = X W', of the tokens from number
  // `first` on.
  using input_observer =
      std::function<void(std::size_t index, const T* x, index_t first, index_t tokens, index_t fan_in)>;

  // `shards` = 0 takes one per thread of `pool`. Give the number to make results independent of the machine.
  gpt(const gpt_config& config, const matopt::thread_pool& pool, std::uint64_t seed = 0, int shards = 0)
      : config_(config), shard_count_(shards > 0 ? shards : pool.size()), layout_(config) {
    if (shards < 0) throw matopt::bad_value("shards", std::to_string(shards), "0 (one per thread) or more");
    weights_ = buffer<T>::Zero(layout_.size());
    gradient_ = buffer<T>::Zero(layout_.size());
    layout_.initialise(weights(), config.arch, seed);
    if (modern()) rotary_.resize(context(), config.head_width());
  }
  gpt(const gpt&) = delete;
  gpt& operator=(const gpt&) = delete;

  const gpt_config& config() const { return config_; }
  int shards() const { return shard_count_; }
  // All weights and all gradients, in the order of parameters(): a checkpoint is one write.
  std::span<T> weights() { return {weights_.data(), static_cast<std::size_t>(weights_.size())}; }
  std::span<T> gradients() { return {gradient_.data(), static_cast<std::size_t>(gradient_.size())}; }

  // The pointers stay valid as long as the model.
  std::vector<parameter<T>> parameters() {
    std::vector<parameter<T>> list;
    for (const gpt_layout::tensor& t : layout_.tensors)
      list.push_back(
          {t.name, weights_.data() + t.offset, gradient_.data() + t.offset, t.rows, t.cols, t.kind, t.row_blocks});
    return list;
  }

  double flops_per_token() const { return layout_.flops_per_token(config_); }

  // Mean cross entropy in nats of `batch` sequences of `context` tokens each.
  double loss(matopt::thread_pool& pool, std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
              index_t batch) {
    return run(pool, tokens, targets, batch, false);
  }

  // The same, and overwrites the gradients with those of the mean loss.
  double loss_and_gradient(matopt::thread_pool& pool, std::span<const std::int32_t> tokens,
                           std::span<const std::int32_t> targets, index_t batch) {
    return run(pool, tokens, targets, batch, true);
  }

  // From now on loss_and_gradient() measures the largest logit of attention of each head, after the factor
  // 1 / sqrt(head width): over the whole batch and all pairs of a token and one that it sees. The numbers of layer after
  // layer, [layers, heads], are those of the last call, and stay where they are as long as the model.
  void measure_attention_logits() {
    attention_logits_.assign(static_cast<std::size_t>(config_.layers * config_.heads), T(0));
  }
  std::span<const T> largest_attention_logits() const { return attention_logits_; }

  // Logits of the token that follows `tokens` (1 to context of them); `out` holds `vocabulary` values.
  void logits(matopt::thread_pool&, std::span<const std::int32_t> tokens, std::span<T> out) {
    const auto rows = final_rows(tokens, out, 1);
    as_matrix(out.data(), vocabulary(), 1).noalias() = weight(layout_.head) * rows.bottomRows(1).transpose();
  }

  // Row i of `out`, [tokens, vocabulary], are the logits of the token that follows the first i + 1 of `tokens` (1 to
  // context of them).
  void all_logits(std::span<const std::int32_t> tokens, std::span<T> out) {
    const auto rows = final_rows(tokens, out, static_cast<index_t>(tokens.size()));
    as_matrix(out.data(), rows.rows(), vocabulary()).noalias() = rows * weight(layout_.head).transpose();
  }

  // Runs `batch` sequences forward and shows `observe` the inputs of every hidden layer, chunk by chunk, on the
  // pool's threads; two calls at once are never about the same tokens.
  void observe_inputs(matopt::thread_pool& pool, std::span<const std::int32_t> tokens, index_t batch,
                      const input_observer& observe) {
    check_size("tokens", tokens, batch);
    check_tokens("tokens", tokens);
    const index_t each = chunk_sequences(), chunks = (batch + each - 1) / each;
    std::vector<workspace>& spaces = reserve(static_cast<std::size_t>(pool.size()));
    pool.parallel_for(chunks, [&](index_t c, int worker) {
      const index_t first = c * each, row = first * context();
      forward(
          spaces[static_cast<std::size_t>(worker)], tokens.data() + row, std::min(each, batch - first), context(),
          [&](std::size_t index, const T* x, index_t, index_t rows, index_t n) { observe(index, x, row, rows, n); });
    });
  }

 private:
  using layer_tensors = gpt_layout::layer_tensors;
  static constexpr std::size_t none = gpt_layout::none;

  // What forward keeps of one layer for backward.
  struct layer_state {
    norm_state<T> attention_norm, mlp_norm;
    buffer<T> qkv, qk_scale, probability, attended, mlp_slope, mlp_hidden;
  };
  struct workspace {
    std::vector<layer_state> layers;
    norm_state<T> embedding_norm, final_norm;
    buffer<T> x, logits;                                     // residual stream; logits, then their gradient
    buffer<T> dx, d_narrow, d_qkv, d_hidden, d_probability;  // gradients of the same shapes
    buffer<T> gradient;                                      // of the weights; shard 0 writes to the model's own
    std::vector<T> attention_logits;                         // the largest ones, [layers, heads]; empty: not measured
    double loss = 0;
  };

  static constexpr index_t chunk_tokens = 384;

  bool modern() const { return config_.arch == architecture::modern; }
  norm_kind norm() const { return modern() ? norm_kind::rms_norm : norm_kind::layer_norm; }
  index_t width() const { return config_.width; }
  index_t context() const { return config_.context; }
  index_t vocabulary() const { return config_.vocabulary; }
  index_t chunk_sequences() const { return std::max(index_t{1}, chunk_tokens / context()); }

  // ------------------------------------------------------------------------------------------------------- weights

  template <class U>
  auto tensor(U* all, std::size_t i) const {
    return as_matrix(all + layout_.tensors[i].offset, layout_.tensors[i].rows, layout_.tensors[i].cols);
  }
  auto weight(std::size_t i) const { return tensor(static_cast<const T*>(weights_.data()), i); }
  auto gradient_of(T* gradient, std::size_t i) const { return tensor(gradient, i); }
  const T* gain(std::size_t i) const { return i == none ? nullptr : weight(i).data(); }
  T* gain_gradient(T* gradient, std::size_t i) const { return i == none ? nullptr : gradient_of(gradient, i).data(); }

  // ------------------------------------------------------------------------------------------------------- memory

  // Workspaces for `count` shards, allocated when first needed.
  std::vector<workspace>& reserve(std::size_t count) {
    while (workspaces_.size() < count) {
      const index_t w = width(), rows = chunk_sequences() * context();
      workspace& ws = workspaces_.emplace_back();
      ws.layers.resize(static_cast<std::size_t>(config_.layers));
      for (layer_state& l : ws.layers) {
        l.attention_norm.resize(rows, w, !modern());
        l.mlp_norm.resize(rows, w, !modern());
        l.qkv.resize(rows * 3 * w);
        if (modern()) l.qk_scale.resize(rows * 2 * config_.heads);
        l.probability.resize(rows * config_.heads * context());
        l.attended.resize(rows * w);
        l.mlp_slope.resize(rows * 4 * w);
        l.mlp_hidden.resize(rows * 4 * w);
      }
      if (modern()) ws.embedding_norm.resize(rows, w, false);
      ws.final_norm.resize(rows, w, !modern());
      for (buffer<T>* b : {&ws.x, &ws.dx, &ws.d_narrow}) b->resize(rows * w);
      ws.logits.resize(rows * vocabulary());
      ws.d_qkv.resize(rows * 3 * w);
      ws.d_hidden.resize(rows * 4 * w);
      ws.d_probability.resize(std::min(attention_block, context()) * context());
    }
    return workspaces_;
  }

  // ------------------------------------------------------------------------------------------------------- batches

  void check_size(const char* name, std::span<const std::int32_t> ids, index_t batch) const {
    if (batch < 1) throw matopt::bad_value("batch", std::to_string(batch), "at least 1");
    if (static_cast<index_t>(ids.size()) != batch * context())
      throw matopt::bad_value(std::string("size of ") + name, std::to_string(ids.size()),
                              "batch * context (" + std::to_string(batch * context()) + ")");
  }
  void check_tokens(const char* name, std::span<const std::int32_t> ids) const {
    for (const std::int32_t id : ids)
      if (id < 0 || id >= config_.vocabulary)
        throw matopt::bad_value(std::string("an entry of ") + name, std::to_string(id),
                                "0 to vocabulary - 1 (" + std::to_string(config_.vocabulary - 1) + ")");
  }

  // What the head sees of one sequence, [tokens, width], after checks of the arguments; `out` has to hold `out_rows` rows
  // of logits.
  Eigen::Map<const matrix<T>> final_rows(std::span<const std::int32_t> tokens, std::span<T> out, index_t out_rows) {
    const auto length = static_cast<index_t>(tokens.size());
    if (length < 1 || length > context())
      throw matopt::bad_value("number of tokens", std::to_string(length),
                              "1 to context (" + std::to_string(context()) + ")");
    if (static_cast<index_t>(out.size()) != out_rows * vocabulary())
      throw matopt::bad_value("size of out", std::to_string(out.size()),
                              (out_rows == 1 ? "" : "tokens * ") + std::string("vocabulary (") +
                                  std::to_string(out_rows * vocabulary()) + ")");
    check_tokens("tokens", tokens);
    workspace& ws = reserve(1).front();
    forward(ws, tokens.data(), 1, length, {});
    return as_matrix(std::as_const(ws.final_norm).output(), length, width());
  }

  // Calls f(first, sequences) for pieces of [begin, end) of nearly equal size.
  template <class F>
  void for_chunks(index_t begin, index_t end, F f) const {
    const index_t chunks = (end - begin + chunk_sequences() - 1) / chunk_sequences();
    for (index_t c = 0; c < chunks; ++c) {
      const index_t first = begin + (end - begin) * c / chunks;
      f(first, begin + (end - begin) * (c + 1) / chunks - first);
    }
  }

  double run(matopt::thread_pool& pool, std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
             index_t batch, bool with_gradient) {
    check_size("tokens", tokens, batch);
    check_size("targets", targets, batch);
    check_tokens("tokens", tokens);
    check_tokens("targets", targets);
    const index_t shards = std::min(index_t{shard_count_}, batch), total = batch * context();
    const index_t size = gradient_.size();
    std::vector<workspace>& spaces = reserve(static_cast<std::size_t>(shards));

    pool.parallel_for(shards, [&](index_t s) {
      workspace& ws = spaces[static_cast<std::size_t>(s)];
      buffer<T>& gradient = s == 0 ? gradient_ : ws.gradient;
      if (with_gradient && s > 0) gradient.resize(size);  // the first time only
      ws.loss = 0;
      ws.attention_logits.assign(with_gradient ? attention_logits_.size() : 0, -std::numeric_limits<T>::infinity());
      if (with_gradient) gradient.setZero();
      for_chunks(batch * s / shards, batch * (s + 1) / shards, [&](index_t first, index_t sequences) {
        const std::int32_t* ids = tokens.data() + first * context();
        forward(ws, ids, sequences, context(), {});
        const index_t rows = sequences * context();
        auto z = as_matrix(ws.logits.data(), rows, vocabulary());
        z.noalias() = as_matrix(ws.final_norm.output(), rows, width()) * weight(layout_.head).transpose();
        ws.loss += cross_entropy(z.data(), targets.data() + first * context(), rows, vocabulary(),
                                 with_gradient ? T(1) / static_cast<T>(total) : T(0));
        if (with_gradient) backward(ws, gradient.data(), ids, sequences);
      });
    });

    if (with_gradient && shards > 1) {
      const index_t slices = (size + 16383) / 16384;
      pool.parallel_for(slices, [&](index_t i) {
        const index_t first = size * i / slices, n = size * (i + 1) / slices - first;
        for (index_t s = 1; s < shards; ++s)
          gradient_.segment(first, n) += spaces[static_cast<std::size_t>(s)].gradient.segment(first, n);
      });
    }
    if (with_gradient)
      for (std::size_t i = 0; i < attention_logits_.size(); ++i) {
        attention_logits_[i] = spaces.front().attention_logits[i];
        for (index_t s = 1; s < shards; ++s)
          take_larger(attention_logits_[i], spaces[static_cast<std::size_t>(s)].attention_logits[i]);
      }
    double sum = 0;
    for (index_t s = 0; s < shards; ++s) sum += spaces[static_cast<std::size_t>(s)].loss;
    return sum / static_cast<double>(total);
  }

  // ------------------------------------------------------------------------------------------------------- the model

  void forward(workspace& ws, const std::int32_t* tokens, index_t sequences, index_t length,
               const input_observer& observe) const {
    const index_t w = width(), rows = sequences * length;
    const attention_shape shape{sequences, length, config_.heads, config_.head_width()};
    const auto heads = static_cast<std::size_t>(config_.heads);
    auto x = as_matrix(ws.x.data(), rows, w);

    for (index_t r = 0; r < rows; ++r) x.row(r) = weight(layout_.embedding).row(tokens[r]);
    if (modern()) {
      norm_forward<T>(norm(), x.data(), nullptr, rows, w, ws.embedding_norm);
      x = as_matrix(ws.embedding_norm.output(), rows, w);
    } else {
      for (index_t s = 0; s < sequences; ++s)
        x.middleRows(s * length, length) += weight(layout_.positions).topRows(length);
    }

    for (std::size_t i = 0; i < layout_.layers.size(); ++i) {
      const layer_tensors& id = layout_.layers[i];
      layer_state& l = ws.layers[i];
      const auto shown = [&](std::size_t index, const T* data, index_t cols) {
        if (observe) observe(index, data, 0, rows, cols);
        return as_matrix(data, rows, cols);
      };

      norm_forward(norm(), x.data(), gain(id.attention_gain), rows, w, l.attention_norm);
      as_matrix(l.qkv.data(), rows, 3 * w).noalias() =
          shown(id.qkv, l.attention_norm.output(), w) * weight(id.qkv).transpose();
      if (modern()) qk_norm_rotary_forward(shape, rotary_, l.qkv.data(), l.qk_scale.data());
      T* largest = ws.attention_logits.empty() ? nullptr : ws.attention_logits.data() + i * heads;
      attention_forward(shape, l.qkv.data(), l.probability.data(), l.attended.data(), largest);
      x.noalias() += shown(id.attention_out, l.attended.data(), w) * weight(id.attention_out).transpose();

      norm_forward(norm(), x.data(), gain(id.mlp_gain), rows, w, l.mlp_norm);
      as_matrix(l.mlp_slope.data(), rows, 4 * w).noalias() =
          shown(id.mlp_in, l.mlp_norm.output(), w) * weight(id.mlp_in).transpose();
      if (modern())
        squared_relu(l.mlp_slope.data(), l.mlp_hidden.data(), rows * 4 * w);
      else
        gelu(l.mlp_slope.data(), l.mlp_hidden.data(), rows * 4 * w);
      x.noalias() += shown(id.mlp_out, l.mlp_hidden.data(), 4 * w) * weight(id.mlp_out).transpose();
    }
    norm_forward(norm(), x.data(), gain(layout_.final_gain), rows, w, ws.final_norm);
  }

  // Adds the gradient of one chunk to `g`. ws.logits holds the gradient of the logits; for Y = X W': dW += dY' X, dX =
  // dY W.
  void backward(workspace& ws, T* g, const std::int32_t* tokens, index_t sequences) const {
    const index_t w = width(), rows = sequences * context();
    const attention_shape shape{sequences, context(), config_.heads, config_.head_width()};
    const auto wide = [&](const T* data, index_t cols) { return as_matrix(data, rows, cols); };
    auto dx = as_matrix(ws.dx.data(), rows, w);
    auto dy = as_matrix(ws.d_narrow.data(), rows, w);  // gradient of a norm's output

    const auto dz = as_matrix(ws.logits.data(), rows, vocabulary());
    gradient_of(g, layout_.head).noalias() += dz.transpose() * wide(ws.final_norm.output(), w);
    dy.noalias() = dz * weight(layout_.head);
    dx.setZero();
    norm_backward(norm(), ws.final_norm, gain(layout_.final_gain), gain_gradient(g, layout_.final_gain), rows, w,
                  dy.data(), dx.data());

    for (std::size_t i = layout_.layers.size(); i-- > 0;) {
      const layer_tensors& id = layout_.layers[i];
      const layer_state& l = ws.layers[i];

      auto dh = as_matrix(ws.d_hidden.data(), rows, 4 * w);
      gradient_of(g, id.mlp_out).noalias() += dx.transpose() * wide(l.mlp_hidden.data(), 4 * w);
      dh.noalias() = dx * weight(id.mlp_out);
      dh.array() *= wide(l.mlp_slope.data(), 4 * w).array();
      gradient_of(g, id.mlp_in).noalias() += dh.transpose() * wide(l.mlp_norm.output(), w);
      dy.noalias() = dh * weight(id.mlp_in);
      norm_backward(norm(), l.mlp_norm, gain(id.mlp_gain), gain_gradient(g, id.mlp_gain), rows, w, dy.data(),
                    dx.data());

      auto dqkv = as_matrix(ws.d_qkv.data(), rows, 3 * w);
      gradient_of(g, id.attention_out).noalias() += dx.transpose() * wide(l.attended.data(), w);
      dy.noalias() = dx * weight(id.attention_out);
      attention_backward(shape, l.qkv.data(), l.probability.data(), dy.data(), ws.d_probability.data(), dqkv.data());
      if (modern()) qk_norm_rotary_backward(shape, rotary_, l.qkv.data(), l.qk_scale.data(), dqkv.data());
      gradient_of(g, id.qkv).noalias() += dqkv.transpose() * wide(l.attention_norm.output(), w);
      dy.noalias() = dqkv * weight(id.qkv);
      norm_backward(norm(), l.attention_norm, gain(id.attention_gain), gain_gradient(g, id.attention_gain), rows, w,
                    dy.data(), dx.data());
    }

    auto embedding = gradient_of(g, layout_.embedding);
    if (modern()) {
      dy.setZero();
      norm_backward<T>(norm(), ws.embedding_norm, nullptr, nullptr, rows, w, dx.data(), dy.data());
      for (index_t r = 0; r < rows; ++r) embedding.row(tokens[r]) += dy.row(r);
    } else {
      auto positions = gradient_of(g, layout_.positions);
      for (index_t s = 0; s < sequences; ++s) positions += dx.middleRows(s * context(), context());
      for (index_t r = 0; r < rows; ++r) embedding.row(tokens[r]) += dx.row(r);
    }
  }

  gpt_config config_;
  int shard_count_;
  gpt_layout layout_;
  buffer<T> weights_, gradient_;
  rotary_table<T> rotary_;
  std::vector<T> attention_logits_;
  std::vector<workspace> workspaces_;
};

}  // namespace small_gpt
