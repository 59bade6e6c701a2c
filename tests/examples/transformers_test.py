"""The folder that `small_gpt export --format huggingface` writes, in Hugging Face's transformers: same logits, same tokens.

usage: transformers_test.py PROGRAM        needs torch, safetensors and transformers
"""
import os
import unittest

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the folder
import safetensors
import torch
import transformers

from small_gpt_program import Runs, run


class Transformers(Runs):
    def test_logits_and_tokens(self):
        for vocabulary, *more in (["byte"], ["pairs", "--vocabulary-size", 300]):
            with self.subTest(vocabulary):
                folder = self.folder / f"gpt2-{vocabulary}"
                self.train(vocabulary, "--arch", "nanogpt", "--vocabulary", vocabulary, *more)
                run("export", self.checkpoint(vocabulary), "--out", folder, "--format", "huggingface")
                model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
                for kind, names in found.items():
                    self.assertFalse(names, kind)  # missing, unexpected, of other shapes
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                text = "it's 42 naïv\n"
                run("logits", self.checkpoint(vocabulary), "--text", text, "--out", self.folder / "logits")
                with safetensors.safe_open(self.folder / "logits", "pt") as file:
                    tokens = [int(t) for t in file.metadata()["tokens"].split()]
                    logits = file.get_tensor("logits")
                self.assertEqual(tokenizer(text)["input_ids"], tokens)
                self.assertEqual(tokenizer.decode(tokens), text)
                with torch.no_grad():
                    self.assertLess((model.eval()(torch.tensor([tokens])).logits[0] - logits).abs().max().item(), 1e-5)


if __name__ == "__main__":
    unittest.main(verbosity=1)
