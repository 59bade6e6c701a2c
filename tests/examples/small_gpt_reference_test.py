"""examples/small_gpt/reference.py, the model in PyTorch, gives the logits of the program.

usage: small_gpt_reference_test.py PROGRAM        needs torch and safetensors
"""
import contextlib
import io
import pathlib
import sys
import unittest

import torch

from small_gpt_program import Runs, run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/small_gpt"))
import reference


class Reference(Runs):
    def test_logits(self):
        for arch in ("modern", "nanogpt"):
            with self.subTest(arch):
                self.train(arch, "--arch", arch, "--iterations", 100)
                c, model, logits = self.checkpoint(arch), self.folder / "model", self.folder / "logits"
                run("export", c, "--out", model)
                run("logits", c, "--text", "the naïve matrix", "--out", logits)
                expected = reference.safe_open(logits, "pt").get_tensor("logits")
                self.assertGreater(expected.std().item(), 0.5, "the model has learned too little to tell much")
                tokens = torch.tensor([int(t) for t in reference.safe_open(logits, "pt").metadata()["tokens"].split()])
                self.assertLess((reference.Model(model).logits(tokens) - expected).abs().max().item(), 1e-5)
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    self.assertEqual(reference.main(model, logits), 0)
                self.assertIn("16 tokens", out.getvalue())
                other = torch.cat((tokens[1:], tokens[:1]))
                self.assertGreater((reference.Model(model).logits(other) - expected).abs().max().item(), 1e-2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
