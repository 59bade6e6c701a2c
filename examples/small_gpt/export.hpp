// A trained model as other programs read it: dense weights without the optimizers' state.
#pragma once
#include <string>

#include "trained_model.hpp"

namespace small_gpt {

// A safetensors file of the tensors "model.*" as README.md lists them, with the settings and the vocabulary as metadata.
// It is a checkpoint that evaluates and samples; reference.py reads it in PyTorch.
void export_dense(trained_model& m, const std::string& path);

// The folder of a GPT-2 in Hugging Face's layout: model.safetensors, config.json and, of a vocabulary of bytes or byte
// pairs, tokenizer.json. Throws for the architecture "modern", which GPT-2's code does not compute. A model that the
// folder holds is replaced if `replace` says so, else it is an error.
void export_huggingface(trained_model& m, const std::string& folder, bool replace);

}  // namespace small_gpt
