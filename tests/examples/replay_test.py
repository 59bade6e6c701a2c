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
        # new_members.json has rules that are not built yet, as golden_test.cpp lists them.
        files = sorted(f for f in GOLDEN.glob("*.json") if f.name != "new_members.json")
        r = run(*files)
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        cases = sum(len(json.loads(pathlib.Path(f).read_text())["cases"]) for f in files)
        self.assertIn(f"{cases} cases in double", r.stdout)
        self.assertIn(" 0 outside", r.stdout)

    def test_cases_are_left_out_by_name(self):
        r = self.replay(first_case("moonlight"), first_case("normuon"), {"rule": "not_built"}, options=["--leave-out", "normuon,not_built"])
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn("2 cases left out", r.stdout)
        self.assertIn("1 cases in double", r.stdout)

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

    def test_every_case_and_every_file_is_tried(self):
        good = first_case("moonlight")
        for key, value in (("rule", "normuonn"), ("rule", 5), ("label", 5), ("label", ["x"]), ("settings", []), ("G", "text"), ("W", {}),
                           ("W0", None), ("rank", 5), ("G", {}), ("settings", {"lr": "text"}), ("settings", {"lr": -1}),
                           ("W", [])):
            bad = first_case("moonlight")
            bad[key] = value
            r = self.replay(bad, good)
            if key != "label":  # a label is only for the reader
                self.assertEqual(r.returncode, 1, (key, value, r.stdout, r.stderr))
                self.assertIn("1 failed", r.stdout, (key, value))
                self.assertIn("cases.json, case 1: ", r.stderr)
            self.assertIn("2 cases", r.stdout, (key, value))
        for value in (5, "text", None, [], [[]]):
            r = self.replay(value, good)
            self.assertEqual(r.returncode, 1)
            self.assertIn("2 cases", r.stdout)
            self.assertIn("1 failed", r.stdout)
        (self.path / "bad.json").write_text("[")
        (self.path / "good.json").write_text(json.dumps({"cases": [good]}))
        r = run(self.path / "bad.json", self.path / "none.json", self.path, self.path / "good.json")
        self.assertEqual(r.returncode, 2)
        self.assertIn("1 cases", r.stdout)
        for name in ("bad.json", "none.json", str(self.path)):
            self.assertIn(name, r.stderr)

    def test_nesting_and_numbers_without_bounds(self):
        good = json.dumps(first_case("moonlight"))
        file = self.path / "odd.json"
        brackets = 100_000
        for text in ("[" * brackets, "[" * brackets + "]" * brackets, '{"a":' * brackets + "1" + "}" * brackets,
                     '{"cases": [' + good + ', {"W0": ' + "[" * brackets + "]" * brackets + "}]}",
                     '{"cases": [' + good + '], "format": ' + "[" * 200 + "]" * 200 + "}"):
            file.write_text(text)
            r = run(file)
            self.assertEqual(r.returncode, 2, r.stderr[:300])
            self.assertIn("odd.json: nested in more than 100 brackets", r.stderr)
        for text in ('{"cases": [{"W0": [[1e400]]}]}', '{"cases": [{"W0": [[-1e99999]]}]}'):
            file.write_text(text)
            r = run(file)
            self.assertEqual(r.returncode, 2, r.stderr)
            self.assertIn("odd.json", r.stderr)
            self.assertIn("1e", r.stderr)
        case = first_case("moonlight")
        case["W0"][0][0] = 1e39
        r = self.replay(case, options=["--scalar", "float"])
        self.assertEqual(r.returncode, 1)
        self.assertIn("an entry of W0 is 1e+39", r.stderr)

    def test_ranks_and_counts_that_are_none(self):
        for rule, name, file in (("truncated_svd", "rank", "compression.json"), ("svd_llm_whitening", "rank", "compression.json"),
                                 ("top_k_exact", "k", "orthogonalizers.json")):
            for value in (1e300, -1e300, 2**63, 2**64, 1.5, 0, -1, 1000):
                case = first_case(rule, file)
                case["settings"][name] = value
                r = self.replay(case)
                self.assertEqual(r.returncode, 1, (rule, value))
                self.assertIn(f'{name} of rule "{rule}" is ', r.stderr)
                self.assertIn("a whole number from 1 to ", r.stderr)

    def test_a_loss_of_rounding_is_compared_with_what_was_compressed(self):
        # A matrix of rank one cut to rank one loses nothing; what is left is rounding, and differs by all of itself.
        case = {"label": "rounding", "rule": "truncated_svd", "settings": {"rank": 1}, "W0": [[0.1, -0.7, 0.3, 0.9, -0.2, 0.5]],
                "H": [[2.0 if i == j else 0.1 for j in range(6)] for i in range(6)]}
        case["W"] = case["W0"]
        for loss in (0, 7.6e-16, 2e-15):
            case["loss"] = loss
            r = self.replay(case)
            self.assertEqual(r.returncode, 0, r.stdout)
        case["loss"] = 1e-6  # and nothing larger passes
        self.assertIn("OUTSIDE", self.replay(case).stdout)
        # A loss that is not small still has to agree.
        case = next(c for c in json.loads((GOLDEN / "compression.json").read_text())["cases"] if c["loss"] > 0.1)
        case["loss"] *= 1 + 1e-8
        self.assertIn("OUTSIDE", self.replay(case).stdout)

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
