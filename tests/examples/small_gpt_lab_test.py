"""What small_gpt offers to who studies optimizers: runs that describe themselves, kept checkpoints and branches, rules of one's own.

usage: small_gpt_lab_test.py PROGRAM [PROGRAM_WITH_A_RULE_OF_ITS_OWN]
"""
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

from small_gpt_program import FAILED, PROGRAM, TINY, Runs, run

OWN = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
TABLE = pathlib.Path(__file__).parents[2] / "scripts/experiment-table"


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
            self.assertAlmostEqual(m["spectral_norm"], float(inspected[name][-8]), places=3)
            self.assertAlmostEqual(m["stable_rank"], float(inspected[name][-7]), places=2)
            self.assertAlmostEqual(m["rate_shape"], float(inspected[name][-2]), places=2)
            self.assertAlmostEqual(m["rate"], float(inspected[name][-1]), places=3)
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

    def test_qk_clip_lasts_and_resumes(self):
        for rule in ("muon", "muown"):  # the second one keeps the norms of rows
            free, held = (["--arch", "nanogpt", "--rule", rule, "--qk-clip", threshold] for threshold in (1000, 0.002))
            still = ["--lr", 1e-9, "--other-lr", 1e-9]
            self.train(f"{rule}-free", *free, *still)
            self.train(f"{rule}-held", *held, *still)
            logs = [[line for line in self.log(f"{rule}-{out}") if "loss" in line] for out in ("free", "held")]
            self.assertEqual(logs[0][0]["qk_max"], logs[1][0]["qk_max"])
            self.assertGreater(logs[0][-1]["qk_max"], 0.004)
            self.assertLess(logs[1][-1]["qk_max"], 0.003)
            self.assertEqual({line["qk_clipped"] for line in logs[0]}, {0})
            self.assertGreater(logs[1][0]["qk_clipped"], 0)
            with open(self.folder / f"{rule}-held/steps.csv") as file:
                self.assertAlmostEqual(float(next(csv.DictReader(file))["qk_max"]), logs[1][0]["qk_max"], places=7)

            self.train(f"{rule}-whole", *held, iterations=40)
            p = self.start(*self.training(f"{rule}-half", *held, iterations=40), steps=13)
            p.terminate()
            p.wait(60)
            run("train", "--resume", self.checkpoint(f"{rule}-half"))
            self.assertEqual(*(self.checkpoint(f"{rule}-{out}").read_bytes() for out in ("whole", "half")))
        self.assertIn("legal: 0 unless --arch is nanogpt", run(*self.training("modern", "--qk-clip", 5), code=FAILED))

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

        # Settings of the rule that are not named stay, those of AdamW too.
        run("train", "--branch", self.folder / "other/checkpoint.safetensors", "--out", self.folder / "third", "--iterations", 52, "--set", "decay=0.1",
            "--set-other", "beta1=0.8")
        run("train", "--branch", self.checkpoint("third"), "--out", self.folder / "fourth", "--iterations", 54, "--set", "momentum=0.7", "--set-other", "beta2=0.9")
        s = self.log("fourth")[0]["effective"]
        self.assertEqual((s["set"]["momentum"], s["set"]["decay"], s["set_other"]["beta1"], s["set_other"]["beta2"]), ("0.7", "0.1", "0.8", "0.9"))

        for args, expected in ((["--width", 32], "--width cannot be changed"), (["--iterations", 10], "more than the steps of the checkpoint, 10"),
                               (["--rule", "moun"], "nearest")):
            self.assertIn(expected, run("train", "--branch", early, "--out", self.folder / "bad", *args, code=FAILED))
        self.assertFalse((self.folder / "bad").exists())

    def test_what_an_earlier_version_wrote_is_read(self):
        p = self.start(*self.training("a", iterations=200), steps=13)
        p.terminate()
        p.wait(60)
        later = ("vocabulary_size", "measure_interval", "checkpoints", "device", "precision", "micro_batch", "qk_clip")

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


