"""The program small_gpt when something around it goes wrong: signals, divergence, folders in use, files that are none, full disks.

usage: small_gpt_faults_test.py PROGRAM
"""
import json
import os
import resource
import shlex
import signal
import subprocess
import time
import unittest

from small_gpt_program import DIVERGED, FAILED, PROGRAM, TINY, Runs, run


class Signals(Runs):
    def test_a_signal_saves_and_stops(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            with self.subTest(number.name):
                p = self.start(*self.training(number.name, "--checkpoint-interval", 10**6, iterations=10**6), steps=3)
                p.send_signal(number)
                out, _ = p.communicate(timeout=60)
                self.assertEqual(p.returncode, 128 + number)
                self.assertIn(f"stopped by {number.name} at step", out)
                self.assertIn("--resume", out)
                step = json.loads(self.metadata(self.checkpoint(number.name))["small_gpt.position"])["step"]
                log = self.log(number.name)
                self.assertEqual(log[-1], {"step": step, "stopped": number.name})
                self.assertEqual(log[-2]["step"], step)

    def test_a_second_signal_ends_at_once(self):
        # Its steps take seconds, so that the second signal comes before the first one is heeded.
        slow = ["--batch", 4096, "--context", 64, "--width", 128, "--layers", 4, "--rule", "adamw"]
        p = self.start(*self.training("slow", *slow, iterations=10**6))
        time.sleep(0.5)
        p.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        begin = time.monotonic()
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, -signal.SIGINT)
        self.assertLess(time.monotonic() - begin, 1)

    def test_a_signal_that_was_ignored_stays_so(self):
        p = self.start(*self.training("a", iterations=10**6), steps=3, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        p.send_signal(signal.SIGHUP)
        log = self.folder / "a/log.jsonl"
        before = log.read_text().count('"loss"')
        while log.read_text().count('"loss"') < before + 5:
            time.sleep(0.002)
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 128 + signal.SIGTERM)

    def test_nothing_is_said_of_a_validation_that_was_not_made(self):
        p = self.start(*self.training("a", "--eval-interval", 10**6, iterations=10**6), steps=3)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=60)
        self.assertIn("nothing was evaluated", out)
        self.assertNotIn("nats", out)
        p = self.start(*self.training("b", iterations=10**6), steps=13)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=60)
        self.assertRegex(out, r"stopped by SIGINT at step \d+ of 1000000: validation \d+\.\d+ nats per token, [\d.]+ bits per byte( at step \d+0)?;")

    def test_other_commands_stop_at_the_first_signal(self):
        self.train("a", iterations=3)
        for number in (signal.SIGINT, signal.SIGTERM):
            p = subprocess.Popen([PROGRAM, "sample", str(self.checkpoint("a")), "--length", "100000000"], stdout=subprocess.PIPE)
            self.addCleanup(lambda p=p: (p.kill(), p.communicate()))
            p.stdout.read(20)
            p.send_signal(number)
            self.assertEqual(p.wait(10), -number)

    def test_a_comparison_stops_too(self):
        out = self.folder / "report"
        p = subprocess.Popen([PROGRAM, "compare", "--data", str(self.text), "--out", str(out), "--rules", "adamw,muon", "--iterations", "1000000", *TINY],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        log = out / "adamw/log.jsonl"
        while not log.exists() or log.read_text().count('"loss"') < 3:
            time.sleep(0.002)
        p.send_signal(signal.SIGTERM)
        text, _ = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 128 + signal.SIGTERM)
        self.assertIn("stopped by SIGTERM during adamw", text)
        self.assertTrue(self.checkpoint("report/adamw").exists())

    def test_a_reader_that_goes_away_ends_no_training(self):
        p = subprocess.Popen([PROGRAM, *self.training("a", "--eval-interval", 1)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.close()
        p.stderr.close()
        self.assertEqual(p.wait(60), FAILED)  # its output could not be written
        self.assertEqual(json.loads(self.metadata(self.checkpoint("a"))["small_gpt.position"])["step"], 30)


class Divergence(Runs):
    def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(self):
        self.train("a")
        good = self.checkpoint("a").read_bytes()
        for lr in (10, 1000, 1e20, 2e31):
            for interval in (1, 10, 1000):
                with self.subTest(lr=lr, interval=interval):
                    error = self.train("a", "--force", "--rule", "adamw", "--lr", lr, "--checkpoint-interval", interval, code=DIVERGED)
                    self.assertIn("the training diverged", error)
                    self.assertIn("is as it was before", error)
                    self.assertEqual(self.checkpoint("a").read_bytes(), good)
                    self.assertIn("diverged", self.log("a")[-1])
        # The same where the last step is the one that diverges, and nothing comes after it.
        self.train("a", "--force", "--rule", "adamw", "--lr", 1e30, iterations=1, code=DIVERGED)
        self.assertEqual(self.checkpoint("a").read_bytes(), good)
        run("eval", self.checkpoint("a"))

    def test_a_rate_that_the_optimizer_refuses_is_divergence(self):
        error = self.train("a", "--rule", "moonlight", "--lr", 60, code=DIVERGED)  # decay 0.1
        self.assertIn("the training diverged: matopt: lr times decay of", error)
        self.assertIn("at most 2", self.log("a")[-1]["diverged"])

    def test_what_was_good_of_it_is_kept(self):
        # The rate rises over 1000 steps, to a height where this model is lost.
        error = self.train("a", "--rule", "adamw", "--lr", 100, "--warmup", 1000, "--checkpoint-interval", 1, iterations=1000, code=DIVERGED)
        self.assertRegex(error, r"holds step \d+, the last good checkpoint")
        loss = float(run("eval", self.checkpoint("a")).split()[1])
        self.assertLess(loss, 10)
        self.assertIn("no checkpoint was written", self.train("b", "--rule", "adamw", "--lr", 1000, code=DIVERGED))
        self.assertFalse(self.checkpoint("b").exists())

    def test_a_checkpoint_that_is_not_finite_is_not_evaluated(self):
        self.train("a", iterations=3)
        whole = bytearray(self.checkpoint("a").read_bytes())
        length = int.from_bytes(whole[:8], "little")
        first = 8 + length + json.loads(whole[8 : 8 + length])["model.head"]["data_offsets"][0]
        whole[first : first + 4] = b"\x00\x00\xc0\x7f"
        bad = self.folder / "bad"
        bad.write_bytes(whole)
        self.assertNotEqual(subprocess.run([PROGRAM, "eval", bad], capture_output=True).returncode, 0)


class Files(Runs):
    def test_commands_that_are_shown_can_be_copied(self):
        name = "it's a run"
        p = self.start(*self.training(name, iterations=10**6), steps=3)
        p.send_signal(signal.SIGINT)
        stopped, _ = p.communicate(timeout=60)
        refused = self.train(name, code=FAILED)
        for shown in (stopped[stopped.index("to continue: ") + 13:], refused[refused.index("`") + 1:refused.rindex("`")]):
            self.assertEqual(shlex.split(shown), ["small_gpt", "train", "--resume", str(self.checkpoint(name))])

    def test_empty_names_are_refused(self):
        self.train("a")
        c = self.checkpoint("a")
        for command in (["eval", c, "--data"], ["compress", c, "--keep", 0.5, "--save"], ["compress", c, "--data"],
                        ["report", self.folder / "a", "--out"], ["report", self.folder / "a", "--data"],
                        ["train", "--resume"], ["train", "--branch"], ["train", "--data"], ["train", "--resume", c, "--data"],
                        ["tokenize", "--data", self.text, "--out", self.folder / "t", "--validation"]):
            with self.subTest(command[-1], command=command[0]):
                self.assertIn(f'{command[-1]} is ""', run(*command, "", code=FAILED))

    def test_one_folder_holds_one_run(self):
        self.train("a")
        log, checkpoint = self.log("a"), self.checkpoint("a").read_bytes()
        for args in ([], ["--lr", 0.1]):
            error = self.train("a", *args, code=FAILED)
            self.assertIn("--force", error)
            self.assertIn("--resume " + str(self.checkpoint("a")), error)
        self.train("b", iterations=20)
        self.assertIn("--force", run("train", "--resume", self.checkpoint("b"), "--out", self.folder / "a", code=FAILED))
        self.assertEqual((log, checkpoint), (self.log("a"), self.checkpoint("a").read_bytes()))
        # A wrong argument beside --force costs nothing.
        self.train("a", "--force", "--data", self.folder / "absent", code=FAILED)
        self.train("a", "--force", "--width", 17, code=FAILED)
        self.assertEqual((log, checkpoint), (self.log("a"), self.checkpoint("a").read_bytes()))
        self.train("a", "--force", "--lr", 0.1, iterations=10)
        self.assertEqual([line["step"] for line in self.log("a") if "loss" in line], list(range(1, 11)))
        run("train", "--resume", self.checkpoint("b"), "--out", self.folder / "a", "--force")
        self.assertEqual(self.checkpoint("b").read_bytes(), self.checkpoint("a").read_bytes())

        self.checkpoint("b").unlink()  # a log alone is a run, too
        self.assertIn("--force", self.train("b", code=FAILED))

        compare = ["compare", "--data", self.text, "--out", self.folder / "report", "--iterations", 3, *TINY, "--rules", "adamw,muon"]
        run(*compare)
        self.assertIn("--force", run(*compare, code=FAILED))
        run(*compare, "--force")
        for name in ("html", "json", "md"):
            (self.folder / "report" / f"report.{name}").unlink()
        self.checkpoint("report/adamw").unlink()
        (self.folder / "report/adamw/log.jsonl").unlink()
        self.assertIn("report/muon", run(*compare, code=FAILED))  # the second rule's, before the first one trains
        self.assertFalse(self.checkpoint("report/adamw").exists())

    def test_one_process_at_a_time_writes_into_a_run(self):
        p = self.start(*self.training("a", iterations=10**6), steps=13)
        for args in (["--force"], []):
            self.assertRegex(self.train("a", *args, code=FAILED), "another process is writing|--force")
        error = run("train", "--resume", self.checkpoint("a"), code=FAILED)
        self.assertIn("another process is writing into", error)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        p = self.start("train", "--resume", self.checkpoint("a"), "--out", self.folder / "a")  # the lock died with its process
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=60)

    def test_the_text_is_the_one_that_was_learned(self):
        self.train("a")
        c = self.checkpoint("a")
        moved = self.folder / "moved"
        self.text.rename(moved)
        for command in (["eval", c], ["compress", c, "--keep", 0.5], ["train", "--resume", c]):
            self.assertIn("--data", run(*command, code=FAILED))
        run("eval", c, "--data", moved)
        run("train", "--resume", c, "--data", moved)
        self.assertEqual(run("eval", c), run("eval", c, "--data", moved))

        other = self.folder / "other"
        other.write_bytes(moved.read_bytes().replace(b"little", b"matrix", 1))
        error = run("train", "--resume", c, "--data", other, code=FAILED)
        self.assertIn("not the text that the model learned from", error)
        run("eval", c, "--data", other)  # on purpose
        moved.write_bytes(other.read_bytes())
        for command in (["eval", c], ["compress", c, "--keep", 0.5], ["train", "--resume", c]):
            self.assertIn("not the text that the model learned from", run(*command, code=FAILED))

    def test_a_text_is_a_file(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        empty = self.folder / "empty"
        empty.write_text("")
        self.train("a", iterations=3)
        for path, expected in ((self.folder, "it is a folder"), ("/dev/zero", "it is a device"), ("/dev/null", "it is a device"),
                               (fifo, "it is a FIFO"), (empty, "empty"), ("", '--data is ""'), (self.text / "below", "Not a directory")):
            with self.subTest(path):
                self.assertIn(expected, self.train("x", "--data", path, code=FAILED))
                if path != empty:
                    self.assertIn(expected, run("eval", self.checkpoint("a"), "--data", path, code=FAILED))
        self.assertFalse((self.folder / "x").exists())

    def test_a_path_that_is_not_utf8(self):
        path = os.fsencode(self.folder) + b"/te\xe9xt"
        self.text.rename(os.fsdecode(path))
        self.train("a", "--data", os.fsdecode(path))
        self.assertEqual(run("eval", self.checkpoint("a")), run("eval", self.checkpoint("a"), "--data", os.fsdecode(path)))
        run("train", "--resume", self.checkpoint("a"))
        out = os.fsdecode(os.fsencode(self.folder) + b"/r\xe9port")
        run("compare", "--data", os.fsdecode(path), "--out", out, "--iterations", 3, *TINY, "--rules", "muon")
        json.loads((self.folder / out / "report.json").read_text())

    def test_output_that_cannot_be_written(self):
        self.train("a", iterations=3)
        c = str(self.checkpoint("a"))
        for command in (["eval", c], ["sample", c, "--length", "1000000"], ["inspect", c], ["rules"], ["compress", c, "--keep", "0.5"], ["--help"],
                        ["train", "--resume", c]):
            with self.subTest(command), open("/dev/full", "w") as full:
                r = subprocess.run([PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
                self.assertEqual(r.returncode, FAILED)
                self.assertIn("No space left", r.stderr)
        r = subprocess.run(["sh", "-c", '"$0" eval "$1" >&-', PROGRAM, c], stderr=subprocess.PIPE, text=True)
        self.assertEqual(r.returncode, FAILED)
        # Files that the program opens do not become its closed output.
        r = subprocess.run(["sh", "-c", '"$@" >&- 2>&- <&-', "sh", PROGRAM, *self.training("closed")])
        self.assertEqual(r.returncode, FAILED)
        run("eval", self.checkpoint("closed"))
        self.assertEqual(len([line for line in self.log("closed") if "loss" in line]), 30)

    def test_full_disk_and_unwritable_folders(self):
        self.train("a", iterations=20)
        before = self.checkpoint("a").read_bytes()

        def small_files(most):
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        error = self.train("a", "--force", iterations=40, code=FAILED, preexec_fn=small_files(30000))
        self.assertIn("checkpoint.safetensors", error)
        self.assertEqual(before, self.checkpoint("a").read_bytes())
        self.assertEqual(sorted(os.listdir(self.folder / "a")), ["checkpoint.safetensors", "log.jsonl"])
        # The log reaches the limit long after the checkpoint was written: what was trained until then is saved, and no line is cut.
        error = self.train("b", "--checkpoint-interval", 10**6, iterations=10**6, code=FAILED, preexec_fn=small_files(300000))
        self.assertIn("log.jsonl", error)
        steps = [line["step"] for line in self.log("b") if "loss" in line]
        self.assertEqual(json.loads(self.metadata(self.checkpoint("b"))["small_gpt.position"])["step"], steps[-1] + 1)

    def test_a_log_and_a_checkpoint_of_two_runs(self):
        # --force replaced a run, and the new one was killed before its first checkpoint.
        self.train("a")
        before = self.checkpoint("a").read_bytes()
        log = self.folder / "a/log.jsonl"
        p = self.start(*self.training("a", "--force", "--rule", "adamw", "--checkpoint-interval", 10**6, iterations=10**6))
        while p.poll() is None and (log.read_text().count('"loss"') < 3 or '"rule":"adamw"' not in log.read_text()):
            time.sleep(0.002)
        p.kill()
        p.wait()
        log = (self.folder / "a/log.jsonl").read_bytes()
        error = run("train", "--resume", self.checkpoint("a"), code=FAILED)
        self.assertIn('rule: file "adamw", here "muon"', error)
        self.assertIn("--force", error)
        self.assertEqual((self.folder / "a/log.jsonl").read_bytes(), log)
        run("train", "--resume", self.checkpoint("a"), "--force")
        self.assertEqual(self.log("a")[0]["settings"]["rule"], "muon")
        self.assertEqual(self.checkpoint("a").read_bytes(), before)
        # The same in a sweep: the run that it asks for is trained from its beginning.
        folder = self.folder / "runs/adamw,lr=0.003,seed=1"
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_bytes(log.replace(b'"iterations":1000000', b'"iterations":10').replace(b'"checkpoint_interval":1000000', b'"checkpoint_interval":10'))
        (folder / "checkpoint.safetensors").write_bytes(before)
        settings = "".join(f"{name[2:]} = {value}\n" for name, value in zip(TINY[::2], TINY[1::2]))
        (self.folder / "sweep.toml").write_text(f'out = "{self.folder}/runs"\n[settings]\ndata = "{self.text}"\niterations = 10\nwarmup = 20000\n{settings}[[rules]]\nname = "adamw"\n')
        self.assertIn("1 runs trained now", run("sweep", self.folder / "sweep.toml"))
        self.assertEqual([path.name for path in (self.folder / "runs").iterdir()], [folder.name])
        self.assertEqual(self.log("runs/" + folder.name)[0]["settings"]["rule"], "adamw")
        self.assertEqual([line["step"] for line in self.log("runs/" + folder.name) if "loss" in line], list(range(1, 11)))

    def test_no_file_is_half_written(self):
        self.train("a", iterations=3)
        self.assertEqual(run("report", self.folder / "a", "--out", self.folder / "page", "--no-compression").count("report.html"), 1)
        run("tokenize", "--data", self.text, "--out", self.folder / "tokens", "--vocabulary-size", 300)
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))
        for args in (["report", self.folder / "a", "--out", self.folder / "page", "--no-compression"],
                     ["report", self.folder / "a", "--out", self.folder / "other", "--no-compression"],
                     ["tokenize", "--data", self.text, "--out", self.folder / "others", "--vocabulary-size", 300],
                     ["compress", self.checkpoint("a"), "--keep", 0.5, "--save", self.folder / "small"]):
            with self.subTest(args):
                self.assertIn("File too large", run(*args, code=FAILED, preexec_fn=limit))
        self.assertEqual(before, {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()})

    def test_folders_that_are_none(self):
        (self.folder / "file").write_text("")
        os.mkfifo(self.folder / "fifo")
        for out in ("file", "file/below", "fifo", "/dev/null", "/proc/nothing", "x" * 5000):
            with self.subTest(out[:20]):
                self.assertIn(out, self.train("unused", "--out", self.folder / out, code=FAILED))
        self.assertIn("--out", self.train("unused", "--out", "", code=FAILED))
        self.assertIn("--out", run("compare", "--data", self.text, "--out", "", *TINY, code=FAILED))
        # What lies where the log and the checkpoint shall go is looked at before the training.
        for name in ("log.jsonl", "checkpoint.safetensors"):
            for make in (os.mkdir, os.mkfifo):
                with self.subTest(name=name, make=make.__name__):
                    out = self.folder / f"{name}-{make.__name__}"
                    out.mkdir()
                    make(out / name)
                    self.assertIn(name, self.train("unused", "--out", out, code=FAILED))

    def test_compressed_models_go_to_files(self):
        self.train("a", iterations=3)
        c = self.checkpoint("a")
        before = c.read_bytes()
        (self.folder / "link").symlink_to(c)
        for save, expected in (("/dev/null", "a device"), (self.folder, "a folder"), (self.folder / "absent/file", "No such file"),
                               (c, "another file"), (self.folder / "link", "another file")):
            self.assertIn(expected, run("compress", c, "--keep", 0.5, "--save", save, code=FAILED))
        self.assertEqual(before, c.read_bytes())
        self.assertTrue((self.folder / "link").is_symlink())


if __name__ == "__main__":
    unittest.main(verbosity=1)
