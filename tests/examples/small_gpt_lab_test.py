"""What small_gpt offers to who studies optimizers: runs that describe themselves, kept checkpoints and branches, rules of one's own.

usage: small_gpt_lab_test.py PROGRAM [PROGRAM_WITH_A_RULE_OF_ITS_OWN]
"""
import csv
import json
import subprocess
import sys
import unittest

from small_gpt_program import FAILED, TINY, Runs, run

OWN = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None


class Logs(Runs):
    def test_a_run_describes_itself(self):
        self.train("a", "--rule", "numuon", "--measure-interval", 10, "--clip", 1)
        header = self.log("a")[0]
        self.assertEqual(header["effective"]["set"]["rank_total"], "24")
        self.assertEqual((header["effective"]["device"], header["effective"]["precision"]), ("cpu", "float"))
        self.assertRegex(header["version"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(header["started"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertIn("--rule numuon --measure-interval 10", header["command"])
        self.assertTrue(header["processor"])
        steps = [line for line in self.log("a") if "loss" in line]
        for before, after in zip(steps, steps[1:]):
            self.assertLess(before["seconds"], after["seconds"])
            self.assertLessEqual(before["elapsed"], after["elapsed"])
        for line in steps:
            self.assertLess(line["seconds"], line["elapsed"])
            self.assertGreater(line["gradient_norm"], 0)
        self.assertAlmostEqual(steps[20]["other_lr"] / steps[20]["lr"], 0.003 / 0.02)

    def test_measurements_of_the_matrices(self):
        self.train("a", "--measure-interval", 10)
        lines = [line for line in self.log("a") if "measurements" in line]
        self.assertEqual([line["step"] for line in lines], [1, 10, 20, 30])
        last = {m["name"]: m for m in lines[-1]["measurements"]}
        self.assertEqual([last[f"layer1.qkv.{i}"]["kind"] for i in range(3)], ["q", "k", "v"])
        self.assertEqual(last["layer0.mlp_in"]["kind"], "mlp_in")
        self.assertNotIn("spectral_norm", last["embedding"])
        self.assertGreater(last["embedding"]["update_to_weight"], 0)
        inspected = {row.split()[0]: row.split() for row in run("inspect", self.checkpoint("a")).splitlines()[1:]}
        for name in ("layer0.attention_out", "layer1.mlp_in", "layer1.mlp_out"):
            m = last[name]
            self.assertAlmostEqual(m["spectral_norm"], m["row_norms"][2] * m["coherence"], places=9)
            self.assertEqual(m["spectral_norm"], m["singular_values"][0])
            self.assertEqual(sorted(m["singular_values"], reverse=True), m["singular_values"])
            self.assertAlmostEqual(m["spectral_norm"], float(inspected[name][-6]), places=3)
            self.assertAlmostEqual(m["stable_rank"], float(inspected[name][-5]), places=2)
            self.assertTrue(m["row_norms"][0] <= m["row_norms"][1] <= m["row_norms"][2])
            self.assertLess(m["update_to_weight"], 1)
        self.train("b", "--measure-interval", 0)
        self.assertFalse([line for line in self.log("b") if "measurements" in line])
        weights = [self.folder / out / "weights" for out in "ab"]
        for out, path in zip("ab", weights):
            run("compress", self.checkpoint(out), "--keep", 1, "--calibration", 1, "--save", path)
        tensors = [path.read_bytes()[8 + int.from_bytes(path.read_bytes()[:8], "little") :] for path in weights]
        self.assertEqual(*tensors)  # who measures changes nothing

    def test_tables_beside_the_log(self):
        self.train("a")
        with open(self.folder / "a/steps.csv") as file:
            rows = list(csv.DictReader(file))
        steps = [line for line in self.log("a") if "loss" in line]
        self.assertEqual([int(row["step"]) for row in rows], [line["step"] for line in steps])
        for row, line in zip(rows, steps):
            self.assertAlmostEqual(float(row["gradient_norm"]), line["gradient_norm"], places=5)
        validation = [line["validation"] for line in self.log("a") if "validation" in line]
        self.assertEqual([round(float(row["validation"]), 4) for row in rows if row["validation"]], [round(v, 4) for v in validation])
        with open(self.folder / "a/measurements.csv") as file:
            self.assertEqual({row["kind"] for row in csv.DictReader(file)},
                             {"embedding", "q", "k", "v", "attention_out", "mlp_in", "mlp_out", "head"})

    def test_the_time_goes_on_when_a_run_does(self):
        p = self.start(*self.training("a", iterations=60), steps=13)
        p.terminate()
        p.wait(60)
        run("train", "--resume", self.checkpoint("a"))
        steps = [line for line in self.log("a") if "loss" in line]
        self.assertEqual(len(steps), 60)
        for before, after in zip(steps, steps[1:]):
            self.assertLess(before["seconds"], after["seconds"])
            self.assertLess(before["elapsed"], after["elapsed"])
        with open(self.folder / "a/steps.csv") as file:
            self.assertEqual(len(list(csv.DictReader(file))), 60)


class Checkpoints(Runs):
    def kept(self, out):
        return sorted(int(path.name[11:19]) for path in (self.folder / out).glob("checkpoint-*.safetensors"))

    def test_checkpoints_are_kept_or_thinned(self):
        self.train("last", "--checkpoint-interval", 2)
        self.assertEqual(self.kept("last"), [])
        self.train("all", "--checkpoint-interval", 2, "--checkpoints", "all")
        self.assertEqual(self.kept("all"), list(range(2, 31, 2)))
        self.assertEqual(self.checkpoint("all").read_bytes(), (self.folder / "all/checkpoint-00000030.safetensors").read_bytes())
        run("eval", self.folder / "all/checkpoint-00000006.safetensors")
        self.train("thinned", "--checkpoint-interval", 1, "--checkpoints", "thinned", iterations=64)
        kept = self.kept("thinned")
        self.assertTrue({32, 48, 56, 60, 62, 63, 64} <= set(kept), kept)
        self.assertLess(len(kept), 16)
        self.train("all", "--force")
        self.assertEqual(self.kept("all"), [])
        self.assertIn("one of last, all, thinned", self.train("x", "--checkpoints", "some", code=FAILED))

    def test_a_branch_goes_on_with_other_settings(self):
        self.train("a", "--checkpoints", "all")
        early = self.folder / "a/checkpoint-00000010.safetensors"
        run("train", "--branch", early, "--out", self.folder / "same")
        self.assertEqual(self.checkpoint("a").read_bytes(), self.checkpoint("same").read_bytes())
        header = self.log("same")[0]
        self.assertEqual((header["branched_from"], header["at_step"]), (str(early), 10))

        run("train", "--branch", early, "--out", self.folder / "other", "--lr", 0.005, "--iterations", 50, "--set", "momentum=0.8")
        log = self.log("other")
        self.assertEqual(log[0]["settings"]["lr"], 0.005)
        self.assertEqual(log[0]["effective"]["set"]["momentum"], "0.8")
        self.assertEqual([line["step"] for line in log if "loss" in line], list(range(11, 51)))

        # Another rule begins with a fresh state, and such a run can be stopped and continued, too.
        for out, iterations in (("adamw", 40), ("whole", 40)):
            run("train", "--branch", early, "--out", self.folder / out, "--rule", "adamw", "--iterations", iterations, "--checkpoints", "all")
        self.assertEqual(self.log("adamw")[0]["settings"]["lr"], 0.003)
        run("train", "--resume", self.folder / "adamw/checkpoint-00000020.safetensors", "--out", self.folder / "resumed")
        self.assertEqual(self.checkpoint("resumed").read_bytes(), self.checkpoint("whole").read_bytes())

        for args, expected in ((["--width", 32], "--width cannot be changed"), (["--iterations", 10], "more than the steps of the checkpoint, 10"),
                               (["--rule", "moun"], "nearest")):
            self.assertIn(expected, run("train", "--branch", early, "--out", self.folder / "bad", *args, code=FAILED))
        self.assertFalse((self.folder / "bad").exists())

    def test_what_an_earlier_version_wrote_is_read(self):
        p = self.start(*self.training("a", iterations=200), steps=13)
        p.terminate()
        p.wait(60)
        later = ("measure_interval", "checkpoints", "device", "precision", "micro_batch")

        def strip(metadata):
            for key in ("small_gpt.settings", "small_gpt.effective"):
                settings = json.loads(metadata[key])
                for name in later:
                    del settings[name]
                metadata[key] = json.dumps(settings)

        self.checkpoint("a").write_bytes(self.edited(self.checkpoint("a"), strip).read_bytes())
        lines = [line for line in self.log("a") if "measurements" not in line]
        lines[0] = {key: lines[0][key] for key in ("settings", "parameters", "threads")}
        for name in later:
            del lines[0]["settings"][name]
        for line in lines:
            for key in ("seconds", "elapsed", "gradient_norm", "other_lr"):
                line.pop(key, None)
        (self.folder / "a/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step":9,"lo')
        run("eval", self.checkpoint("a"))
        run("train", "--resume", self.checkpoint("a"))
        with open(self.folder / "a/steps.csv") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(row["step"]) for row in rows], list(range(1, 201)))
        seconds = [float(row["seconds"]) for row in rows]
        self.assertEqual(len(seconds), 200)


class OwnRule(Runs):
    def test_a_program_with_a_rule_of_its_own(self):
        self.assertIn("unknown rule", self.train("x", "--rule", "sign_muon", code=FAILED))
        out = self.folder / "a"
        args = ["--data", self.text, "--out", out, "--iterations", 30, *TINY, "--rule", "sign_muon", "--set", "momentum=0.9", "--lr", 0.01]
        done = subprocess.run([OWN, "train", *map(str, args)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("entry_sign", done.stdout)
        validation = [line["validation"] for line in self.log("a") if "validation" in line]
        self.assertLess(validation[-1], validation[0])
        self.assertIn("sign_muon", subprocess.run([OWN, "rules"], capture_output=True, text=True, timeout=60).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=1)
