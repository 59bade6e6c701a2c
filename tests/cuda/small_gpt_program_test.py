"""The program small_gpt with the device "cuda", from outside: against the device "cpu", exact resumption, bad input.

usage: small_gpt_program_test.py PROGRAM
"""
import json
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
from small_gpt_program import FAILED, Runs, run  # noqa: E402


class SmallGptOnTheGpu(Runs):
    def log(self, out):
        return [json.loads(line) for line in (self.folder / out / "log.jsonl").read_text().splitlines()]

    def losses(self, out, key="loss"):
        return [line[key] for line in self.log(out) if key in line]

    def test_losses_are_those_of_the_cpu(self):
        # The last two begin with something of the weights: norms of rows, and the norm of each matrix.
        for arch, rule in (("modern", "muon"), ("nanogpt", "muon"), ("modern", "adamw"), ("modern", "mars_m"), ("modern", "muown"),
                           ("modern", "muon_h")):
            with self.subTest(arch=arch, rule=rule):
                usual = ("--arch", arch, "--rule", rule, "--clip", 0.5)
                names = {d: f"{arch}-{rule}-{d}" for d in ("cpu", "float", "bf16")}
                self.train(names["cpu"], *usual)
                self.train(names["float"], *usual, "--device", "cuda", "--precision", "float", "--micro-batch", 3)
                self.train(names["bf16"], *usual, "--device", "cuda:0")
                for precision, tolerance in (("float", 5e-3), ("bf16", 3e-2)):
                    for key in ("loss", "validation"):
                        for a, b in zip(self.losses(names["cpu"], key), self.losses(names[precision], key), strict=True):
                            self.assertAlmostEqual(a, b, delta=tolerance)
                    first = [self.losses(names[d], "gradient_norm")[0] for d in ("cpu", precision)]
                    self.assertAlmostEqual(first[0], first[1], delta=first[0] * tolerance)

    def test_the_optimizer_s_share_of_the_time(self):
        self.train("a", "--device", "cuda")
        for line in self.log("a"):
            if "optimizer_share" in line:
                self.assertGreater(line["optimizer_share"], 0)
                self.assertLess(line["optimizer_share"], 1)

    def test_two_gradients(self):
        usual = ("--rule", "mars_m_exact")
        self.train("cpu", *usual)
        self.train("gpu", *usual, "--device", "cuda", "--precision", "float")
        for a, b in zip(self.losses("cpu"), self.losses("gpu"), strict=True):
            self.assertAlmostEqual(a, b, delta=5e-3)

    def test_measurements(self):
        def shape(x):
            if isinstance(x, dict):
                return {key: shape(value) for key, value in x.items()}
            return [shape(value) for value in x] if isinstance(x, list) else type(x)

        for device in ("cpu", "cuda"):
            self.train(device, "--device", device, "--measure-interval", 10)
        all_of = {d: [line["measurements"] for line in self.log(d) if "measurements" in line] for d in ("cpu", "cuda")}
        self.assertGreater(len(all_of["cpu"]), 1)
        self.assertEqual(shape(all_of["cpu"]), shape(all_of["cuda"]))

    def test_qk_clip_is_that_of_the_cpu_and_lasts(self):
        for rule in ("muon", "muown"):  # the second one keeps the norms of rows
            usual = ("--arch", "nanogpt", "--rule", rule, "--qk-clip", 0.002)
            for precision, tolerance in (("float", 1e-3), ("bf16", 0.1)):
                with self.subTest(rule=rule, precision=precision):
                    still = ("--lr", 1e-9, "--other-lr", 1e-9)
                    self.train(f"{rule}-cpu-{precision}", *usual, *still)
                    out = f"{rule}-{precision}"
                    self.train(out, *usual, *still, "--device", "cuda", "--precision", precision)
                    tops, expected = self.losses(out, "qk_max"), self.losses(f"{rule}-cpu-{precision}", "qk_max")
                    for a, b in zip(tops, expected, strict=True):
                        self.assertAlmostEqual(a, b, delta=tolerance * b)
                    self.assertGreater(tops[0], 0.004)
                    self.assertLess(tops[-1], 0.003)
                    self.assertGreater(self.losses(out, "qk_clipped")[0], 0)

    def test_resume_is_exact(self):
        clipped = ("--arch", "nanogpt", "--qk-clip", 0.01)
        for rule, more in (("muon", ()), ("mars_m_exact", ()), ("muown", clipped)):
            with self.subTest(rule):
                usual = ("--rule", rule, "--device", "cuda", *more)
                self.train(rule, *usual, iterations=2000)
                out = rule + "-stopped"
                p = self.start(*self.training(out, *usual, iterations=2000), steps=13)
                p.send_signal(signal.SIGINT)
                self.assertEqual(p.wait(60), 128 + signal.SIGINT)
                self.assertLess(len(self.losses(out)), 2000, "the run ended before it was interrupted")
                run("train", "--resume", self.checkpoint(out))
                self.assertEqual(self.checkpoint(rule).read_bytes(), self.checkpoint(out).read_bytes())

    def test_what_a_checkpoint_is_good_for(self):
        self.train("a", "--device", "cuda")
        loss = float(run("eval", self.checkpoint("a")).split()[1])  # on the CPU, in float
        self.assertAlmostEqual(loss, self.losses("a", "validation")[-1], delta=1e-2)

    def test_what_is_refused(self):
        self.assertIn("cuda:0", self.train("a", "--device", "cuda:99", code=FAILED))
        error = self.train("b", "--device", "cuda", "--width", 12, "--heads", 1, code=FAILED)
        self.assertIn("a multiple of 8", error)


if __name__ == "__main__":
    unittest.main()
