"""What `small_gpt export` and `small_gpt logits` write, read with nothing but Python's own library: names, shapes, the
configuration, the tokenizer, and the logits of a GPT-2 that is computed here from the folder in Hugging Face's layout.

usage: small_gpt_export_test.py PROGRAM
"""
import array
import json
import math
import struct
import unittest

from small_gpt_program import FAILED, USAGE, Runs, run

LAYERS, HEADS, WIDTH, CONTEXT = 2, 2, 16, 16  # of the runs in small_gpt_program.py


def tensors(path, prefix=""):
    """name -> (shape, rows of floats), of the tensors whose names begin with `prefix`, and the metadata."""
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    metadata, found = header.pop("__metadata__"), {}
    for name, entry in header.items():
        if not name.startswith(prefix):
            continue
        assert entry["dtype"] == "F32", name
        begin, end = (8 + length + at for at in entry["data_offsets"])
        values, columns = array.array("f", whole[begin:end]).tolist(), entry["shape"][-1]
        found[name] = entry["shape"], [values[i : i + columns] for i in range(0, len(values), columns)]
    return found, metadata


def shapes(path):
    return {name: shape for name, (shape, _) in tensors(path)[0].items()}


def gpt2(weights, tokens):
    """The logits after each token, as Hugging Face's GPT2LMHeadModel computes them with activation_function "gelu"."""

    def get(name):
        return weights["transformer." + name][1]

    def linear(x, name):  # a Conv1D: x W + b
        w, (b,) = get(name + ".weight"), get(name + ".bias")
        return [[sum(xi * w[i][j] for i, xi in enumerate(row)) + b[j] for j in range(len(b))] for row in x]

    def norm(x, name):
        (g,), (b,), out = get(name + ".weight"), get(name + ".bias"), []
        for row in x:
            mean = sum(row) / len(row)
            scale = 1 / math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-5)
            out.append([(v - mean) * scale * gj + bj for v, gj, bj in zip(row, g, b)])
        return out

    def plus(x, y):
        return [[a + b for a, b in zip(p, q)] for p, q in zip(x, y)]

    def attention(x, layer):
        qkv, d = linear(x, layer + "attn.c_attn"), WIDTH // HEADS
        out = [[] for _ in x]
        for h in range(HEADS):
            q, k, v = ([row[part * WIDTH + h * d : part * WIDTH + (h + 1) * d] for row in qkv] for part in range(3))
            for t, row in enumerate(out):
                p = [math.exp(sum(a * b for a, b in zip(q[t], k[s])) / math.sqrt(d)) for s in range(t + 1)]
                row += [sum(ps * v[s][j] for s, ps in enumerate(p)) / sum(p) for j in range(d)]
        return linear(out, layer + "attn.c_proj")

    def mlp(x, layer):
        hidden = [[0.5 * u * (1 + math.erf(u / math.sqrt(2))) for u in row] for row in linear(x, layer + "mlp.c_fc")]
        return linear(hidden, layer + "mlp.c_proj")

    x = [[a + b for a, b in zip(get("wte.weight")[t], get("wpe.weight")[i])] for i, t in enumerate(tokens)]
    for i in range(LAYERS):
        layer = f"h.{i}."
        x = plus(x, attention(norm(x, layer + "ln_1"), layer))
        x = plus(x, mlp(norm(x, layer + "ln_2"), layer))
    return [[sum(a * b for a, b in zip(row, e)) for e in get("wte.weight")] for row in norm(x, "ln_f")]


