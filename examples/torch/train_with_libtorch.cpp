// Trains a small network of libtorch with Muon for its matrices and AdamW for the rest.
#include <torch/torch.h>

#include <cstdio>
#include <matopt/adamw.hpp>
#include <matopt/adapters/torch.hpp>
#include <matopt/muon.hpp>

int main() {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 3).padding(1)), torch::nn::ReLU(),
                              torch::nn::Flatten(), torch::nn::Linear(8 * 36, 4));
  const torch::Tensor x = torch::randn({64, 1, 6, 6}), y = x.view({64, 4, 9}).mean(2).argmax(1);

  // Matrices and convolutions, and what is neither.
  std::vector<torch::Tensor> hidden, others;
  for (const torch::Tensor& p : model->parameters()) (p.dim() >= 2 ? hidden : others).push_back(p);

  matopt::rule_registry<matopt::eigen_backend> rules;
  rules.add<matopt::muon>("muon").add<matopt::adamw>("adamw");
  matopt::torch_optimizer opt(matopt::torch_rules().add(rules));
  opt.add_param_group({.params = hidden, .rule = "muon", .lr = 0.02, .settings = {{"momentum", "0.9"}}});
  opt.add_param_group({.params = others, .rule = "adamw", .lr = 3e-3});

  double first = 0, last = 0;
  for (int step = 0; step < 80; ++step) {
    opt.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(x), y);
    loss.backward();
    opt.step();
    for (auto& group : opt.groups()) group.lr *= 0.99;  // a scheduler
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  std::printf("loss %.3f -> %.3f\n", first, last);
  return last < 0.3 * first ? 0 : 1;
}
