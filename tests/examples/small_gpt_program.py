"""What the tests of the program small_gpt share: its path, the first argument of each, a text, and small runs."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = str(pathlib.Path(sys.argv.pop(1)).resolve())
TINY = "--layers 2 --heads 2 --width 16 --context 16 --batch 8 --eval-interval 10 --eval-windows 20 --checkpoint-interval 10".split()
DONE, FAILED, USAGE, DIVERGED = 0, 1, 2, 3  # exit statuses


def run(*args, code=DONE, **kwargs):
    """Runs the program, which has to end with `code`; returns stdout if that is 0, else stderr."""
    r = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, errors="replace", timeout=300, **kwargs)
    if code != r.returncode:
        raise AssertionError(f"{args}: exit {r.returncode}, not {code}\n{r.stdout}\n{r.stderr}")
    return r.stdout if code == DONE else r.stderr


class Runs(unittest.TestCase):
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

    def training(self, out, *args, iterations=30):
        """The arguments of a small run; those given replace the usual ones."""
        usual = {"--data": self.text, "--out": self.folder / out, "--iterations": iterations, **dict(zip(TINY[::2], TINY[1::2]))}
        for name in args:
            usual.pop(name, None)
        return ["train", *(str(word) for pair in usual.items() for word in pair), *map(str, args)]

    def train(self, out, *args, iterations=30, **kwargs):
        return run(*self.training(out, *args, iterations=iterations), **kwargs)

    def start(self, *args, steps=0, **kwargs):
        """Starts the program, and waits until its log, in the folder after --out, has `steps` steps."""
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
        p = subprocess.Popen([PROGRAM, *map(str, args)], **kwargs)
        self.addCleanup(lambda: (p.kill(), p.communicate()))
        log = pathlib.Path(args[args.index("--out") + 1]) / "log.jsonl"
        while p.poll() is None and (not log.exists() or log.read_text().count('"loss"') < steps):
            time.sleep(0.002)
        return p

    def checkpoint(self, out):
        return self.folder / out / "checkpoint.safetensors"

    def log(self, out):
        return [json.loads(line) for line in (self.folder / out / "log.jsonl").read_text().splitlines()]

    def metadata(self, path):
        whole = pathlib.Path(path).read_bytes()
        return json.loads(whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]])["__metadata__"]

    def edited(self, path, change, keep_checksums=False):
        """A copy of a checkpoint whose metadata went through `change`, as a program writes it that knows nothing of checksums,
        unless they are kept."""
        whole = pathlib.Path(path).read_bytes()
        length = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + length])
        if not keep_checksums:
            for key in ("matopt.format_version", "matopt.crc32c"):
                header["__metadata__"].pop(key, None)
        change(header["__metadata__"])
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        edited = self.folder / "edited"
        edited.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
        return edited