class Export(Runs):
    def logits(self, checkpoint, *args):
        run("logits", checkpoint, "--out", self.folder / "logits", *args)
        found, metadata = tensors(self.folder / "logits")
        self.assertEqual(list(found), ["logits"])
        return [int(t) for t in metadata["tokens"].split()], found["logits"][1]

    def test_dense(self):
        w = WIDTH
        for arch in ("modern", "nanogpt"):
            with self.subTest(arch):
                self.train(arch, "--arch", arch, "--vocabulary", "byte")
                c, out = self.checkpoint(arch), self.folder / f"{arch}.safetensors"
                run("export", c, "--out", out)
                expected = {"embedding": [256, w]}
                expected |= {"head": [256, w]} if arch == "modern" else {"positions": [CONTEXT, w], "final_gain": [1, w]}
                for i in range(LAYERS):
                    layer = {"qkv": [3 * w, w], "attention_out": [w, w], "mlp_in": [4 * w, w], "mlp_out": [w, 4 * w]}
                    if arch == "nanogpt":
                        layer |= {"attention_gain": [1, w], "mlp_gain": [1, w]}
                    expected |= {f"layer{i}.{name}": shape for name, shape in layer.items()}
                self.assertEqual(shapes(out), {"model." + name: shape for name, shape in expected.items()})
                whole, dense = tensors(c, "model.")[0], tensors(out)[0]
                for name in dense:
                    self.assertEqual(whole[name], dense[name])
                settings = json.loads(self.metadata(out)["small_gpt.settings"])
                self.assertEqual([settings[k] for k in ("architecture", "layers", "heads", "width", "context")],
                                 [arch, LAYERS, HEADS, WIDTH, CONTEXT])
                self.assertEqual(run("eval", out), run("eval", c))
                # A checkpoint of factors in 8 bits is multiplied out.
                cut = self.folder / "cut"
                run("compress", c, "--keep", 0.5, "--bits", 8, "--save", cut)
                run("export", cut, "--out", out)  # replaces the file
                self.assertEqual(set(shapes(out)), {"model." + name for name in expected})
                self.assertEqual(run("eval", out), run("eval", cut))
                self.assertNotEqual(run("eval", out), run("eval", c))
                error = run("train", "--resume", out, "--out", self.folder / "x", code=FAILED)
                self.assertIn("as `export` and `compress --save` write it", error)
                self.assertIn("position", error)

    def test_hugging_face(self):
        w = WIDTH
        self.train("a", "--arch", "nanogpt", iterations=100)
        c, folder = self.checkpoint("a"), self.folder / "in/gpt2"
        run("export", c, "--out", folder, "--format", "huggingface")
        self.assertEqual({p.name for p in folder.iterdir()}, {"config.json", "model.safetensors"})  # characters: no tokenizer
        ours, (theirs, metadata) = tensors(c, "model.")[0], tensors(folder / "model.safetensors")
        self.assertEqual(metadata["format"], "pt")
        vocabulary = ours["model.embedding"][0][0]
        expected = {"wte.weight": [vocabulary, w], "wpe.weight": [CONTEXT, w], "ln_f.weight": [w], "ln_f.bias": [w]}
        for i in range(LAYERS):
            for name, shape in {"ln_1": [w], "ln_2": [w], "attn.c_attn": [w, 3 * w], "attn.c_proj": [w, w],
                                "mlp.c_fc": [w, 4 * w], "mlp.c_proj": [4 * w, w]}.items():
                expected |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
        self.assertEqual({name: shape for name, (shape, _) in theirs.items()},
                         {"transformer." + name: shape for name, shape in expected.items()})
        for name, (_, rows) in theirs.items():
            if name.endswith(".bias"):
                self.assertFalse(any(rows[0]), name)
        config = json.loads((folder / "config.json").read_text())
        for key, value in {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu",
                           "vocab_size": vocabulary, "n_positions": CONTEXT, "n_embd": w, "n_layer": LAYERS, "n_head": HEADS,
                           "n_inner": 4 * w, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}.items():
            self.assertEqual(config[key], value, key)
        tokens, logits = self.logits(c, "--text", "the naïve matrix")
        self.assertEqual(len(tokens), 16)
        self.assertEqual([len(row) for row in logits], [vocabulary] * 16)
        self.assertGreater(max(map(max, logits)), 1)
        for row, expected in zip(logits, gpt2(theirs, tokens)):
            for a, b in zip(row, expected):
                self.assertAlmostEqual(a, b, delta=1e-5)
        # The same by numbers, and of fewer tokens.
        again, fewer = self.logits(c, "--tokens", ",".join(map(str, tokens[:5])))
        self.assertEqual(again, tokens[:5])
        for row, expected in zip(fewer, logits):
            for a, b in zip(row, expected):
                self.assertAlmostEqual(a, b, delta=1e-5)
        # What is there is replaced on demand only.
        (folder / "config.json").write_text("mine")
        self.assertIn("--force", run("export", c, "--out", folder, "--format", "huggingface", code=FAILED))
        self.assertEqual((folder / "config.json").read_text(), "mine")
        run("export", c, "--out", folder, "--format", "huggingface", "--force")
        self.assertEqual(json.loads((folder / "config.json").read_text()), config)

    def test_tokenizer(self):
        printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
        byte_of = {chr(b): b for b in printing}
        byte_of |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printing)}
        for vocabulary, *more in (["byte"], ["pairs", "--vocabulary-size", 300]):
            with self.subTest(vocabulary):
                self.train(vocabulary, "--arch", "nanogpt", "--vocabulary", vocabulary, *more)
                c, folder = self.checkpoint(vocabulary), self.folder / ("gpt2-" + vocabulary)
                run("export", c, "--out", folder, "--format", "huggingface")
                model = json.loads((folder / "tokenizer.json").read_text())["model"]
                symbols = [bytes.fromhex(s) for s in self.metadata(c)["small_gpt.vocabulary"].split()]
                self.assertEqual([bytes(byte_of[x] for x in name) for name in model["vocab"]], symbols)
                self.assertEqual(list(model["vocab"].values()), list(range(len(symbols))))
                pairs = [int(n) for n in self.metadata(c).get("small_gpt.merges", "").split()]
                names = list(model["vocab"])
                self.assertEqual(model["merges"], [f"{names[a]} {names[b]}" for a, b in zip(pairs[::2], pairs[1::2])])
                self.assertEqual(len(pairs) > 0, vocabulary == "pairs")

    def test_bad_input(self):
        self.train("a", iterations=10)
        c, out = self.checkpoint("a"), self.folder / "out"
        before = c.read_bytes()
        (self.folder / "file").write_text("mine")
        self.train("b", iterations=10)
        other = self.checkpoint("b")
        kept = {path: path.read_bytes() for path in (other, self.text)}
        for args, expected in (
            (["export", c, "--out", other], "the checkpoint of a training"),
            (["logits", c, "--out", other, "--tokens", "1"], "the checkpoint of a training"),
            (["compress", c, "--keep", 0.5, "--save", other], "the checkpoint of a training"),
            (["export", c, "--out", self.text], "this is another one"),
            (["logits", c, "--out", self.text, "--tokens", "1"], "this is another one"),
            (["compress", c, "--keep", 0.5, "--save", self.text], "this is another one"),
            (["compress", c, "--keep", 0.5, "--save", c], "another file than the checkpoint"),
            (["export", c, "--out", out, "--format", "onnx"], "one of safetensors, huggingface"),
            (["export", c, "--out", out, "--format", "huggingface"], "--arch nanogpt"),
            (["export", c, "--out", ""], "--out"),
            (["export", c, "--out", "", "--format", "huggingface"], "--out"),
            (["export", c, "--out", c], "another file than the checkpoint"),
            (["export", c, "--out", self.folder], "a folder"),
            (["export", c, "--out", out / "in/no/folder"], "its folder"),
            (["export", self.text, "--out", out], "text"),
            (["logits", c, "--out", out], "--text or --tokens"),
            (["logits", c, "--out", out, "--text", ""], "number of tokens of --text is 0; legal: 1 to context (16)"),
            (["logits", c, "--out", out, "--text", "the" * 6], "number of tokens of --text is 18; legal: 1 to context (16)"),
            (["logits", c, "--out", out, "--tokens", ",".join("1" * 17)], "number of --tokens is 17"),
            (["logits", c, "--out", out, "--text", "Ω"], "vocabulary"),
            (["logits", c, "--out", out, "--tokens", "1,-1"], "-1"),
            (["logits", c, "--out", out, "--tokens", "1,9999"], "9999; legal: 0 to vocabulary - 1"),
            (["logits", c, "--out", c, "--tokens", "1"], "another file than the checkpoint"),
            (["logits", c, "--out", "", "--tokens", "1"], "--out"),
        ):
            with self.subTest(args):
                self.assertIn(expected, run(*args, code=FAILED))
                self.assertFalse(out.exists())
        for path, bytes in kept.items():
            self.assertEqual(path.read_bytes(), bytes)
        for args in (["export", c, "--out"], ["logits", c, "--tokens", "1", "--out"], ["compress", c, "--keep", 0.5, "--save"]):
            out.write_bytes(b"")
            run(*args, out)  # nothing is lost
            run(*args, out)  # one that the command wrote
        out.unlink()
        self.assertIn("--tokens", run("logits", c, "--out", out, "--text", "the", "--tokens", "1", code=USAGE))
        self.assertIn("--tokens", run("logits", c, "--out", out, "--tokens", "one", code=USAGE))
        self.assertIn("--out", run("export", c, code=USAGE))
        self.assertIn("--out", run("logits", c, "--tokens", "1", code=USAGE))
        self.train("g", "--arch", "nanogpt", iterations=10)
        file = self.folder / "file"
        self.assertIn("folder", run("export", self.checkpoint("g"), "--out", file, "--format", "huggingface", code=FAILED))
        self.assertEqual(file.read_text(), "mine")
        self.assertEqual(c.read_bytes(), before)


if __name__ == "__main__":
    unittest.main(verbosity=1)
