"""The program small_gpt from outside: runs, checkpoints, exact resumption, the report, bad input. What goes wrong around it, in
small_gpt_faults_test.py.

usage: small_gpt_test.py PROGRAM
"""
import json
import math
import signal
import struct
import subprocess
import unittest

from small_gpt_program import FAILED, PROGRAM, TINY, USAGE, Runs, run


class SmallGpt(Runs):
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
                out = rule + "-stopped"
                p = self.start(*self.training(out, "--rule", rule, iterations=200), steps=13)
                p.send_signal(signal.SIGINT)
                self.assertEqual(p.wait(60), 128 + signal.SIGINT)
                log = self.folder / out / "log.jsonl"
                done = log.read_text().count('"loss"')
                self.assertLess(done, 200, "the run ended before it was interrupted")
                run("train", "--resume", self.checkpoint(out))  # into its folder, without --out
                self.assertEqual(log.read_text().count('"loss"'), 200)
                self.assertEqual(self.checkpoint(rule).read_bytes(), self.checkpoint(out).read_bytes())

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

    @staticmethod
    def tensors(path):
        whole = path.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + length])
        header.pop("__metadata__")
        begin = {name: 8 + length + t["data_offsets"][0] for name, t in header.items()}
        return {name: (t["dtype"], t["shape"], whole[begin[name] : 8 + length + t["data_offsets"][1]]) for name, t in header.items()}

    def test_rows_in_fewer_bits(self):
        tensors = self.tensors

        def floats(data):
            return struct.unpack(f"<{len(data) // 4}f", data)

        self.train("a", "--rule", "muon")
        c = self.checkpoint("a")
        sizes = {}
        for bits in (32, 16, 8, 4):
            for keep in (1, 0.3):
                small = self.folder / f"small{bits},{keep}"
                rows = run("compress", c, "--keep", keep, "--bits", bits, "--calibration", 8, "--save", small).splitlines()
                row = rows[-1].split()
                # The loss is that of the file, and the size is that of the file.
                self.assertAlmostEqual(float(run("eval", small).split()[1]), float(row[3]), delta=1e-4)
                self.assertEqual(int(row[2]), small.stat().st_size)
                sizes[bits, keep] = int(row[2])
                if keep == 1:
                    self.assertEqual(rows[-2].split()[2:4], row[2:4])  # the model that is not cut is stored in these bits, too
        for keep in (1, 0.3):
            self.assertGreater(sizes[32, keep], sizes[16, keep])
            self.assertGreater(sizes[8, keep], sizes[4, keep])
        self.assertGreater(sizes[16, 1], sizes[8, 1])  # the scales of factors of rank 3 need more

        name = "model.layer0.mlp_in"
        dense = tensors(c)
        rows, cols = dense[name][1]
        w = floats(dense[name][2])
        for bits, largest in ((8, 127), (4, 7)):
            found = tensors(self.folder / f"small{bits},1")
            self.assertNotIn(name, found)
            for other in set(dense) & set(found):  # whatever is no hidden matrix stays as it is
                self.assertEqual(dense[other], found[other])
            kind, shape, data = found[name + ".q"]
            scales = floats(found[name + ".scale"][2])
            self.assertEqual((kind, shape), ("I8", [rows, cols]) if bits == 8 else ("U8", [rows, cols // 2]))
            for i in range(rows):
                row = w[i * cols : (i + 1) * cols]
                self.assertAlmostEqual(scales[i] * largest, max(map(abs, row)), delta=1e-6 * max(map(abs, row)))
                for j in range(cols):
                    at = i * cols + j
                    q = struct.unpack("b", data[at : at + 1])[0] if bits == 8 else (data[at // 2] >> 4 * (j % 2) & 15) - 8
                    self.assertLessEqual(abs(q), largest)
                    self.assertLessEqual(abs(q * scales[i] - row[j]), 0.5001 * scales[i])
        kind, shape, data = tensors(self.folder / "small16,1")[name]
        self.assertEqual((kind, shape), ("BF16", [rows, cols]))
        for x, (short,) in zip(w, struct.iter_unpack("<H", data)):
            self.assertLessEqual(abs(struct.unpack("<f", struct.pack("<I", short << 16))[0] - x), abs(x) / 2**8)
        for bits in (3, 0, 64):
            self.assertIn("one of 32, 16, 8, 4", run("compress", c, "--bits", bits, code=FAILED))

    def test_entropy_coded_files(self):
        self.train("a", "--rule", "muon", "--width", 64)
        c = self.checkpoint("a")
        for bits in (8, 4):
            for keep in (1, 0.3):
                with self.subTest(bits=bits, keep=keep):
                    plain, coded = self.folder / "plain", self.folder / "coded"
                    common = ("compress", c, "--keep", keep, "--bits", bits, "--calibration", 8, "--save")
                    rows = [run(*common, plain).splitlines(), run(*common, coded, "--entropy").splitlines()]
                    before, after = ([line.split() for line in table[1:]] for table in rows)
                    # The size is that of the file, the loss is that of the same numbers.
                    self.assertEqual(int(after[-1][2]), coded.stat().st_size)
                    self.assertLess(coded.stat().st_size, plain.stat().st_size)
                    for row, other in zip(before, after):
                        self.assertEqual(row[:2] + row[3:], other[:2] + other[3:])
                        self.assertLess(int(other[2]), int(row[2]))
                    self.assertEqual(run("eval", plain), run("eval", coded))
                    self.assertEqual(run("sample", plain, "--length", 20), run("sample", coded, "--length", 20))
                    found, uncoded = self.tensors(coded), self.tensors(plain)
                    packed = [name for name in found if name.endswith(".coded")]
                    self.assertTrue(packed)
                    self.assertEqual({name.removesuffix(".coded") for name in found}, set(uncoded))
                    for name in found:
                        if name not in packed:
                            self.assertEqual(found[name], uncoded[name])
                            continue
                        # No more than the entropy of its numbers, what the estimates of their frequencies cost, and its head.
                        data = uncoded[name.removesuffix(".coded")][2]
                        symbols = data if bits == 8 else bytes(half for b in data for half in (b & 15, b >> 4))
                        counts = [symbols.count(s) for s in set(symbols)]
                        entropy = -sum(n * math.log2(n / len(symbols)) for n in counts)
                        learning = len(counts) * 0.5 * math.log2(len(symbols))
                        self.assertLess(8 * len(found[name][2]), 1.002 * entropy + learning + 8 * 24)
                        self.assertGreater(8 * len(found[name][2]), 0.9 * entropy)
        for bits in (32, 16):
            error = run("compress", c, "--entropy", "--bits", bits, code=FAILED)
            self.assertIn("--entropy", error)
            self.assertIn("8 or 4", error)

    def test_damaged_entropy_coded_files(self):
        self.train("a", "--rule", "muon", "--width", 32, iterations=3)
        coded = self.folder / "coded"
        run("compress", self.checkpoint("a"), "--keep", 1, "--bits", 4, "--entropy", "--calibration", 8, "--save", coded)
        whole = coded.read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + length])
        name = next(name for name in header if name.endswith(".coded"))
        begin, end = (8 + length + at for at in header[name]["data_offsets"])

        def rewritten(change, without_sums=True):
            """The file with other bytes in place of the coded tensor's, as a program writes it that knows no checksums."""
            head = json.loads(whole[8 : 8 + length])
            if without_sums:
                for key in ("matopt.format_version", "matopt.crc32c"):
                    head["__metadata__"].pop(key)
            data = change(whole[begin:end])
            for other in head:
                if other != "__metadata__" and head[other]["data_offsets"][0] >= end - 8 - length:
                    head[other]["data_offsets"] = [at + len(data) - (end - begin) for at in head[other]["data_offsets"]]
            at = head[name]["data_offsets"][0]
            head[name].update(shape=[len(data)], data_offsets=[at, at + len(data)])
            text = json.dumps(head).encode()
            text += b" " * (-len(text) % 8)
            (self.folder / "broken").write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length : begin] + data + whole[end:])
            return self.folder / "broken"

        self.assertEqual(run("eval", rewritten(lambda data: data)), run("eval", coded))
        flipped = lambda at: lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for change, expected in ((lambda data: data[:-1], "cut off"), (lambda data: data[:20], "cut off"), (lambda data: data[:12], "cut off"),
                                 (lambda data: b"", "cut off"), (lambda data: data + b"x", "1 bytes too many"), (flipped(0), "5 bits; legal: 8 or 4"),
                                 (flipped(60), ""), (flipped(10), "checksum"), (lambda data: data[:1] + b"\xff" * 8 + data[9:], "cut off")):
            error = run("eval", rewritten(change), code=FAILED)
            self.assertIn(expected, error)
            self.assertIn(name, error)
        self.assertIn("is damaged", run("eval", rewritten(flipped(60), without_sums=False), code=FAILED))
        (self.folder / "short").write_bytes(whole[: len(whole) // 2])
        self.assertIn("cut off", run("eval", self.folder / "short", code=FAILED))

    def test_other_vocabularies_and_schedules(self):
        self.text.write_bytes(bytes(i * 37 % 256 for i in range(4000)))
        for schedule in ("cosine", "constant", "wsd"):
            self.train(schedule, "--vocabulary", "byte", "--schedule", schedule, "--clip", 1, iterations=3)
        self.train("c", "--vocabulary", "character", iterations=3)  # not UTF-8: bytes are characters
        run("eval", self.checkpoint("c"))

    def test_report(self):
        out = self.folder / "report"
        run("compare", "--data", self.text, "--out", out, "--rules", "adamw=0.006,numuown", "--iterations", 20, *TINY)
        page = (out / "report.html").read_text()
        self.assertGreaterEqual(page.count("<img"), 14)
        self.assertNotIn("http://", page.split("</table>")[0])
        self.assertNotIn("<script", page)
        report = json.loads((out / "report.json").read_text())
        self.assertEqual(sorted(r["rule"] for r in report["rules"]), ["adamw", "numuown"])
        losses = [r["validation"] for r in report["rules"]]
        self.assertEqual(losses, sorted(losses))
        for r in report["rules"]:
            self.assertEqual([c["keep"] for c in r["compressed"]], [0.8, 0.6, 0.4, 0.2])
            self.assertEqual(len(r["matrices"]), 8)
        self.assertIn("| numuown |", (out / "report.md").read_text())

        # Each run's own settings, as they were in effect; and what is not common to all is not among the common ones.
        adamw, numuown = (r["settings"] for r in sorted(report["rules"], key=lambda r: r["rule"]))
        self.assertEqual((adamw["rule"], adamw["lr"], adamw["other_lr"]), ("adamw", 0.006, 0.006))
        self.assertEqual((adamw["set"]["beta1"], adamw["set_other"]["beta2"]), ("0.9", "0.95"))
        self.assertEqual((numuown["rule"], numuown["lr"], numuown["other_lr"]), ("numuown", 0.005, 0.003))
        self.assertEqual((numuown["set"]["rank_hold"], numuown["set"]["rank_total"]), ("2", "16"))
        self.assertEqual(numuown["iterations"], 20)
        for own in ("rule", "lr", "other_lr", "set", "set_other"):
            self.assertNotIn(own, report["settings"])

    def test_compare_reports_a_rule_that_diverges_and_goes_on(self):
        out = self.folder / "report"
        run("compare", "--data", self.text, "--out", out, "--rules", "adamw=1000,muon", "--iterations", 20, *TINY)
        muon, adamw = json.loads((out / "report.json").read_text())["rules"]
        self.assertIn("nats per token", adamw["diverged"])
        self.assertIsNone(adamw["validation"])
        self.assertIsNone(muon["diverged"])
        self.assertEqual(len(muon["compressed"]), 4)
        self.assertRegex((out / "report.md").read_text(), r"\| adamw \| 1000 \| diverged at step \d+ \|")
        self.assertIn("diverged at step", (out / "report.html").read_text())
        self.assertFalse(self.checkpoint("report/adamw").exists())
        out = self.folder / "nothing"
        run("compare", "--data", self.text, "--out", out, "--rules", "adamw=1000", "--iterations", 20, *TINY, code=3)
        self.assertIn("diverged", (out / "report.html").read_text())

    def test_damaged_and_foreign_checkpoints(self):
        self.train("a", iterations=10)
        c = self.checkpoint("a")
        whole = c.read_bytes()
        for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
            bad = self.folder / "bad"
            bad.write_bytes(whole[:cut])
            for command in (["eval", bad], ["train", "--resume", bad, "--out", self.folder / "r"]):
                self.assertIn("bad", run(*command, code=FAILED))

        def settings(**changes):
            def change(metadata):
                stored = json.loads(metadata["small_gpt.settings"])
                stored.update(changes)
                metadata["small_gpt.settings"] = json.dumps(stored)

            return self.edited(c, change)

        self.assertIn("another model", run("eval", settings(width=32), code=FAILED))
        damaged = self.edited(c, lambda m: m.update({"small_gpt.settings": "{}"}), keep_checksums=True)
        self.assertIn('metadata "small_gpt.settings" is damaged', run("eval", damaged, code=FAILED))
        damaged = self.edited(c, lambda m: m.update({"small_gpt.settings": "{}"}), keep_checksums=True)
        self.assertIn('metadata "small_gpt.settings" is damaged', run("eval", damaged, code=FAILED))
        self.assertIn("no checkpoint of small_gpt", run("eval", self.edited(c, dict.clear), code=FAILED))
        for name, value in (("layers", 2.5), ("layers", 2**40), ("layers", 10**9), ("heads", -2), ("seed", -1), ("seed", 1.5), ("lr", "0.02"),
                            ("lr", 1e300), ("set", "momentum=0.9"), ("data", 7), ("format_version", 2), ("batch", None)):
            with self.subTest(name=name, value=value):
                self.assertIn(name, run("eval", settings(**{name: value}), code=FAILED))

    def test_a_run_goes_on_only_as_what_it_was(self):
        self.train("a", iterations=24)
        c = self.checkpoint("a")

        def settings(**changes):
            def change(metadata):
                stored = json.loads(metadata["small_gpt.settings"])
                stored.update(changes)
                metadata["small_gpt.settings"] = json.dumps(stored)

            return change

        def position(**changes):
            def change(metadata):
                metadata["small_gpt.position"] = json.dumps({**json.loads(metadata["small_gpt.position"]), **changes})

            return change

        def entry(name, value):
            return lambda metadata: metadata.update({name: value})

        for change, expected in (
            (settings(seed=5), "seed: file 1, here 5"),
            (settings(lr=0.03), "lr: file 0.02, here 0.03"),
            (settings(other_lr=0.1), "other_lr: file 0.003, here 0.1"),
            (settings(iterations=48), "iterations: file 24, here 48"),
            (settings(batch=4), "batch: file 8, here 4"),
            (settings(schedule="cosine"), "schedule"),
            (settings(rule="torch_muon"), 'rule: file "muon", here "torch_muon"'),
            (settings(rule="muown"), 'rule: file "muon", here "muown"'),
            (settings(set=["momentum=0.9"]), 'set.momentum: file "0.95", here "0.9"'),
            (settings(set_other=["beta1=0.8"]), 'set_other.beta1: file "0.9", here "0.8"'),
            (position(step=5), "small_gpt.position says 5, optimizer.steps 24"),
            (position(step=-3), "step in small_gpt.position is -3"),
            (position(step=2**40), f"step in small_gpt.position is {2**40}"),
            (position(step="2p"), "small_gpt.position"),
            (position(step=2.5), "small_gpt.position"),
            (position(mean=None), "small_gpt.position"),
            (entry("small_gpt.position", "2p"), "small_gpt.position"),
            (entry("optimizer.steps", "2p"), "optimizer.steps"),
            (entry("optimizer.steps", "-3"), "optimizer.steps"),
            (entry("optimizer.steps", "5"), "optimizer.steps"),
            (entry("small_gpt.format_version", "2"), "small_gpt.format_version is 2; this program reads 1"),
            (entry("format_version", "2"), "format_version is 2"),
            (entry("small_gpt.effective", "[]"), "small_gpt.effective"),
            (entry("small_gpt.text", "another"), "not the text that the model learned from"),
            (entry("small_gpt.vocabulary", "0g"), "hexadecimal"),
        ):
            with self.subTest(expected):
                error = run("train", "--resume", self.edited(c, change), "--out", self.folder / "r", code=FAILED)
                self.assertIn(expected, error)
                self.assertFalse((self.folder / "r").exists())

        def swapped(metadata):  # the first two symbols
            a, b, *others = metadata["small_gpt.vocabulary"].split()
            metadata["small_gpt.vocabulary"] = " ".join([b, a, *others])

        self.assertIn("small_gpt.vocabulary", run("train", "--resume", self.edited(c, swapped), "--out", self.folder / "r", code=FAILED))

        def of_an_earlier_version(metadata):
            for name in ("small_gpt.format_version", "small_gpt.effective", "small_gpt.text"):
                del metadata[name]

        run("train", "--resume", self.edited(c, of_an_earlier_version), "--out", self.folder / "r")

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
            (["--lr", "-1"], "--lr"),
            (["--lr", "1e300"], "--lr is 1e+300; legal: [0, 2.02"),
            (["--lr", "1e39"], "--lr"),
            (["--lr", "1e-60"], "--lr is 1e-60"),
            (["--other-lr", "1e39"], "--other-lr"),
            (["--layers", str(10**9)], "--layers 1000000000"),
            (["--width", str(2**31 - 8)], "--width 2147483640"),
            (["--context", str(10**9)], "--context 1000000000"),
            (["--batch", str(2**31 - 1)], "--batch 2147483647"),
            (["--shards", "100000"], "--shards is 100000"),
            (["--warmup", "-2"], "--warmup"),
            (["--clip", "inf"], "--clip"),
            (["--clip", "1e-60"], "--clip is 1e-60"),
            (["--set", "momentum=0.9", "--set", "momentum=0.8"], "each setting once"),
            (["--set-other", "beta1=0.9", "--set-other", "beta1=0.8"], "each setting once"),
            (["--train-fraction", "1"], "--train-fraction is 1"),
            (["--data", str(self.folder / "absent")], "absent"),
            (["--data", str(empty)], "empty"),
            (["--data", str(short)], "9 tokens"),
        ):
            with self.subTest(args):
                self.assertIn(expected, self.train("x", *args, code=FAILED))
                self.assertFalse((self.folder / "x").exists())
        for args in (["--layers", "1e9"], ["--seed", "-1"], ["--iterations", "2.5"], ["--batch", "99999999999"], ["--heads", "two"],
                     ["--lr", ""], ["--lr", "0x10"], ["--lr", "1,5"], ["--iterations", ""], ["--iterations", "020"], ["--iterations", "-"], ["--iterations", "1e3"],
                     ["--seed", ""], ["--seed", str(2**64)], ["--clip", "1 "], ["--eval-windows", "2147483648"]):
            with self.subTest(args):
                self.assertIn(args[0], self.train("x", *args, code=USAGE))
        self.assertIn("--data", run("train", code=FAILED))
        self.train("a", iterations=10)
        c = self.checkpoint("a")
        self.assertIn("cannot be changed on --resume", run("train", "--resume", c, "--lr", 1, code=FAILED))
        self.assertIn("one of svd, asvd, whitened", run("compress", c, "--method", "magic", code=FAILED))
        self.assertIn("(0, 1]", run("compress", c, "--keep", 1.5, code=FAILED))
        self.assertIn("temperature", run("sample", c, "--temperature", -1, code=FAILED))
        self.assertIn("vocabulary", run("sample", c, "--prompt", "ΩΩ", code=FAILED))
        self.assertIn('nearest: "numuon"', run("compare", "--data", self.text, "--rules", "muon,numoun", "--out", self.folder / "x", code=FAILED))
        self.assertIn("threads", run("--threads", -1, "eval", c, code=FAILED))
        self.assertIn("--calibration", run("compress", c, "--calibration", 2**31 - 1, code=FAILED))
        self.assertIn("--eval-windows", run("eval", c, "--eval-windows", -3, code=FAILED))
        self.assertIn("--length", run("sample", c, "--length", -1, code=FAILED))
        for rules, expected in (("muon,muon", "each rule once"), ("muon=fast", "rate of muon"), ("muon=1e39", "--lr")):
            self.assertIn(expected, run("compare", "--data", self.text, "--rules", rules, "--out", self.folder / "x", code=FAILED))
        self.assertFalse((self.folder / "x").exists())
        for args in (["--length", ""], ["--temperature", ""], ["--top-k", "07"]):
            self.assertIn(args[0], run("sample", c, *args, code=USAGE))
        self.assertIn("--keep", run("compress", c, "--keep", "0.5,x", code=USAGE))
        for text in ("{},,{}", ",{}", "{},", ",", ""):
            for option, entry, legal, command in (
                ("--tokens", 1, "whole numbers", ["logits", c, "--out", self.folder / "x"]), ("--keep", 0.5, "numbers", ["compress", c]),
                ("--keep", 0.5, "numbers", ["report", self.folder / "a", "--out", self.folder / "x"]),
                ("--bits", 8, "whole numbers", ["report", self.folder / "a", "--out", self.folder / "x"]),
                ("--keep", 0.5, "numbers", ["compare", "--data", self.text, "--out", self.folder / "x"]),
                ("--rules", "muon", "names", ["compare", "--data", self.text, "--out", self.folder / "x"])):
                given = text.format(entry, entry)
                with self.subTest(command=command[0], option=option, given=given):
                    error = run(*command, option, given, code=USAGE)
                    self.assertIn(f'{option}: "{given}" has an empty entry; legal: {legal} with a comma' if given else f'{option}: "" is empty', error)
        self.assertFalse((self.folder / "x").exists())
        self.assertIn("--eval-windows", run("eval", c, "--eval-windows", -1, code=FAILED))
        self.assertIn("--data", run("compare", code=USAGE))
        self.assertIn("frobnicate", run("frobnicate", code=USAGE))
        self.assertIn("command", run(code=USAGE))

    def test_what_has_no_effect_is_said(self):
        def notes(*args):
            return [line for line in subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, check=True).stderr.splitlines() if "note" in line]

        self.assertEqual(notes(*self.training("a", "--schedule", "cosine", "--lr-floor", 0.1, "--vocabulary", "pairs", "--vocabulary-size", 300, iterations=10)), [])
        c = self.checkpoint("a")
        for args, expected in ((["--decay-fraction", 0.2, "--schedule", "cosine"], "--decay-fraction has no effect with --schedule cosine"),
                               (["--lr-floor", 0.2, "--schedule", "constant"], "--lr-floor has no effect with --schedule constant"),
                               (["--vocabulary-size", 300, "--vocabulary", "byte"], "--vocabulary-size has no effect with --vocabulary byte"),
                               (["--micro-batch", 2], "--micro-batch has no effect with --device cpu")):
            with self.subTest(args):
                self.assertEqual(notes(*self.training(args[0][2:], *args, iterations=3)), ["note: " + expected])
                compared = notes("compare", "--data", self.text, "--out", self.folder / ("c" + args[0]), "--rules", "adamw,muon", "--iterations", 3, *TINY, *args)
                self.assertEqual(compared, ["note: " + expected])
                settings = "".join(f"{name[2:]} = {json.dumps(value)}\n" for name, value in zip(args[::2], args[1::2]))
                (self.folder / "sweep.toml").write_text(f'out = "runs"\nseeds = [1, 2]\n[settings]\ndata = "{self.text}"\n{settings}[[rules]]\nname = "muon"')
                self.assertEqual(notes("sweep", self.folder / "sweep.toml", "--dry-run"), ["note: " + expected])
        branched = notes("train", "--branch", c, "--out", self.folder / "b", "--iterations", 12, "--warmup", 5)
        self.assertEqual(branched, ["note: --warmup has no effect: the checkpoint is of step 10, after its end"])
        self.assertEqual(notes("sample", c, "--length", 1, "--temperature", 0, "--top-k", 2), ["note: --top-k has no effect with --temperature 0"])
        self.assertEqual(notes("compress", c, "--method", "svd", "--calibration", 2), ["note: --calibration has no effect with --method svd"])
        for more in (["--keep", 0.5], ["--bits", 8], ["--entropy"], ["--calibration", 8], ["--data", self.text]):
            self.assertIn(more[0], run("report", self.folder / "a", "--out", self.folder / "r", "--no-compression", *more, code=USAGE))
        self.assertIn("--train-fraction", run("tokenize", "--data", self.text, "--validation", self.text, "--out", self.folder / "t", "--train-fraction", 0.5, code=USAGE))
        run("tokenize", "--data", self.text, "--out", self.folder / "t", "--vocabulary-size", 300)
        self.assertEqual(notes(*self.training("f", "--data", self.folder / "t", "--train-fraction", 0.5, iterations=3)),
                         ["note: --train-fraction has no effect with a folder of tokens, whose *val*.bin validate"])

    def test_options_of_every_command(self):
        self.assertRegex(run("--version"), r"^small_gpt of matopt \d+\.\d+\.\d+\n$")
        self.train("a", "--threads", 1, "--seed", 2**64 - 1, iterations=10)
        self.assertEqual(self.log("a")[0]["threads"], 1)
        self.assertEqual(self.log("a")[0]["settings"]["seed"], 2**64 - 1)
        c = self.checkpoint("a")
        run("train", "--resume", c, "--threads", 1)
        run("eval", c, "--threads", 1)
        self.assertEqual(run("rules", "--threads", 1), run("rules"))

    def test_a_compressed_model_is_no_training(self):
        self.train("a", iterations=10)
        run("compress", self.checkpoint("a"), "--keep", 0.5, "--save", self.folder / "small", "--calibration", 8)
        for how in ("--resume", "--branch"):
            self.assertIn("no training to go on with", run("train", how, self.folder / "small", "--out", self.folder / "b", code=FAILED))
        self.assertFalse((self.folder / "b").exists())


if __name__ == "__main__":
    unittest.main(verbosity=1)
