"""The program replay from outside: parity, its results as input, other shapes and settings, bad input.

usage: replay_test.py PROGRAM GOLDEN_FOLDER
"""
import copy
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

GOLDEN = pathlib.Path(sys.argv.pop(2))
PROGRAM = sys.argv.pop(1)


def run(*args):
    return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=300)


def first_case(rule, file="muon_family.json"):
    return copy.deepcopy(next(c for c in json.loads(pathlib.Path(GOLDEN / file).read_text())["cases"] if c["rule"] == rule))


class Replay(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def replay(self, *cases, options=()):
        file = self.path / "cases.json"
        file.write_text(json.dumps({"format": 1, "cases": cases}))
        return run(file, *options)

    def test_all_golden_files_in_double(self):
        files = sorted(GOLDEN.glob("*.json"))
        r = run(*files)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        cases = sum(len(json.loads(pathlib.Path(f).read_text())["cases"]) for f in files)
        self.assertIn(f"{cases} cases in double", r.stdout)
        self.assertIn(" 0 outside", r.stdout)

    def test_float_agrees_to_its_tolerance(self):
        r = run(GOLDEN / "muown.json", GOLDEN / "numuon.json", "--scalar", "float")
        self.assertEqual(r.returncode, 0, r.stdout)
        self.assertEqual(run(GOLDEN / "muown.json", "--scalar", "float", "--tolerance", "1e-12").returncode, 1)

    def test_results_are_golden_files(self):
        out = self.path / "out.json"
        r = run(GOLDEN / "estimators_and_baselines.json", "--out", out)
        self.assertEqual(r.returncode, 0, r.stdout)
        again = run(out, "--tolerance", "0")
        self.assertEqual(again.returncode, 0, again.stdout)
        ours, theirs = json.loads(pathlib.Path(out).read_text()), json.loads(pathlib.Path(GOLDEN / "estimators_and_baselines.json").read_text())
        self.assertEqual([c["label"] for c in ours["cases"]], [c["label"] for c in theirs["cases"]])
        self.assertEqual(ours["format"], 1)

    def test_a_wrong_weight_shows(self):
        case = first_case("moonlight")
        case["W"][2][1][1] += 1e-6
        r = self.replay(case)
        self.assertEqual(r.returncode, 1)
        self.assertIn("OUTSIDE", r.stdout)
        self.assertEqual(self.replay(case, options=["--tolerance", "1e-3"]).returncode, 0)

    def test_a_nan_is_outside_of_every_tolerance(self):
        case = first_case("moonlight")
        case["settings"]["lr"] = 1e308
        r = self.replay(case, options=["--tolerance", "1e9"])
        self.assertEqual(r.returncode, 1, r.stdout)

    # Not in the golden files: shapes, numbers of steps, settings, a case without results. Descent without a momentum and
    # with signs is easy to work out by hand.
    def test_cases_never_seen(self):
        rows, cols, steps, lr, decay = 16, 12, 7, 0.03, 0.2
        w = [[math.sin(i + 2 * j) for j in range(cols)] for i in range(rows)]
        gradients = [[[math.cos(3 * i * j + t + 0.1) for j in range(cols)] for i in range(rows)] for t in range(steps)]
        expected, now = [], w
        for g in gradients:
            now = [[x * (1 - lr * decay) - lr * (1 if y > 0 else -1) for x, y in zip(a, b)] for a, b in zip(now, g)]
            expected.append(now)
        case = {"label": "mine", "rule": "lion", "shape": [rows, cols], "W0": w, "G": gradients, "W": expected,
                "settings": {"lr": lr, "betas": [0.0, 0.5], "weight_decay": decay}}
        r = self.replay(case)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn("16x12", r.stdout)

        thin = {"label": "thin", "rule": "muon_kj", "shape": [1, 6], "W0": [[1, 2, 3, 4, 5, 6]], "G": [[[1, 0, 0, 0, 0, 0]]] * 9,
                "settings": {"lr": 0.1, "momentum": 0.5}}
        r = self.replay(thin, options=["--out", self.path / "out.json"])
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn("computed", r.stdout)
        self.assertEqual(len(json.loads(pathlib.Path(self.path / "out.json").read_text())["cases"][0]["W"]), 9)

    def test_unknown_names_say_the_nearest(self):
        case = first_case("normuon")
        case["rule"] = "normuonn"
        self.assertIn('nearest: "normuon"', self.replay(case).stderr)
        case = first_case("normuon")
        case["settings"]["weight_decai"] = 1
        r = self.replay(case)
        self.assertEqual(r.returncode, 1)
        self.assertIn('unknown setting "weight_decai"', r.stderr)
        self.assertIn('"weight_decay"', r.stderr)
        case = first_case("normuon")
        case["settings"]["variant"] = "papre"
        self.assertIn("nearest: paper", self.replay(case).stderr)
        case = first_case("normuon")
        case["settings"]["momentum"] = 1.5
        self.assertIn("momentum", self.replay(case).stderr)
        self.assertIn("[0, 1)", self.replay(case).stderr)

    def test_one_bad_case_does_not_hide_the_others(self):
        bad = first_case("normuon")
        bad["G"][1] = [[1, 2], [3]]
        r = self.replay(bad, first_case("moonlight"))
        self.assertEqual(r.returncode, 1)
        self.assertIn("unequal rows", r.stderr)
        self.assertIn("2 cases", r.stdout)
        self.assertIn("1 failed", r.stdout)

    def test_missing_pieces_are_named(self):
        for name in ("W0", "G", "settings", "rule"):
            case = first_case("moonlight")
            del case[name]
            self.assertIn(f'"{name}" is missing', self.replay(case).stderr)
        case = first_case("muon_storm", "estimators_and_baselines.json")
        del case["G_ref"]
        self.assertIn("G_ref", self.replay(case).stderr)

    def test_malformed_json_says_where(self):
        file = self.path / "bad.json"
        file.write_text('{"format": 1,\n "cases": [\n  {"rule": }]}')
        r = run(file)
        self.assertEqual(r.returncode, 2)
        self.assertIn("line 3", r.stderr)
        file.write_text("[]")
        self.assertIn("cases", run(file).stderr)
        self.assertIn("cannot be read", run(self.path / "none.json").stderr)
        self.assertNotEqual(run(GOLDEN / "muown.json", "--scalar", "half").returncode, 0)
        self.assertIn("cuda", run(GOLDEN / "muown.json", "--backend", "cuda").stderr)


if __name__ == "__main__":
    unittest.main()
