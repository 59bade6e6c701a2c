"""The program small_gpt from outside: runs, checkpoints, exact resumption, interruption, damaged files, bad input, the report.

usage: small_gpt_test.py PROGRAM
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = sys.argv.pop(1)
TINY = "--layers 2 --heads 2 --width 16 --context 16 --batch 8 --eval-interval 10 --eval-windows 20 --checkpoint-interval 10".split()


def run(*args, ok=True, **kwargs):
    """Runs the program; returns stdout, or stderr if it has to fail."""
    r = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=300, **kwargs)
    if ok != (r.returncode == 0):
        raise AssertionError(f"{args}: exit {r.returncode}\n{r.stdout}\n{r.stderr}")
    return r.stdout if ok else r.stderr


class SmallGpt(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.text = self.folder / "text"
        words = ["the", "little", "matrix", "turned", "and", "saw", "its", "own", "rows", "naïve", "—"]
        state, out = 7, []
        for i in range(6000):
            state = (state * 1103515245 + 12345) % 2**31
            out.append(words[state // 65536 % len(words)])
            out.append("\n" if i % 11 == 10 else " ")
        self.text.write_text("".join(out), encoding="utf-8")

    def train(self, out, *args, iterations=30, **kwargs):
        return run("train", "--data", self.text, "--out", self.folder / out, "--iterations", iterations, *TINY, *args, **kwargs)

    def checkpoint(self, out):
        return self.folder / out / "checkpoint.safetensors"

    def test_log_table_and_progress(self):
        text = self.train("a", "--rule", "muon", "--set", "momentum=0.9")
        self.assertRegex(text, r"layer0\.qkv\s+hidden\s+48x16\s+lr 0\.02\s+decay rule\s+rule<nesterov_ema,newton_schulz")
        self.assertRegex(text, r"adam_direction")
        self.assertRegex(text, r"optimizer memory: state \d+ bytes")
        lines = [json.loads(line) for line in (self.folder / "a/log.jsonl").read_text().splitlines()]
        settings = lines[0]["settings"]
        self.assertEqual(settings["set"], ["momentum=0.9"])
        self.assertEqual(settings["lr"], 0.02)
        steps = [line for line in lines if "loss" in line]
        self.assertEqual([line["step"] for line in steps], list(range(1, 31)))
        for key in ("smoothed", "lr", "tokens_per_second", "optimizer_share"):
            self.assertIn(key, steps[0])
        validation = [line["validation"] for line in lines if "validation" in line]
        self.assertEqual(len(validation), 3)
        self.assertLess(validation[-1], validation[0])

    def test_resume_is_exact(self):
        for rule in ("muon", "numuon", "muown", "adamw"):
            with self.subTest(rule):
                self.train(rule, "--rule", rule, iterations=200)
                out = self.folder / (rule + "-stopped")
                p = subprocess.Popen([PROGRAM, "train", "--data", str(self.text), "--out", str(out), "--iterations", "200", *TINY, "--rule", rule],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                log = out / "log.jsonl"
                while not log.exists() or log.read_text().count('"loss"') < 13:
                    time.sleep(0.002)
                p.send_signal(signal.SIGINT)
                self.assertEqual(p.wait(60), 0)
                done = log.read_text().count('"loss"')
                self.assertLess(done, 200, "the run ended before it was interrupted")
                run("train", "--resume", self.checkpoint(rule + "-stopped"), "--out", out)
                self.assertEqual(log.read_text().count('"loss"'), 200)
                self.assertEqual(self.checkpoint(rule).read_bytes(), self.checkpoint(rule + "-stopped").read_bytes())

    def test_threads_do_not_change_the_result(self):
        for threads in (1, 2, 3):
            run("--threads", threads, "train", "--data", self.text, "--out", self.folder / f"t{threads}", "--iterations", 12, *TINY)
        self.assertEqual(self.checkpoint("t1").read_bytes(), self.checkpoint("t2").read_bytes())
        self.assertEqual(self.checkpoint("t1").read_bytes(), self.checkpoint("t3").read_bytes())

    def test_what_a_checkpoint_is_good_for(self):
        self.train("a", "--arch", "nanogpt", "--rule", "muon")
        c = self.checkpoint("a")
        loss = float(run("eval", c).split()[1])
        last = [json.loads(line) for line in (self.folder / "a/log.jsonl").read_text().splitlines() if "validation" in line][-1]
        self.assertAlmostEqual(loss, last["validation"], places=5)
        a = run("sample", c, "--prompt", "the naïve ", "--length", 40, "--seed", 3)
        self.assertEqual(a, run("sample", c, "--prompt", "the naïve ", "--length", 40, "--seed", 3))
        self.assertNotEqual(a, run("sample", c, "--prompt", "the naïve ", "--length", 40, "--seed", 4))
        self.assertTrue(a.startswith("the naïve "))
        self.assertIn("layer1.mlp_out", run("inspect", c))

        rows = [line.split() for line in run("compress", c, "--keep", "0.9,0.5,0.2", "--calibration", 32).splitlines()[1:]]
        self.assertEqual([r[0] for r in rows], ["dense", "0.9", "0.5", "0.2"])
        self.assertEqual(sorted((int(r[2]) for r in rows), reverse=True), [int(r[2]) for r in rows])
        small = self.folder / "small"
        for method in ("whitened", "svd", "asvd"):
            row = run("compress", c, "--keep", 0.5, "--method", method, "--save", small).splitlines()[-1].split()
            self.assertAlmostEqual(float(run("eval", small).split()[1]), float(row[3]), places=3)
            self.assertLess(small.stat().st_size, c.stat().st_size)

    def test_other_vocabularies_and_schedules(self):
        self.text.write_bytes(bytes(i * 37 % 256 for i in range(4000)))
        for schedule in ("cosine", "constant", "wsd"):
            self.train("b", "--vocabulary", "byte", "--schedule", schedule, "--clip", 1, iterations=3)
        self.train("c", "--vocabulary", "character", iterations=3)  # not UTF-8: bytes are characters
        run("eval", self.checkpoint("c"))

    def test_report(self):
        out = self.folder / "report"
        run("compare", "--data", self.text, "--out", out, "--rules", "adamw,numuown", "--iterations", 20, *TINY)
        page = (out / "report.html").read_text()
        self.assertEqual(page.count("<img"), 4)
        self.assertNotIn("http://", page.split("</table>")[0])
        self.assertNotIn("<script", page)
        report = json.loads((out / "report.json").read_text())
        self.assertEqual([r["rule"] for r in report["rules"]], ["adamw", "numuown"])
        for r in report["rules"]:
            self.assertEqual([c["keep"] for c in r["compressed"]], [0.8, 0.6, 0.4, 0.2])
            self.assertEqual(len(r["matrices"]), 8)
        self.assertIn("| numuown |", (out / "report.md").read_text())

    def test_full_disk_and_unwritable_folders(self):
        self.train("a", iterations=20)
        before = self.checkpoint("a").read_bytes()

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))

        error = self.train("a", iterations=40, ok=False, preexec_fn=small_files)
        self.assertIn("checkpoint.safetensors", error)
        self.assertEqual(before, self.checkpoint("a").read_bytes())
        self.assertEqual(sorted(os.listdir(self.folder / "a")), ["checkpoint.safetensors", "log.jsonl"])
        (self.folder / "file").write_text("")
        self.assertIn("file", self.train("file/below", ok=False))

    def test_damaged_and_foreign_checkpoints(self):
        self.train("a", iterations=10)
        c = self.checkpoint("a")
        whole = c.read_bytes()
        for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
            bad = self.folder / "bad"
            bad.write_bytes(whole[:cut])
            for command in (["eval", bad], ["train", "--resume", bad, "--out", self.folder / "r"]):
                self.assertIn("bad", run(*command, ok=False))

        def edited(change, keep_checksums=False):
            length = struct.unpack("<Q", whole[:8])[0]
            header = json.loads(whole[8 : 8 + length])
            change(header)
            if not keep_checksums:  # as a program writes it that knows nothing of them
                for key in ("matopt.format_version", "matopt.crc32c"):
                    header.get("__metadata__", {}).pop(key, None)
            text = json.dumps(header).encode()
            bad.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
            return bad

        def wider(header):
            s = json.loads(header["__metadata__"]["small_gpt.settings"])
            s["width"] = 32
            header["__metadata__"]["small_gpt.settings"] = json.dumps(s)

        def other_rule(header):
            s = json.loads(header["__metadata__"]["small_gpt.settings"])
            s["rule"] = "muown"
            header["__metadata__"]["small_gpt.settings"] = json.dumps(s)

        self.assertIn('metadata "small_gpt.settings" is damaged', run("eval", edited(wider, keep_checksums=True), ok=False))
        self.assertIn("another model", run("eval", edited(wider), ok=False))
        error = run("train", "--resume", edited(other_rule), "--out", self.folder / "r", ok=False)
        self.assertIn("rule: file rule<nesterov_ema", error)
        self.assertIn("no checkpoint of small_gpt", run("eval", edited(lambda h: h.pop("__metadata__")), ok=False))

    def test_bad_input(self):
        empty = self.folder / "empty"
        empty.write_text("")
        short = self.folder / "short"
        short.write_text("too short")
        for args, expected in (
            (["--rule", "moun"], 'nearest: "muon"'),
            (["--set", "momentun=0.9"], 'nearest: "momentum"'),
            (["--set", "momentum=1"], "momentum is 1; legal: [0, 1)"),
            (["--set", "momentum"], "key=value"),
            (["--rule", "numuon", "--set", "rank_end=0"], "rank_end is 0; legal: (0, 1]"),
            (["--rule", "numuon", "--set", "rank_start=1.5"], "rank_start is 1.5; legal: (0, 1]"),
            (["--arch", "gpt5"], "one of nanogpt, modern"),
            (["--vocabulary", "word"], "one of character, byte"),
            (["--schedule", "linear"], "one of wsd, cosine, constant"),
            (["--heads", "3"], "multiple of heads"),
            (["--width", "0"], "width"),
            (["--batch", "0"], "--batch is 0; legal: >= 1"),
            (["--iterations", "-4"], "--iterations is -4; legal: >= 1"),
            (["--lr", "nan"], "--lr"),
            (["--train-fraction", "1"], "train_fraction"),
            (["--data", str(self.folder / "absent")], "absent"),
            (["--data", str(empty)], "empty"),
            (["--data", str(short)], "9 tokens"),
        ):
            with self.subTest(args):
                data = [] if "--data" in args else ["--data", self.text]
                tiny = dict(zip(TINY[::2], TINY[1::2]))
                tiny.pop(args[0], None)
                tiny = [word for pair in tiny.items() for word in pair]
                error = run("train", *data, "--out", self.folder / "x", *tiny, *args, ok=False)
                self.assertIn(expected, error)
        self.assertIn("--data", run("train", ok=False))
        self.train("a", iterations=10)
        c = self.checkpoint("a")
        self.assertIn("cannot be changed on --resume", run("train", "--resume", c, "--lr", 1, ok=False))
        self.assertIn("one of svd, asvd, whitened", run("compress", c, "--method", "magic", ok=False))
        self.assertIn("(0, 1]", run("compress", c, "--keep", 1.5, ok=False))
        self.assertIn("temperature", run("sample", c, "--temperature", -1, ok=False))
        self.assertIn("vocabulary", run("sample", c, "--prompt", "ΩΩ", ok=False))
        self.assertIn('nearest: "numuon"', run("compare", "--data", self.text, "--rules", "muon,numoun", "--out", self.folder / "x", ok=False))
        self.assertIn("threads", run("--threads", -1, "eval", c, ok=False))
        run("frobnicate", ok=False)


if __name__ == "__main__":
    unittest.main(verbosity=1)
