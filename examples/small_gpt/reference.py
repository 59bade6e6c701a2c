"""The models of small_gpt in PyTorch, as short as they can be: what a dense export computes, without the trainer.

    small_gpt export run/checkpoint.safetensors --out model.safetensors
    small_gpt logits run/checkpoint.safetensors --text "In the beginning" --out logits.safetensors
    python reference.py model.safetensors logits.safetensors     # compares; needs torch and safetensors
"""
import json
import sys

import torch
import torch.nn.functional as F
from safetensors import safe_open


class Model:
    def __init__(self, path, dtype=torch.float32):
        with safe_open(path, "pt") as file:
            self.settings = json.loads(file.metadata()["small_gpt.settings"])
            self.weights = {name.removeprefix("model."): file.get_tensor(name).to(dtype) for name in file.keys()}
        self.modern = self.settings["architecture"] == "modern"

    def norm(self, x, gain=None):  # RMSNorm without a gain, or LayerNorm with one and without a bias
        return F.rms_norm(x, x.shape[-1:], eps=1e-5) if self.modern else F.layer_norm(x, x.shape[-1:], self.weights[gain][0], eps=1e-5)

    def rotate(self, x):  # rotary positions: [heads, tokens, head width], halves a and b are pairs
        a, b = x.chunk(2, -1)
        frequency = 10000.0 ** (-torch.arange(a.shape[-1], dtype=torch.float64) / a.shape[-1])
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), -1)

    def attention(self, x, layer):
        heads = self.settings["heads"]
        q, k, v = (y.unflatten(-1, (heads, -1)).transpose(0, 1) for y in F.linear(x, self.weights[layer + "qkv"]).chunk(3, -1))
        if self.modern:
            q, k = self.rotate(self.norm(q)), self.rotate(self.norm(k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(0, 1).flatten(1), self.weights[layer + "attention_out"])

    def mlp(self, x, layer):
        hidden = F.linear(x, self.weights[layer + "mlp_in"])
        return F.linear(F.relu(hidden).square() if self.modern else F.gelu(hidden), self.weights[layer + "mlp_out"])

    def logits(self, tokens):  # of the token after each of `tokens`: [tokens, vocabulary]
        x = self.weights["embedding"][tokens]
        x = self.norm(x) if self.modern else x + self.weights["positions"][: len(tokens)]
        for i in range(self.settings["layers"]):
            layer = f"layer{i}."
            x = x + self.attention(self.norm(x, layer + "attention_gain"), layer)
            x = x + self.mlp(self.norm(x, layer + "mlp_gain"), layer)
        return F.linear(self.norm(x, "final_gain"), self.weights["head" if self.modern else "embedding"])


def main(model, expected):
    with safe_open(expected, "pt") as file:
        tokens = torch.tensor([int(t) for t in file.metadata()["tokens"].split()])
        logits = file.get_tensor("logits")
    difference = (Model(model).logits(tokens) - logits).abs().max().item()
    print(f"{len(tokens)} tokens, logits up to {logits.abs().max().item():.3g}: largest difference {difference:.2g}")
    return 0 if difference < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else __doc__)