class Tokens(Runs):
    def shards(self, size=300):
        folder = self.folder / "tokens"
        run("tokenize", "--data", self.text, "--out", folder, "--vocabulary-size", size)
        return folder

    def test_pairs_of_bytes(self):
        self.train("a", "--vocabulary", "pairs", "--vocabulary-size", 300)
        c = self.checkpoint("a")
        self.assertEqual(self.log("a")[0]["vocabulary"], 300)
        text = run("sample", c, "--prompt", "the naïve ", "--length", 20)
        self.assertTrue(text.startswith("the naïve "))
        # Bits per byte compare vocabularies: of the same text, in fewer tokens.
        last = [line for line in self.log("a") if "validation" in line][-1]
        self.assertLess(last["bits_per_byte"], 0.75 * last["validation"] / 0.6931)
        self.assertIn(f"{last['bits_per_byte']:.4f}", run("eval", c))
        p = self.start(*self.training("b", "--vocabulary", "pairs", "--vocabulary-size", 300, "--checkpoint-interval", 7, iterations=200), steps=13)
        p.kill()
        p.wait()
        run("train", "--resume", self.checkpoint("b"))
        self.train("c", "--vocabulary", "pairs", "--vocabulary-size", 300, "--checkpoint-interval", 7, iterations=200)
        self.assertEqual(self.checkpoint("b").read_bytes(), self.checkpoint("c").read_bytes())
        self.assertIn("257 to 65536", self.train("d", "--vocabulary", "pairs", "--vocabulary-size", 256, code=FAILED))

    def test_training_on_shards(self):
        tokens = self.shards()
        self.train("a", "--data", tokens, iterations=200)
        c = self.checkpoint("a")
        self.assertTrue(run("sample", c, "--prompt", "the little ", "--length", 5).startswith("the little "))
        self.assertIn("bits per byte", run("eval", c))
        p = self.start(*self.training("b", "--data", tokens, iterations=200), steps=13)
        p.terminate()
        p.wait(60)
        moved = self.folder / "moved"
        tokens.rename(moved)
        self.assertIn("--data", run("train", "--resume", self.checkpoint("b"), code=FAILED))
        run("train", "--resume", self.checkpoint("b"), "--data", moved)
        settings = [json.loads(self.metadata(self.checkpoint(out))["small_gpt.settings"]) for out in "ab"]
        self.assertEqual((settings[0]["vocabulary"], settings[0]["vocabulary_size"]), ("pairs", 300))
        a, b = (run("inspect", self.checkpoint(out)) for out in "ab")
        self.assertEqual(a, b)
        # Other tokens are another text.
        self.text.write_text(self.text.read_text().replace("little", "letter"))
        self.assertIn("not the text that the model learned from", run("train", "--resume", self.checkpoint("b"), "--data", self.shards(), code=FAILED))
        run("compress", c, "--data", moved, "--keep", 0.5, "--calibration", 8)

    def shard(self, name, tokens, version=1):
        folder = self.folder / "made"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(struct.pack("<256i", 20240520, version, len(tokens), *[0] * 253) + struct.pack(f"<{len(tokens)}H", *tokens))
        return folder

    def test_shards_that_are_none(self):
        numbers = [i * i % 300 for i in range(2000)]
        folder = self.shard("a_train.bin", numbers)
        self.shard("a_val.bin", numbers[:500])
        self.train("a", "--data", folder, "--vocabulary-size", 300, iterations=3)
        for change, expected in ((lambda: self.shard("b_train.bin", [*numbers[:1500], 5000, *numbers]), "token 1500 of"),
                                 (lambda: self.shard("b_val.bin", [*numbers[:15], 300]), "token 15 of"),
                                 (lambda: os.mkfifo(folder / "b_train.bin"), "it is a FIFO"),
                                 (lambda: (folder / "b_train.bin").mkdir(), "it is a folder"),
                                 (lambda: (folder / "b_train.bin").write_bytes(b"short"), "shorter than its header"),
                                 (lambda: self.shard("b_val.bin", numbers, version=7), "its version is 7"),
                                 (lambda: (folder / "merges.txt").write_text("1 2 3"), "merges.txt"),
                                 (lambda: (folder / "merges.txt").write_text("1 2 three"), "merges.txt"),
                                 (lambda: (folder / "merges.txt").write_text("1 99999"), "merges.txt")):
            with self.subTest(expected):
                change()
                message = self.train("b", "--data", folder, "--vocabulary-size", 300, code=FAILED)
                self.assertIn(expected, message)
                self.assertFalse((self.folder / "b").exists())
                for path in [*folder.glob("b_*"), *folder.glob("merges.txt")]:
                    path.rmdir() if path.is_dir() else path.unlink()
        (folder / "merges.txt").write_text("#version: 0.2\nt h\n")  # another program's
        self.train("c", "--data", folder, "--vocabulary-size", 300, iterations=3)

    def test_tokens_come_with_their_vocabulary(self):
        tokens = self.shards()
        for args, expected in ((["--vocabulary", "byte"], '--vocabulary is "byte"; legal: "pairs"'), (["--vocabulary", "shards"], '--vocabulary is "shards"'),
                               (["--vocabulary-size", 301], '--vocabulary-size is 301; legal: "300"')):
            with self.subTest(args):
                self.assertIn(expected, self.train("a", "--data", tokens, *args, code=FAILED))
                self.assertIn(expected, run("compare", "--data", tokens, "--out", self.folder / "c", "--rules", "adamw", *args, code=FAILED))
                self.assertFalse((self.folder / "a").exists())
                setting = args[0][2:] + " = " + json.dumps(args[1])
                (self.folder / "sweep.toml").write_text(f'out = "{self.folder}/runs"\n[settings]\ndata = "{tokens}"\n{setting}\n[[rules]]\nname = "muon"')
                self.assertIn(expected, run("sweep", self.folder / "sweep.toml", "--dry-run", code=FAILED))
        self.train("a", "--data", tokens, "--vocabulary", "pairs", "--vocabulary-size", 300, iterations=3)
        # A number means another text in another folder.
        tokens.rename(self.folder / "before")
        self.text.write_text(self.text.read_text().replace("matrix", "vector"))
        other = self.shards()
        self.train("b", "--vocabulary", "byte", iterations=3)
        for out, number in (("a", r"2\d\d"), ("b", "0")):
            for command in (["eval", self.checkpoint(out)], ["compress", self.checkpoint(out)],
                            ["train", "--branch", self.checkpoint(out), "--out", self.folder / "c", "--iterations", 5]):
                self.assertRegex(run(*command, "--data", other, code=FAILED), f"of another vocabulary than the model's: they differ from token {number} on")
        run("eval", self.checkpoint("a"), "--data", self.folder / "before")

    def test_a_vocabulary_with_any_symbols(self):
        numbers = [i * i % 300 for i in range(2000)]
        folder = self.shard("a_train.bin", numbers)
        self.shard("a_val.bin", numbers[:500])
        def vocabulary(symbols, version=1):
            header = struct.pack("<256i", 20240328, version, len(symbols), *[0] * 253)
            (folder / "tokenizer.bin").write_bytes(header + b"".join(bytes([len(s)]) + s for s in symbols))
        several = [b"" if i % 7 == 0 else b"<0>" if i < 3 else b"%d," % i for i in range(300)]
        vocabulary(several, version=2)
        self.train("a", "--data", folder, iterations=3)
        self.assertEqual(run("eval", self.checkpoint("a")).count("bits per byte"), 1)
        run("sample", self.checkpoint("a"), "--length", 5)
        run("train", "--resume", self.checkpoint("a"))
        vocabulary([b""] * 300)  # of no bytes at all: there are no bits per byte
        self.train("b", "--data", folder, iterations=3)
        for text in (run("eval", self.checkpoint("b")), (self.folder / "b/log.jsonl").read_text()):
            self.assertNotIn("inf", text)
        vocabulary(several, version=9)
        self.assertIn("is 9; this program reads 1 and 2", self.train("c", "--data", folder, code=FAILED))

    def test_what_tokenize_refuses(self):
        empty = self.folder / "empty"
        empty.write_text("")
        out = self.folder / "out"
        for args, expected in ((["--data", empty], "is empty"), (["--data", self.text, "--validation", empty], "is empty"),
                               (["--data", self.text, "--train-fraction", 1e-6], "--train-fraction is 1e-06")):
            self.assertIn(expected, run("tokenize", *args, "--out", out, code=FAILED))
            self.assertFalse(out.exists())
        self.assertIn("--out", run("tokenize", "--data", self.text, "--out", "", code=FAILED))
        # Tokens of two texts are not to be mixed.
        arguments = ["tokenize", "--data", self.text, "--out", out, "--vocabulary-size", 300]
        run(*arguments)
        (out / "text_train_000002.bin").write_bytes((out / "text_train_000001.bin").read_bytes())
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        self.assertIn("--force", run(*arguments, code=FAILED))
        self.assertEqual({path.name: path.read_bytes() for path in out.iterdir()}, before)
        run(*arguments, "--force")
        self.assertFalse((out / "text_train_000002.bin").exists())
        (out / "fineweb_train_000001.bin").write_bytes(before["text_train_000001.bin"])
        self.assertIn("fineweb", run(*arguments, "--force", code=FAILED))

    def test_a_text_of_its_own_validates(self):
        held_out = self.folder / "held_out"
        held_out.write_text("the matrix saw its own rows turned " * 40)
        tokens = self.folder / "tokens"
        run("tokenize", "--data", self.text, "--validation", held_out, "--out", tokens, "--vocabulary-size", 300)
        text = run("tokenize", "--data", held_out, "--out", self.folder / "again", "--vocabulary-size", 300)
        self.assertIn(str(held_out.stat().st_size) + " bytes", text)
        self.train("a", "--data", tokens, iterations=3)
        sizes = {path.name: (path.stat().st_size - 1024) // 2 for path in tokens.glob("*.bin")}
        self.assertLess(sizes["text_val_000000.bin"], 40 * 16)
        self.assertGreater(sizes["text_train_000001.bin"], 20 * sizes["text_val_000000.bin"])

    def test_shards_without_a_vocabulary(self):
        tokens = self.shards()
        for name in ("tokenizer.bin", "merges.txt"):
            (tokens / name).unlink()
        self.train("a", "--data", tokens, "--vocabulary-size", 512, iterations=10)
        self.assertEqual(self.log("a")[0]["vocabulary"], 512)
        self.assertNotIn("bits", run("eval", self.checkpoint("a")))
        self.assertRegex(run("sample", self.checkpoint("a"), "--length", 3), r"^(<\d+>){3}$")
        self.assertIn("cannot be encoded", run("sample", self.checkpoint("a"), "--prompt", "x", code=FAILED))
        self.assertIn("the vocabulary has 260", self.train("b", "--data", tokens, "--vocabulary-size", 260, code=FAILED))
        grid = f'out = "{self.folder}/runs"\n[settings]\ndata = "{tokens}"\nvocabulary-size = 512\n{Sweeps.SETTINGS}\niterations = 10\n[[rules]]\nname = "muon"'
        (self.folder / "sweep.toml").write_text(grid)
        self.assertIn("1 runs trained now", run("sweep", self.folder / "sweep.toml"))
        self.assertIn("0 runs trained now", run("sweep", self.folder / "sweep.toml"))
        run("report", self.folder / "runs", "--out", self.folder / "report", "--calibration", 8)


class Sweeps(Runs):
    SETTINGS = "".join(f"{name[2:]} = {value}\n" for name, value in zip(TINY[::2], TINY[1::2]))

    def sweep(self, text, *args, **kwargs):
        path = self.folder / "sweep.toml"
        path.write_text(text)
        return run("sweep", path, *args, **kwargs)

    def grid(self, rules, seeds="[1, 2]", more="iterations = 10"):
        return f'out = "{self.folder}/runs"\nseeds = {seeds}\n[settings]\ndata = "{self.text}"\n{self.SETTINGS}\n{more}\n' + rules

    def runs(self):
        """The settings of all runs, and how often each was trained or continued."""
        found = []
        for path in sorted((self.folder / "runs").iterdir()):
            log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
            s = log[0]["settings"]
            steps = sum("loss" in line for line in log)
            self.assertTrue("diverged" in log[-1] or log[-1].get("done"), log[-1])
            found.append((s["rule"], s["lr"], s["seed"], tuple(s["set"]), s["schedule"], steps))
        return found

    def test_a_grid_of_everything(self):
        grid = self.grid("""
            [[rules]]
            name = "muon"
            rates = [0.01, 0.02]
            set = { momentum = [0.9, 0.95], ns_steps = 4 }
            [[rules]]
            name = "adamw"
            rates = [0.005, 1000.0]
            settings = { schedule = ["wsd", "cosine"] }""")
        self.assertEqual(len(self.sweep(grid, "--dry-run").splitlines()), 16)
        self.assertFalse((self.folder / "runs").exists())
        self.assertIn("16 runs trained now", self.sweep(grid))
        runs = self.runs()
        self.assertEqual(len(set(runs)), 16)
        self.assertIn(("muon", 0.02, 2, ("momentum=0.9", "ns_steps=4"), "wsd", 10), runs)
        self.assertIn(("adamw", 0.005, 2, (), "cosine", 10), runs)
        self.assertTrue((self.folder / "runs/muon,momentum=0.9,ns_steps=4,lr=0.02,seed=1/checkpoint.safetensors").exists())
        # No run twice; and what is added is trained alone, whatever the folders are called.
        self.assertIn("0 runs trained now", self.sweep(grid))
        self.assertEqual(self.runs(), runs)
        self.assertIn("4 runs trained now", self.sweep(grid.replace("[0.9, 0.95]", "[0.95, 0.9, 0.8]")))
        # Another text is another run.
        other = self.folder / "other"
        other.write_text(self.text.read_text().replace("little", "letter"))
        self.assertEqual(len(self.sweep(grid, "--data", other, "--dry-run").splitlines()), 16)

    def test_what_is_asked_for_twice_is_listed_once(self):
        twice = self.grid("""
            [[rules]]
            name = "muon"
            rates = [0.01, 0.02]
            [[rules]]
            name = "muon"
            rates = [0.02, 0.04]
            set = { momentum = 0.95 }""", seeds="[1]")
        (self.folder / "sweep.toml").write_text(twice)
        p = subprocess.run([PROGRAM, "sweep", str(self.folder / "sweep.toml"), "--dry-run"], capture_output=True, text=True, check=True)
        self.assertEqual(p.stdout.split(), [f"muon,lr={lr},seed=1" for lr in (0.01, 0.02, 0.04)])
        self.assertEqual(p.stderr, "note: muon,lr=0.02,seed=1 is asked for twice, and trained once\n")
        self.assertIn("3 runs trained now", self.sweep(twice))

    def test_a_sweep_that_was_killed_goes_on(self):
        grid = self.grid('[[rules]]\nname = "muon"\nrates = [0.01, 0.02, 0.04]', more="iterations = 40")
        whole = self.folder / "whole"
        self.sweep(grid, "--out", whole)
        for number in (signal.SIGKILL, signal.SIGTERM):
            p = subprocess.Popen([PROGRAM, "sweep", str(self.folder / "sweep.toml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(lambda p=p: (p.kill(), p.wait()))
            while len(list(self.folder.glob("runs/*/checkpoint.safetensors"))) < (2 if number == signal.SIGKILL else 4):
                self.assertIsNone(p.poll(), "it ended before it was stopped")
                time.sleep(0.001)
            p.send_signal(number)
            self.assertEqual(p.wait(60), -number if number == signal.SIGKILL else 128 + number)
        self.sweep(grid)
        self.assertEqual(len(self.runs()), 6)
        for path in whole.iterdir():
            self.assertEqual((path / "checkpoint.safetensors").read_bytes(), (self.folder / "runs" / path.name / "checkpoint.safetensors").read_bytes())

    def test_a_checkpoint_that_cannot_be_read_is_none(self):
        one = self.grid('[[rules]]\nname = "muon"', seeds="[1]")
        self.sweep(one)
        folder = next((self.folder / "runs").iterdir())
        whole, log, checkpoint = (folder / "checkpoint.safetensors").read_bytes(), folder / "log.jsonl", folder / "checkpoint.safetensors"
        unfinished = "".join(log.read_text().splitlines(True)[:4])
        for content in (whole[:-9], b"", whole.replace(b"small_gpt.settings", b"small_gpt.sittings")):
            with self.subTest(content[:9]):
                log.write_text(unfinished)
                checkpoint.write_bytes(content)
                self.assertIn("1 runs trained now", self.sweep(one))
                self.assertEqual(checkpoint.read_bytes(), whole)

    def test_two_processes_share_a_sweep(self):
        grid = self.grid('[[rules]]\nname = "muon"\nrates = [0.01, 0.02, 0.04]', more="iterations = 40")
        (self.folder / "sweep.toml").write_text(grid)
        both = [subprocess.Popen([PROGRAM, "sweep", str(self.folder / "sweep.toml")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for _ in range(2)]
        trained = sum(int(re.search(r"(\d+) runs trained now", p.communicate(timeout=120)[0])[1]) for p in both)
        self.assertEqual([p.returncode for p in both], [0, 0])
        self.assertEqual(trained, 6)
        self.assertEqual({steps for *_, steps in self.runs()}, {40})

    def test_a_search_for_the_rate(self):
        search = self.grid('[[rules]]\nname = "adamw"\nsearch = { start = 0.1, width = 1.5 }', seeds="[1, 2, 3]")
        self.sweep(search)
        losses = {}
        for path in (self.folder / "runs").iterdir():
            log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
            final = [line["validation"] for line in log if "validation" in line]
            losses.setdefault(log[0]["settings"]["seed"], {})[log[0]["settings"]["lr"]] = final[-1] if log[-1].get("done") else float("inf")
        rates = sorted(losses[1])
        best = min(rates, key=lambda lr: losses[1][lr])
        at = rates.index(best)
        self.assertTrue(0 < at < len(rates) - 1, losses)
        self.assertLessEqual(best / rates[at - 1], 1.5)
        self.assertLessEqual(rates[at + 1] / best, 1.5)
        self.assertIn(0.1, rates)
        for seed in (2, 3):
            self.assertEqual(list(losses[seed]), [best])
        self.assertIn("0 runs trained now", self.sweep(search))

    def test_a_sweep_compresses_its_best_models(self):
        rules = '[[rules]]\nname = "muon"\nrates = [0.0001, 0.02]\n[[rules]]\nname = "adamw"\nrates = [0.005]\n[compress]\nkeep = [0.8, 0.3]\ncalibration = 8\n'
        self.sweep(self.grid(rules))
        compressed = {path.parent.name: path for path in self.folder.glob("runs/*/analysis.json")}
        self.assertEqual(set(compressed), {f"{rule},seed={seed}" for rule in ("muon,lr=0.02", "adamw,lr=0.005") for seed in (1, 2)})
        for name, path in compressed.items():
            found = json.loads(path.read_text())
            self.assertEqual([entry["keep"] for entry in found["compressed"]], [0.8, 0.3])
            with open(path.with_name("compressed.csv")) as file:
                rows = list(csv.DictReader(file))
            self.assertEqual([(row["method"], row["keep"]) for row in rows],
                             [("dense", "1")] + [(method, keep) for method in ("plain", "asvd", "whitened") for keep in ("0.8", "0.3")])
            last = [line for line in self.log(f"runs/{name}") if "validation" in line][-1]
            self.assertAlmostEqual(float(rows[0]["loss"]), last["validation"], places=4)
            self.assertAlmostEqual(float(rows[0]["bits_per_byte"]), last["bits_per_byte"], places=4)
            printed = run("compress", path.with_name("checkpoint.safetensors"), "--keep", 0.3, "--calibration", 8).splitlines()[-1].split()
            self.assertEqual(printed[2], rows[-1]["bytes"])
            self.assertAlmostEqual(float(printed[3]), float(rows[-1]["loss"]), places=4)
        # Nothing is done twice, and a report needs no more than these files.
        before = {path: path.stat().st_mtime_ns for path in compressed.values()}
        self.assertIn("0 runs trained now", run("sweep", self.folder / "sweep.toml"))
        self.assertEqual({path: path.stat().st_mtime_ns for path in compressed.values()}, before)
        for path in self.folder.glob("runs/*/checkpoint.safetensors"):
            path.unlink()
        run("report", self.folder / "runs", "--out", self.folder / "report")
        report = json.loads((self.folder / "report/report.json").read_text())
        self.assertEqual([len(one["compressed"]) for one in report["rules"]], [2, 2])
        for key, value in (("keep", "[2.0]"), ("calibration", 0), ("runs", '"some"'), ("method", '"asvd"'), ("bits", "[3]"), ("bits", "[8.5]"),
                           ("bits", "[]"), ("bits", "8"), ("bits", '["8"]'), ("entropy", 1), ("entropy", "true")):
            with self.subTest(key, value=value):
                self.assertIn(key, self.sweep(self.grid(rules.split("[compress]")[0] + f"[compress]\n{key} = {value}"), code=FAILED))

    def test_a_sweep_stores_its_models_in_fewer_bits(self):
        rules = '[[rules]]\nname = "muon"\n[[rules]]\nname = "adamw"\n'
        compress = "[compress]\nkeep = [0.8, 0.3]\ncalibration = 8\nbits = [16, 8, 8, 4]\nentropy = true\n"  # each once
        wide = lambda text: self.grid(text).replace("width = 16", "width = 64")
        self.sweep(wide(rules + compress))
        paths = list(self.folder.glob("runs/*/analysis.json"))
        self.assertEqual(len(paths), 4)
        gained = False
        for path in paths:
            found = json.loads(path.read_text())
            self.assertEqual((found["bits"], found["entropy"]), ([16, 8, 4], True))
            self.assertEqual([(e["bits"], e["keep"]) for e in found["compressed"]], [(b, k) for b in (16, 8, 4) for k in (0.8, 0.3, 1)])
            with open(path.with_name("compressed.csv")) as file:
                rows = {(row["method"], row["keep"], row["bits"]): row for row in csv.DictReader(file)}
            self.assertEqual(len(rows), 1 + 3 * 3 * 3)
            for e in found["compressed"]:
                self.assertEqual("coded_bytes" in e, e["bits"] <= 8)
                for method, name in (("plain", "svd"), ("asvd", "asvd"), ("whitened", "whitened")):
                    row = rows[method, f"{e['keep']:g}", str(e["bits"])]
                    self.assertAlmostEqual(float(row["loss"]), e[method], places=5)
                    self.assertEqual(int(row["uncoded_bytes"]), e["bytes"])
                    self.assertEqual(int(row["bytes"]), e.get("coded_bytes", {}).get(method, e["bytes"]))
                    if e["bits"] <= 8:  # after ten steps some matrices are as uniform as they began: these have nothing to gain
                        self.assertLessEqual(e["coded_bytes"][method], e["bytes"])
                        gained = gained or e["coded_bytes"][method] < e["bytes"]
        self.assertTrue(gained)
        # They are the losses and sizes of the files that `compress` writes.
        found = json.loads(paths[0].read_text())
        for bits, keep in ((16, 0.3), (8, 0.8), (4, 1)):
            saved, coded = self.folder / "saved", ["--entropy"] if bits <= 8 else []
            printed = run("compress", paths[0].with_name("checkpoint.safetensors"), "--keep", keep, "--calibration", 8, "--bits", bits, "--method", "asvd",
                          "--save", saved, *coded).splitlines()[-1].split()
            (entry,) = (e for e in found["compressed"] if (e["bits"], e["keep"]) == (bits, keep))
            self.assertAlmostEqual(float(printed[3]), entry["asvd"], delta=1e-4)
            self.assertEqual(saved.stat().st_size, entry["coded_bytes"]["asvd"] if coded else entry["bytes"])
        before = {path: path.stat().st_mtime_ns for path in paths}
        run("sweep", self.folder / "sweep.toml")
        self.assertEqual({path: path.stat().st_mtime_ns for path in paths}, before)
        # The report draws each number of bits, and its tables have the sizes.
        run("report", self.folder / "runs", "--out", self.folder / "report")
        self.assertEqual({path: path.stat().st_mtime_ns for path in paths}, before)
        report = json.loads((self.folder / "report/report.json").read_text())
        self.assertEqual((report["bits"], report["entropy"]), ([16, 8, 4], True))
        plot = (self.folder / "report/plots/size_whitened.svg").read_text()
        page, text = (self.folder / "report/report.html").read_text(), (self.folder / "report/report.md").read_text()
        for bits in (16, 8, 4):
            self.assertEqual(len(re.findall(f"<title>{bits} bits</title>", plot)), 1)
            self.assertIn(f"<td>adamw, {bits} bits</td>", page)
            self.assertIn(f"| muon | {bits} | whitened |", text)
            self.assertIn(f"<em>whitened</em>, {bits} bits: ", page)
        self.assertEqual([len(re.findall(f"<title>{name}</title>", plot)) for name in ("muon", "adamw", "32 bits")], [1, 1, 0])
        size = lambda n: f"{n} B" if n < 1e4 else f"{n / 1e3:.1f} kB" if n < 1e6 else f"{n / 1e6:.2f} MB"
        for one in report["rules"]:
            for entry in one["compressed"]:
                n = entry["coded_bytes"]["asvd"] if entry["bits"] <= 8 else entry["bytes"]
                self.assertIn(f"{entry['asvd']:.4f}<br>{size(n)}", page)
                self.assertIn(f"{entry['asvd']:.3f} ({size(n)})", text)
        # Other bits are another analysis, also of a report.
        self.sweep(wide(rules + compress.replace("[16, 8, 8, 4]", "[4]")))
        self.assertEqual({len(json.loads(path.read_text())["compressed"]) for path in paths}, {3})
        run("report", self.folder / "runs", "--out", self.folder / "report", "--keep", 0.5, "--bits", "32,8", "--calibration", 8)
        report = json.loads((self.folder / "report/report.json").read_text())
        self.assertEqual([(e["bits"], e["keep"]) for e in report["rules"][0]["compressed"]], [(32, 0.5), (8, 0.5), (8, 1)])
        table = subprocess.run([TABLE, "--compressed", str(self.folder / "runs")], capture_output=True, text=True, check=True).stdout
        self.assertIn("8 bits", table)
        for wrong in (["--bits", 3], ["--bits", "8,8"], ["--bits", 32, "--entropy"]):
            self.assertIn("bits", run("report", self.folder / "runs", "--out", self.folder / "report", *wrong, code=FAILED))

    def test_what_a_sweep_refuses(self):
        for rules, expected in (
            ("", "[[rules]]"),
            ('[[rules]]\nname = "moun"', 'nearest: "muon"'),
            ('[[rules]]\nname = "muon"\nrates = [0.01]\nsearch = {}', "one of the two"),
            ('[[rules]]\nname = "muon"\nrates = []', "a list of numbers"),
            ('[[rules]]\nname = "muon"\nrates = [-1.0]', "-1"),
            ('[[rules]]\nname = "muon"\nrate = 1', "rates"),
            ('[[rules]]\nname = "muon"\nset = { momentun = 0.9 }', 'nearest: "momentum"'),
            ('[[rules]]\nname = "muon"\nset = { momentum = 2 }', "momentum is 2"),
            ('[[rules]]\nname = "muon"\nsettings = { widht = 16 }', "width"),
            ('[[rules]]\nname = "muon"\nsettings = { width = "wide" }', '"width" is "wide"; legal: a whole number'),
            ('[[rules]]\nname = "muon"\nsettings = { width = 99999999999 }', "legal: a whole number, -2147483648 to 2147483647"),
            ('[[rules]]\nname = "muon"\nsettings = { schedule = { of = 1 } }', '"schedule" is {"of":1}; legal: a text'),
            ('[[rules]]\nname = "muon"\nrates = [0.1]\nset = { momentum = [%s] }' % ", ".join(f"0.{10000 + i}" for i in range(5001)), "at most 10000"),
            ('[[rules]]\nname = "muon"\nsearch = { width = 1.0 }', "a number above 1"),
            ('[[rules]]\nname = = "muon"', "line 16"),
            ('[[rules]]\nname = 1979-05-27', "dates"),
            ('[[rules]]\nname = "muon"\nrates = [0.0]', "rates of muon is 0"),
            ('[[rules]]\nname = "muon"\nsettings = { width = [16, 17] }', "a multiple of heads"),
            ('[[rules]]\nname = "muon"\nsettings = { arch = "nanogpt", architecture = "modern" }', "one of the two"),
            ('[[rules]]\nname = "muon"\nsettings = { iterations = 1.5 }', '"iterations" is 1.5'),
            ('[[rules]]\nname = "muon"\nsearch = { start = 1e35 }', "1e+35"),
            ('[[rules]]\nname = "muon"\nsettings = { vocabulary = "shards" }', "of a folder of tokens"),
            ('[[rules]]\nname = "muon"\nsearch = { start = 1.0, high = 0.5 }', "search.start is 1; legal: low to high"),
            ('[[rules]]\nname = "muon"\nsettings = { set_other = { beta1 = 2 } }', "beta1 is 2; legal: [0, 1)"),
            ('[[rules]]\nname = "numuon"\nset = { rank_hold = 1, rank_hold_steps = 2 }', "each setting once"),
            ('[[rules]]\nname = "muon"\nsettings = { train_fraction = 1.5 }', "--train-fraction is 1.5; legal: above 0 and below 1"),
            ('[[rules]]\nname = "mu\\u0000on"', "NUL"),
        ):
            with self.subTest(rules):
                self.assertIn(expected, self.sweep(self.grid(rules), code=FAILED))
        self.assertFalse((self.folder / "runs").exists())
        for seeds in ("[1.5]", "[-1]", "[]", "1", "[1e300]", "[nan]", "[true]"):
            self.assertIn("seeds", self.sweep(self.grid('[[rules]]\nname = "muon"', seeds=seeds), code=FAILED))

    def test_names_and_numbers_stay_what_they_are(self):
        # A number beyond what a double tells apart, and each thing once.
        grid = self.grid('[[rules]]\nname = "muon"\nrates = [0.01, 0.01]', seeds="[9007199254740993, 9007199254740993]")
        self.assertEqual(self.sweep(grid, "--dry-run"), "muon,lr=0.01,seed=9007199254740993\n")
        # More settings than the name of a folder can hold.
        values = ", ".join(f"{name} = [{value}]" for name, value in (
            ("decay_fraction", 0.1234567890123), ("lr_floor", 0.0123456789123), ("clip", 1.234567890123456), ("other_lr", 0.00312345678912),
            ("schedule", '"wsd"'), ("warmup", 3), ("train_fraction", 0.876543210987), ("vocabulary", '"character"')))
        many = '[[rules]]\nname = "muon"\nset = { ns_eps = [%s], momentum = [0.123456789012345, 0.9] }\nsettings = { ' + values + " }"
        names = self.sweep(self.grid(many % "1.234567890123e-7", seeds="[1]"), "--dry-run").split()
        self.assertEqual(len(set(names)), 2)
        for name in names:
            self.assertLessEqual(len(name), 200)
            self.assertTrue(name.startswith("muon,") and name.endswith(",seed=1"), name)
        self.sweep(self.grid(many % "1.234567890123e-7", seeds="[1]"))
        self.assertEqual({path.name for path in (self.folder / "runs").iterdir()}, set(names))

    def test_a_search_ends(self):
        rule = '[[rules]]\nname = "muon"\nsearch = { start = 0.02 }'
        self.text.write_text("a" * 3000)  # nothing to learn: every rate has the same loss
        self.sweep(self.grid(rule, seeds="[1, 2]", more="iterations = 1"))
        trained = self.runs()
        self.assertLess(len(trained), 20)
        self.assertEqual({seed for _, _, seed, *_ in trained}, {1, 2})
        shutil.rmtree(self.folder / "runs")
        # The bounds are tried as they are, with more than three digits, and the search ends there.
        self.sweep(self.grid('[[rules]]\nname = "muon"\nsearch = { start = 0.0124, low = 0.01239, high = 0.5 }', seeds="[1, 2]", more="iterations = 1"))
        trained = self.runs()
        self.assertIn(0.01239, {lr for _, lr, *_ in trained})
        self.assertEqual({seed for _, _, seed, *_ in trained}, {1, 2})

    def test_a_run_that_cannot_be_read_is_another_one(self):
        one = self.grid('[[rules]]\nname = "muon"', seeds="[1]")
        self.sweep(one)
        log = next((self.folder / "runs").iterdir()) / "log.jsonl"
        whole = log.read_text()
        for content in ("of something else\n", whole[:60], whole.replace('"settings":{', '"settings":{"of a newer version":1,', 1)):
            with self.subTest(content[:80]):
                log.write_text(content)
                self.assertIn("1 runs trained now", self.sweep(one))
                self.assertEqual(log.read_text(), content)
                shutil.rmtree(next(p for p in (self.folder / "runs").iterdir() if "run=2" in p.name))
        log.write_text("".join(line for line in whole.splitlines(True) if "validation" not in line))
        self.assertIn("1 runs trained now", self.sweep(one))  # evaluated
        self.assertIn("validation", log.read_text())


class Reports(Runs):
    @classmethod
    def log_of(cls, rule, lr, seed, losses, seconds=1.0, **settings):
        """The log of a run that never was, with these validation losses, one per ten steps."""
        known = {"data": "text", "vocabulary": "character", "train_fraction": 0.9, "architecture": "modern", "layers": 2, "heads": 2, "width": 16,
                 "context": 16, "rule": rule, "set": [], "lr": lr, "other_lr": 0.003, "set_other": [], "schedule": "wsd", "warmup": 0,
                 "decay_fraction": 0.3, "lr_floor": 0.0, "clip": 0.0, "batch": 8, "iterations": 10 * len(losses), "seed": seed, "shards": 2,
                 "eval_interval": 10, "eval_windows": 20, "checkpoint_interval": 500, **settings}
        lines = [{"settings": known, "parameters": 8, "threads": 1}]  # as version 0.1 wrote it
        for i, loss in enumerate(losses):
            step = 10 * (i + 1)
            tokens_per_second = 10 * 128 * (i + 1) / (seconds * (i + 1))
            if loss is None:
                lines.append({"step": step, "diverged": "the loss is nan nats per token"})
                break
            lines.append({"step": step, "loss": loss, "smoothed": loss, "lr": lr, "tokens_per_second": tokens_per_second, "optimizer_share": 0.1})
            lines.append({"step": step, "validation": loss, "bits_per_byte": loss / 0.5})
        return "".join(json.dumps(line) + "\n" for line in lines)

    def report(self, logs, *args, **kwargs):
        for i, log in enumerate(logs):
            folder = self.folder / "runs" / f"group{i % 2}" / f"run{i}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "log.jsonl").write_text(log)
        self.out = self.folder / "report"
        text = run("report", self.folder / "runs", "--out", self.out, *args, **kwargs)
        return text if kwargs.get("code") else json.loads((self.out / "report.json").read_text())

    def test_a_rate_that_is_by_chance_the_other_rate_is_a_rate(self):
        logs = [self.log_of("muon", lr, 1, [3, loss]) for lr, loss in ((0.003, 2.6), (0.006, 2.5))]
        logs += [self.log_of("adamw", lr, 1, [3, loss], other_lr=lr) for lr, loss in ((0.003, 2.9), (0.006, 2.8))]
        self.assertEqual([(one["label"], len(one["rates"])) for one in self.report(logs)["rules"]], [("muon", 2), ("adamw", 2)])

    def test_the_answer_is_right(self):
        logs = [self.log_of("muon", 0.02, seed, [3, 2.5, 2 + d]) for seed, d in ((1, 0.00), (2, 0.02), (3, -0.02))]
        logs += [self.log_of("muon", 0.04, seed, [3, 2.4, 2.3 + d]) for seed, d in ((1, 0.00), (2, 0.02), (3, -0.02))]
        logs += [self.log_of("muown", 0.01, seed, [3, 2.5, 2.01 + d], seconds=4) for seed, d in ((1, 0.00), (2, 0.02), (3, -0.02))]
        logs += [self.log_of("adamw", 0.005, seed, [3, 2.9, 2.8 + d], seconds=0.5) for seed, d in ((1, 0.00), (2, 0.02), (3, -0.02))]
        logs += [self.log_of("adamw", 10.0, seed, [3, None, None]) for seed in (1, 2, 3)]
        logs += [self.log_of("lion", 1.0, 1, [None, None, None])]
        r = self.report(logs)
        self.assertEqual([one["label"] for one in r["rules"]], ["muon", "muown", "adamw", "lion"])
        muon, muown, adamw, lion = r["rules"]
        self.assertAlmostEqual(r["deviation_of_seeds"], 0.02)
        self.assertEqual(r["degrees_of_freedom"], 8)
        self.assertEqual((muon["lr"], muon["seeds"], muon["validation"]), (0.02, 3, 2))
        self.assertEqual(muon["validation_range"], [1.98, 2.02])
        self.assertEqual((muon["verdict"], muon["bits_per_byte"]), ("best", 4))
        # 2.31 (Student, 8 degrees) * 0.02 * sqrt(2 / 3)
        self.assertEqual(muown["verdict"], "+0.0100, within noise (0.0377)")
        self.assertEqual(adamw["verdict"], "+0.8000")
        self.assertEqual(adamw["lr"], 0.005)
        self.assertEqual(adamw["rates"][1]["diverged"], 3)
        self.assertIn("diverged", lion["diverged"] + " diverged")
        # When adamw ends, after 1.5 s, muon has made one and a half of its tenths of steps.
        self.assertAlmostEqual(r["seconds"], 1.5)
        self.assertAlmostEqual(muon["at_equal_time"], 2.75)
        self.assertAlmostEqual(muown["at_equal_time"], 3)
        page = (self.out / "report.html").read_text()
        for text in ("The least validation loss is that of <b>muon</b>", "Within the noise of it: muown (+0.0100)", "adamw (+0.8000)",
                     "diverged at step 10", "lowest or highest"):
            self.assertIn(text, page)
        self.assertEqual(page.count("<tr><td>run"), len(logs))
        self.assertTrue((self.out / "plots/plateau.svg").exists())

    def test_where_curves_cross_is_right(self):
        logs = [self.log_of(rule, 0.02, seed, [3, loss]) for rule, loss in (("muon", 2.0), ("numuon", 2.1), ("adamw", 2.3)) for seed in (1, 2, 3)]
        losses = {"muon": (2.0, 2.4, 4.0), "numuon": (2.1, 2.2, 3.0), "adamw": (2.3, 2.6, 2.8)}  # of 1000, 600 and 200 bytes
        for i, log in enumerate(logs):
            folder = self.folder / "runs" / f"group{i % 2}" / f"run{i}"
            folder.mkdir(parents=True)
            rule, d = list(losses)[i // 3], (0, 0.02, -0.02)[i % 3]
            dense, half, fifth = (loss + d for loss in losses[rule])
            entries = [{"keep": keep, "bytes": size, "ridge": 0, **dict.fromkeys(("plain", "asvd", "whitened"), loss)}
                       for keep, size, loss in ((0.5, 600, half), (0.2, 200, fifth))]
            matrices = [{"stable_rank": 1, "spectral_norm": 1, "singular_values": [1, 0.5]}]
            (folder / "analysis.json").write_text(json.dumps({"step": 20, "matrices": matrices, "keep": [0.5, 0.2], "calibration": 8,
                                                              "dense": {"loss": dense, "bytes": 1000}, "compressed": entries}))
        crossings = [x for x in self.report(logs)["crossings"] if x["method"] == "whitened"]
        self.assertEqual([(x["above"], x["below"]) for x in crossings], [("muon", "numuon"), ("numuon", "adamw")])
        # The lead of 0.1 at 1000 bytes is one of -0.2 at 600; that of 0.4 at 600 is one of -0.2 at 200.
        self.assertAlmostEqual(crossings[0]["bytes"], 1000 - 400 * 0.1 / 0.3)
        self.assertAlmostEqual(crossings[1]["bytes"], 600 - 400 * 0.4 / 0.6)
        page = (self.out / "report.html").read_text()
        self.assertIn("<em>whitened</em>: muon is ahead; below 867 B numuon; below 333 B adamw.", page)
        self.assertIn("median, least and greatest over the seeds", page)

    def test_what_differs_has_a_name(self):
        r = self.report([self.log_of("muon", 0.02, 1, [2, 1.5], set=["momentum=0.9"]), self.log_of("muon", 0.02, 1, [2, 1.6]),
                         self.log_of("muon", 0.02, 1, [2, 1.7, 1.2], schedule="cosine")])
        self.assertEqual([one["label"].split()[:2] for one in r["rules"]],
                         [["muon", "iterations=20"], ["muon", "iterations=20"], ["muon", "iterations=30"]])
        self.assertIn("momentum=0.9", r["rules"][0]["label"])
        self.assertIn("schedule=cosine", r["rules"][2]["label"])
        self.assertEqual(r["rules"][2]["validation"], 1.7)  # at equal tokens
        self.assertEqual(r["rules"][1]["verdict"], "+0.1000, noise unknown")
        self.assertIn("small differences mean nothing", (self.out / "report.html").read_text())

    def test_how_often_a_run_was_evaluated_makes_it_no_other(self):
        r = self.report([self.log_of("muon", 0.02, seed, [2, 1.5 + seed / 10], eval_interval=10 * seed) for seed in (1, 2)])
        self.assertEqual([(one["label"], one["seeds"]) for one in r["rules"]], [("muon", 2)])

    def test_an_axis_of_rates_has_numbers(self):
        self.report([self.log_of("muon", lr, 1, [2, 1.5 + lr]) for lr in (0.013, 0.026)])
        plot = (self.out / "plots/plateau.svg").read_text()
        self.assertRegex(plot, r">\s*0\.02\s*<")

    def test_logits_of_attention_have_a_plot(self):
        log = self.log_of("muon", 0.02, 1, [2, 1.5]).splitlines()
        self.report(["\n".join(line[:-1] + f', "qk_max": {3 + i}, "qk_clipped": 0}}' if '"loss"' in line else line for i, line in enumerate(log)) + "\n"])
        self.assertIn("largest logit", (self.out / "plots/attention_logits.svg").read_text())

    def test_an_analysis_that_was_edited_is_made_anew(self):
        self.train("runs/a")
        report = ["report", str(self.folder / "runs"), "--out", str(self.folder / "page"), "--keep", "0.5", "--calibration", "8"]
        run(*report)
        path = self.folder / "runs/a/analysis.json"
        good = json.loads(path.read_text())
        matrix, entry = good["matrices"][0], good["compressed"][0]
        for change in ([], {"matrices": []}, {"matrices": [{}]}, {"matrices": 3}, {"matrices": [{**matrix, "singular_values": []}]},
                       {"matrices": [{**matrix, "singular_values": ["x"]}]}, {"rate": {}}, {"rate": 3}, {"compressed": 3}, {"compressed": [{}]},
                       {"compressed": [{**entry, "bits": "x"}]}, {"compressed": [{**entry, "coded_bytes": {}}]}, {"dense": {}}, {"dense": 3},
                       {"keep": None, "compressed": [{**entry, "keep": "x"}]}, {"entropy": "x"}):
            with self.subTest(change):
                path.write_text(json.dumps(change if change == [] else {**good, **change}))
                done = subprocess.run([PROGRAM, *report], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("analysis.json\" is not what this program writes", done.stderr)
                self.assertEqual(json.loads(path.read_text()), good)

    def test_a_setting_unlike_the_default_is_named(self):
        r = self.report([self.log_of("muon", 0.02, 1, [2, 1.5], set=["momentum=0.9", "ns_steps=5"]), self.log_of("adamw", 0.02, 1, [2, 1.6])])
        self.assertEqual([one["label"] for one in r["rules"]], ["muon momentum=0.9", "adamw"])
        for page in ("report.html", "report.md"):
            self.assertIn("muon momentum=0.9", (self.out / page).read_text())

    def test_plots_of_one_value_need_no_warning(self):
        for folder in ("runs/a", "runs/b"):
            self.train(folder, "--rule", "muon" if folder == "runs/a" else "adamw", "--measure-interval", 0, "--eval-interval", 100, iterations=1)
        command = [PROGRAM, "report", str(self.folder / "runs"), "--out", str(self.folder / "page"), "--calibration", "8"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_long_names_have_room_in_the_key(self):
        logs = [self.log_of("muon", 0.02, 1, [2, 1.5 + i / 100], set=[f"momentum=0.9{i}1234567890123", "ns_eps=1.234567890123e-7"], lr_floor=0.1234567890123 + i / 10,
                            eval_windows=20 + i, decay_fraction=0.3123456789 + i / 100) for i in range(3)]
        for i, log in enumerate(logs):
            (self.folder / f"runs/{i}").mkdir(parents=True)
            (self.folder / f"runs/{i}/log.jsonl").write_text(log)
        command = [PROGRAM, "report", str(self.folder / "runs"), "--out", str(self.folder / "page"), "--no-compression"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        self.assertNotIn("warning", done.stderr)
        plot = (self.folder / "page/plots/validation.svg").read_text()
        keys = set(re.findall(r">\s*(muon [^<]*)<", plot))
        self.assertEqual(len(keys), 3, plot[:3000])
        self.assertLessEqual(max(map(len, keys)), 54)

    def test_the_table_of_experiments(self):
        script = pathlib.Path(__file__).parents[2] / "scripts/experiment-table"
        table = lambda *args: subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, text=True)
        for args in ([self.folder], ["--compressed", self.folder], [self.folder / "absent"]):
            self.assertIn("there is no", table(*args).stderr)
            self.assertNotEqual(table(*args).returncode, 0)
        self.train("runs/a", "--measure-interval", 0)
        self.train("runs/b", "--measure-interval", 10, "--seed", 2)
        with open(self.folder / "runs/b/log.jsonl", "r+") as log:
            whole = log.read()
            log.seek(0), log.write(whole.replace("\n", '\n{"step": 3, "cut\n', 1))
        (self.folder / "runs/old").mkdir()
        (self.folder / "runs/old/log.jsonl").write_text(self.log_of("muon", 0.02, 1, [2, 1.5]))
        done = table(self.folder / "runs", f"{self.folder}/runs/")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = done.stdout.splitlines()[2:]
        self.assertEqual([row.count("|") for row in rows], [9, 9])
        self.assertEqual([" to " in row for row in rows], [False, True])

    def test_steps_and_crossings_of_experiments(self):
        """Of runs whose answers are known."""
        effective = lambda rule: {"effective": {"rule": rule, "lr": 0.1, "seed": 1, "set": {}}}
        curves = {"muon": {10: 4.0, 20: 3.0, 30: 2.0}, "fast": {10: 3.0, 20: 2.5, 30: 1.5}, "slow": {10: 5.0, 20: 4.0, 30: 3.5}}
        sizes = {"muon": [("dense", 1, 1000, 1.0), ("svd", 0.5, 600, 2.0)], "fast": [("dense", 1, 1000, 1.2), ("svd", 0.5, 600, 1.6)], "slow": [("dense", 1, 1000, 3), ("svd", 0.5, 600, 3)]}
        for rule, curve in curves.items():
            folder = self.folder / "runs" / rule
            folder.mkdir(parents=True)
            lines = [effective(rule), *({"step": step, "validation": loss} for step, loss in curve.items()), {"step": 30, "done": True}]
            (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (folder / "compressed.csv").write_text("method,keep,bytes,bits_per_byte,bits\n" + "".join(f"{m},{k},{b * 1000},{x},32\n" for m, k, b, x in sizes[rule]))
        table = lambda *args: subprocess.run([TABLE, *args, str(self.folder / "runs")], capture_output=True, text=True)
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table("--steps-to", "muon").stdout.splitlines()[2:]]
        # Half of the way from 2.5 to 1.5; and Muon is at 3.5 half of the way from 4 to 3.
        self.assertEqual(rows, [["fast", "0.1", "1", "1.5000", "25", "1.200", "not reached"], ["muon", "0.1", "1", "2.0000", "30", "1.000", "30"],
                                ["slow", "0.1", "1", "3.5000", "not reached", "", "15"]])
        self.assertIn("legal: fast, muon, slow", table("--steps-to", "moun").stderr)
        # A lead of 0.2 at 1000 is one of -0.4 at 600.
        self.assertIn("| svd | muon; below 0.9 MB fast |", table("--crossings").stdout)

    def test_measured_runs_have_every_plot(self):
        for rule in ("muon", "adamw"):
            for seed in (1, 2):
                self.train(f"runs/{rule}{seed}", "--rule", rule, "--seed", seed, "--measure-interval", 5)
        self.train("runs/unfinished", iterations=20)
        log = self.folder / "runs/unfinished/log.jsonl"
        log.write_text("".join(log.read_text().splitlines(True)[:-3]))
        self.out = self.folder / "report"
        run("report", self.folder / "runs", "--out", self.out, "--calibration", 16)
        self.assertEqual({path.stem for path in (self.out / "plots").iterdir()},
                         {"validation", "time", "train", "singular_values", "size_whitened", "size_asvd", "size_plain", "stable_rank", "spectra", "norm_factors",
                          "spectral_norm", "row_magnitude", "row_coherence", "row_norms", "rate_shape", "update_to_weight"})
        page = (self.out / "report.html").read_text()
        self.assertNotIn("unfinished", page)
        self.assertNotIn("<script", page)
        report = json.loads((self.out / "report.json").read_text())
        for one in report["rules"]:
            sizes = [entry["bytes"] for entry in one["compressed"]]
            self.assertEqual(sizes, sorted(sizes, reverse=True))
            self.assertLess(sizes[0], one["dense"]["bytes"])
            # BackSlash's rate of all hidden matrices together, and that of each; the mean over all is between those of one each.
            rates = [m["rate"] for m in one["matrices"]]
            self.assertTrue(all(0.1 < m["rate_shape"] <= 3 for m in one["matrices"]))
            self.assertTrue(1 < min(rates) < one["rate"]["rate"] < max(rates) * 1.1, (rates, one["rate"]))
            self.assertEqual(one["rate"]["eps"], 1)
            text = (self.out / "report.md").read_text()
            self.assertIn(f"| {one['rate']['shape']:.2f} | {one['rate']['rate']:.4f} |", text)
            self.assertIn(f"<td>{one['rate']['shape']:.2f}</td><td>{one['rate']['rate']:.4f}</td>", page)
            with open(self.folder / "runs" / f"{one['rule']}1" / "measurements.csv") as file:
                rows = [row for row in csv.DictReader(file) if row["name"] == "layer0.mlp_in"]
            self.assertTrue(all(0.1 < float(row["rate_shape"]) <= 3 and float(row["rate"]) > 1 for row in rows))
        # It reads what it found before: the checkpoints may be gone.
        for path in self.folder.glob("runs/*/checkpoint.safetensors"):
            path.unlink()
        run("report", self.folder / "runs", "--out", self.out, "--calibration", 16)
        self.assertEqual(json.loads((self.out / "report.json").read_text())["rules"], report["rules"])

    def test_a_run_is_one_seed_in_however_many_folders(self):
        self.train("runs/a")
        shutil.copytree(self.folder / "runs/a", self.folder / "runs/copy")
        self.train("runs/b", "--seed", 2)
        run("train", "--resume", self.checkpoint("runs/a"), "--out", self.folder / "runs/resumed at its end")
        link = self.folder / "link"
        link.symlink_to(self.folder / "runs")
        command = [PROGRAM, "report", self.folder / "runs", f"{self.folder}/runs/", link, self.folder / "runs/a", "--out", self.folder / "page", "--no-compression"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("is the same run as", done.stderr)
        report = json.loads((self.folder / "page/report.json").read_text())
        self.assertEqual([(one["label"], one["seeds"]) for one in report["rules"]], [("muon", 2)])
        self.assertEqual({one["folder"] for one in report["runs"]} - {"copy"} | {"a"}, {"a", "b"})
        self.assertEqual(report["degrees_of_freedom"], 1)

    def test_a_run_without_a_line_for_a_step(self):
        self.train("a")
        run("train", "--resume", self.checkpoint("a"), "--out", self.folder / "b")
        run("report", self.folder / "b", "--out", self.folder / "page", "--no-compression")
        report = json.loads((self.folder / "page/report.json").read_text())
        self.assertEqual(report["runs"][0]["validation"], [line["validation"] for line in self.log("a") if "validation" in line][-1])
        self.assertEqual(report["tokens"], 30 * 8 * 16)

    def test_texts_and_vocabularies_are_kept_apart(self):
        other = self.folder / "other"
        other.write_text("of other words there is another model to be had\n" * 200)
        self.train("runs/a")
        self.train("runs/b", "--vocabulary", "byte")
        bits = {}
        for name in ("a", "b"):
            bits[name] = [line["bits_per_byte"] for line in self.log(f"runs/{name}") if "validation" in line][-1]
        run("report", self.folder / "runs", "--out", self.folder / "page", "--no-compression")
        report = json.loads((self.folder / "page/report.json").read_text())
        page, table = (self.folder / "page/report.html").read_text(), (self.folder / "page/report.md").read_text()
        self.assertEqual(report["unit"], "bits per byte")
        self.assertEqual([one["label"] for one in report["rules"]], ["muon vocabulary=character", "muon vocabulary=byte"])
        for one, name in zip(report["rules"], "ab"):
            self.assertAlmostEqual(one["validation"], bits[name])
            self.assertAlmostEqual(one["bits_per_byte"], bits[name])
        self.assertIn("compared in bits per byte", page)
        self.assertIn("bits per byte</b>", page)
        self.assertIn("validation, bits per byte", table)
        self.train("runs/c", "--data", other)
        run("report", self.folder / "runs", "--out", self.folder / "page", "--no-compression")
        report = json.loads((self.folder / "page/report.json").read_text())
        self.assertEqual(sorted(report["texts"]), ["other", "text"])
        self.assertEqual({one["seeds"] for one in report["rules"]}, {1})
        self.assertEqual(sum("text=other" in one["label"] for one in report["rules"]), 1)
        self.assertIn("losses on different texts do not compare", (self.folder / "page/report.html").read_text())

    def test_a_log_that_is_not_as_it_should_be_is_left_out(self):
        good = self.log_of("adamw", 0.02, 1, [2, 1.6])
        lines = self.log_of("muon", 0.02, 1, [2, 1.5]).splitlines()
        header = json.loads(lines[0])
        bad = {
            "version": [json.dumps({**header, "version": 2}), *lines[1:]],
            "threads": [json.dumps({**header, "threads": "two"}), *lines[1:]],
            "command": [json.dumps({**header, "command": ["a"]}), *lines[1:]],
            "malformed settings": [json.dumps({**header, "settings": {**header["settings"], "new": 1}}), *lines[1:]],
            "line 6": [*lines, json.dumps({"step": 20, "skipped": 5})],
            "line 7": [*lines, "", json.dumps({"step": 20, "diverged": 5})],
            "measurements": [*lines, json.dumps({"step": 20, "measurements": [{"name": "a", "row_norms": [1]}]})],
            "no line with the settings": lines[1:],
            "--batch is -4": [json.dumps({**header, "settings": {**header["settings"], "batch": -4}}), *lines[1:]],
            "key=value": [json.dumps({**header, "settings": {**header["settings"], "set": ["x"]}}), *lines[1:]],
        }
        for i, (what, log) in enumerate(bad.items()):
            with self.subTest(what):
                for old in self.folder.glob("runs/*"):
                    shutil.rmtree(old)
                for name, text in (("good", good), ("bad", "\n".join(log) + "\n")):
                    (self.folder / "runs" / name).mkdir(parents=True)
                    (self.folder / "runs" / name / "log.jsonl").write_text(text)
                command = [PROGRAM, "report", str(self.folder / "runs"), "--out", str(self.folder / "page"), "--no-compression"]
                done = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("left out", done.stderr)
                self.assertIn(what, done.stderr)
                report = json.loads((self.folder / "page/report.json").read_text())
                self.assertEqual([one["label"] for one in report["rules"]], ["adamw"])

    def test_settings_in_effect_that_were_edited_are_found_anew(self):
        log = self.log_of("muon", 0.02, 1, [2, 1.5])
        header = json.loads(log.splitlines()[0])
        for effective in ({}, [1], {"rule": "muon"}, {"rule": "muon", "lr": "x"}, {"rule": "muon", "lr": 0.02, "data": 4},
                          {"rule": 3, "lr": 0.02}, {"rule": "muon", "lr": 0.02, "set": ["x"]}):
            with self.subTest(effective):
                r = self.report([json.dumps({**header, "effective": effective}) + "\n" + log.split("\n", 1)[1]])
                self.assertEqual([(one["label"], one["lr"]) for one in r["rules"]], [("muon", 0.02)])

    def test_a_rule_of_any_name_is_written_as_text(self):
        name = "<b>a|b's \"$&"
        log = self.log_of(name, 0.02, 1, [2, 1.5])
        self.report([log])
        self.assertIn("&lt;b&gt;a|b", (self.out / "report.html").read_text())
        self.assertNotIn("<b>a|b", (self.out / "report.html").read_text())
        self.assertIn("a\\|b", (self.out / "report.md").read_text())

    def test_names_of_any_bytes(self):
        out = os.fsencode(self.folder) + b"/runs\xff\xe4"
        subprocess.run([PROGRAM, *self.training("unused", iterations=3), "--force"], check=True, capture_output=True)
        os.rename(self.folder / "unused", out)
        subprocess.run([PROGRAM, "train", "--resume", out + b"/checkpoint.safetensors"], check=True, capture_output=True)
        subprocess.run([PROGRAM, "report", out, "--out", self.folder / "page", "--no-compression"], check=True, capture_output=True)
        self.assertIn("runs\ufffd\ufffd", (self.folder / "page/report.html").read_text(encoding="utf-8"))
        # The folder of temporary files, whose name goes into the plots' commands.
        (self.folder / "it's").mkdir()
        for folder, code in (("it's", 0), ("absent", FAILED)):
            text = run("report", os.fsdecode(out), "--out", self.folder / "page", "--no-compression", code=code, env={**os.environ, "TMPDIR": str(self.folder / folder)})
        self.assertIn("TMPDIR", text)

    def test_what_a_report_refuses(self):
        self.train("a", iterations=3)
        for command in (["report", self.folder / "a"], ["compare", "--data", self.text]):
            self.assertIn("--calibration is 0", run(*command, "--calibration", 0, "--out", self.folder / "report", code=FAILED))
            self.assertFalse((self.folder / "report").exists())
        self.assertIn("holds no run", run("report", self.text, "--out", self.folder / "report", code=FAILED))
        self.assertIn("no run that has ended", self.report([self.log_of("muon", 0.02, 1, [])], code=FAILED))


class Documentation(Runs):
    def test_the_commands_of_the_page_run(self):
        page = (pathlib.Path(__file__).parents[2] / "examples/small_gpt/README.md").read_text()
        shell, toml = (re.search(rf"```{kind}\n(.*?)```", page, re.S)[1] for kind in ("sh", "toml"))
        (self.folder / "kjv.txt").write_bytes(b"In the beginning\n" + self.text.read_bytes())
        (self.folder / "sweep.toml").write_text(toml.replace("iterations = 200\n", "iterations = 3\n" + Sweeps.SETTINGS))
        commands = [line for line in shell.splitlines() if line.startswith("small_gpt ")]
        self.assertGreater(len(commands), 10)
        for command in commands:
            with self.subTest(command):
                words = [word.replace("TEXT", "kjv.txt").replace("FILE", "small.safetensors").strip("[]")
                         for word in re.findall(r'"[^"]*"|\S+', command.split("  #")[0])[1:]]
                words = [{"1000": "10", "2000": "20"}.get(word, word).strip('"') for word in words]
                if words[0] == "compare" or words[:2] == ["train", "--data"]:
                    words += [*TINY, *([] if "--iterations" in words else ["--iterations", "10"])]
                if "--save" in words:  # of one of the fractions
                    words[words.index("--keep") + 1] = "0.8"
                run(*words, cwd=self.folder)
        self.assertGreater((self.folder / "report/report.html").stat().st_size, 10000)


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
