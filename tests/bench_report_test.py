#!/usr/bin/env python3
"""bench_report_test.py BENCH_REPORT FIXTURES: what bench/report makes of recorded results."""
import importlib.machinery
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile

REPORT, FIXTURES = sys.argv[1:3]
OURS, PEERS = (os.path.join(FIXTURES, name) for name in ("ours.json", "peers.json"))


def run(*arguments):
    return subprocess.run([sys.executable, REPORT, *arguments], capture_output=True, text=True)


def table(text, subject):
    """The rows of a subject's first table, as dictionaries."""
    lines = text.split(f"### {subject}\n\n", 1)[1].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in itertools.takewhile(bool, lines)]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def row(rows, **keys):
    found = [r for r in rows if all(r[k] == v for k, v in keys.items())]
    assert len(found) == 1, (keys, rows)
    return found[0]


def expect(got, wanted):
    assert got == wanted, f"{got!r}, not {wanted!r}"


def test_joined():
    done = run(OURS, PEERS)
    expect(done.returncode, 0)
    text = done.stdout
    rows = table(text, "newton_schulz")
    expect(len(rows), 2)  # repetitions are one row, aggregates none, the peer none
    single = row(rows, element="float")
    expect(single["ms"], "8")  # the median of three
    expect(single["GFLOP/s"], "62")
    expect(single["of peak"], "0.35")
    expect(single["polar error: Gaussian, 1/i, low rank"], "0.21, 0.18, 0.2")
    expect(single["largest singular value"], "1.202, 1.150, 1.201")
    expect((single["eigen"], single["torch-eager"]), ("1.50", "2.50"))
    double = row(rows, element="double")
    expect((double["ms"], double["of peak"]), ("16", "0.30"))  # all of the median, where Google Benchmark has the mean
    expect((double["eigen"], double["torch-eager"]), ("", ""))  # float beside double compares nothing
    expect(double["polar error: Gaussian, 1/i, low rank"], "")
    assert "| torch-eager | 1x512x512 | float | keller | 33 |" in text
    assert "* torch-compiled, 1x256x256: AttributeError: no compile" in text

    rows = table(text, "step")
    expect([r["rule"] for r in rows], ["muon", "adamw"])  # in the program's order
    muon, adamw = rows
    expect((muon["torch-muon"], muon["adamw-fused"]), ("2.50", ""))
    expect((adamw["torch-muon"], adamw["adamw-fused"]), ("", "1.50"))
    expect((muon["MiB"], muon["of it state"], muon["scratch MiB"]), ("7", "3", "4.2"))
    assert "* matopt, tiny soap: left out: expected to take 7.5 s" in text
    expect(table(text, "topk"), [{"case": "1024x4096/32", "ms": "5"}])
    assert "measured peak of float products: 200 GFLOP/s" in text and "torch: 2.11.0" in text
    assert "not-to-be-shown" not in text


def test_pieces_missing():
    text = run(OURS).stdout
    assert "torch" not in text and "eigen" in table(text, "newton_schulz")[0]
    text = run(PEERS).stdout
    assert "| torch-eager | 1x256x256 |" in text
    with tempfile.TemporaryDirectory() as folder:
        broken, other, bare, into = (os.path.join(folder, n) for n in ("broken.json", "other.json", "bare.json", "report.md"))
        with open(broken, "w") as file:
            file.write('{"benchmarks": [')
        with open(other, "w") as file:
            json.dump([1], file)
        done = run(OURS, broken, other, "--markdown", into)
        expect((done.returncode, done.stdout), (0, ""))
        text = open(into).read()
        assert broken in text and "neither" in text.split(other)[1]
        expect(run(broken).returncode, 1)
        with open(bare, "w") as file:  # neither context nor counters
            json.dump({"benchmarks": [{"name": "product/shape:2x2/manual_time", "real_time": 1500, "time_unit": "us"}]}, file)
        expect(table(run(bare).stdout, "product"), [{"shape": "2x2", "ms": "1.5"}])


def test_roofline():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "roofline.svg")
        done = run(OURS, PEERS, "--roofline", path)
        expect(done.returncode, 0)
        if importlib.util.find_spec("matplotlib"):
            text = open(path).read()
            assert "<svg" in text
            for legend in ("newton_schulz float by eigen", "peak, double"):
                assert legend in text, legend
            assert "peak, bfloat16" not in text  # of a type that no case has
        else:
            assert "matplotlib is missing" in done.stderr, done.stderr
        assert "no plot" not in done.stderr
        done = run(PEERS, "--roofline", path + ".none")
        expect(done.returncode, 0)
        assert "no case has flops" in done.stderr and not os.path.exists(path + ".none")


def test_page():
    with tempfile.TemporaryDirectory() as folder:
        steps, page = os.path.join(folder, "steps.json"), os.path.join(folder, "page.md")

        def measured(model, rule, ms, **counters):
            return {"name": f"step/model:{model}/rule:{rule}/manual_time", "real_time": ms, "time_unit": "ms", "median_ms": ms, **counters}

        runs = [measured("gpt2_124m", "muon", 3, scratch_MiB=7), measured("gpt2_124m", "adamw", 0.5), measured("gpt2_350m", "muon", 12),
                measured("gpt2_350m", "adamw", 2.5), measured("llama_1b", "muon", 60), measured("tiny", "lion", 9)]
        with open(steps, "w") as file:
            json.dump({"context": {"backend": "cuda"}, "benchmarks": runs}, file)
        before = "text\n<!-- all rules: begin -->\nold\n<!-- all rules: end -->\nmore\n<!-- larger models: begin -->\nold\n<!-- larger models: end -->\n"
        with open(page, "w") as file:
            file.write(before)
        expect(run(OURS, "--page", page).returncode, 1)  # of a CPU
        expect(open(page).read(), before)
        done = run(steps, "--page", page)
        expect((done.returncode, done.stdout, done.stderr), (0, "", ""))
        text = open(page).read()
        assert text.startswith("text\n<!-- all rules: begin -->\n| rule | ms | scratch MiB |\n|---|---|---|\n| adamw | 0.5 |  |\n| muon | 3 | 7.0 |\n<!-- all"), text
        assert "old" not in text and "lion" not in text and "\nmore\n" in text
        assert "| adamw | 2.5 |  |\n| muon | 12 | 60 |\n" in text, text
        assert "At 350M no rule that was measured at both takes more than 5.0 times as long as at 124M (`adamw`)." in text
        assert "At 1B no rule that was measured at both takes more than 5.0 times as long as at 350M (`muon`)." in text
        with open(page, "w") as file:
            file.write(before.replace("<!-- larger models: end -->", ""))
        done = run(steps, "--page", page)
        assert done.returncode == 1 and "no place for the table" in done.stderr
        assert "\nold\n" in open(page).read()


def test_training_and_python():
    with tempfile.TemporaryDirectory() as folder:
        train, steps, page = (os.path.join(folder, n) for n in ("train.json", "python.json", "page.md"))

        def trained(peer, rule, ms, **more):
            return {"subject": "training", "peer": peer, "rule": rule, "ms": ms, "tokens_per_s": 1e6 / ms, **more}

        def stepped(peer, rule, ms, **more):
            return {"subject": "from_python", "peer": peer, "rule": rule, "ms": ms, **more}

        with open(train, "w") as file:
            json.dump({"device": "Some Card", "date": "2030-01-02",
                       "records": [trained("llm.c", "adamw", 1500), trained("matopt", "adamw", 1000, utilisation=0.55, optimizer_share=0.0012),
                                   trained("matopt", "adamw", 1002, utilisation=0.55, optimizer_share=0.0012), trained("matopt", "muon", 1010)]}, file)
        with open(steps, "w") as file:
            json.dump({"device": "Some Card", "torch": "2.99", "date": "2030-01-02",
                       "records": [stepped("torch.optim", "muon", 40), stepped("matopt", "muon", 4, cosine=0.99997), stepped("matopt", "muown", 5)]}, file)
        with open(page, "w") as file:
            file.write("a\n<!-- training: begin -->\nold\n<!-- training: end -->\nb\n<!-- Python steps: begin -->\nold\n<!-- Python steps: end -->\n")
        done = run(train, steps, "--page", page)
        expect((done.returncode, done.stderr), (0, ""))
        text = open(page).read()
        assert "old" not in text and text.count("Some Card, 2030-01-02") == 2, text
        assert "| small_gpt, adamw | 1001.0 | 999 | 55.0% | 0.12% |\n| small_gpt, muon | 1010.0 | 990 |  |  |\n| llm.c, adamw | 1500.0 | 667 |  |  |" in text, text
        assert "1.50 times as many tokens" in text
        assert "| muon | 4.00 | 40.00 | 10.00 |\n| muown | 5.00 |  |  |" in text and "cosine of 0.99997" in text, text


def test_llm_c_output():
    """Lines as train_gpt2cu prints them; the first two steps warm up."""
    loader = importlib.machinery.SourceFileLoader("training", os.path.join(os.path.dirname(REPORT), "training"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("training", loader))
    loader.exec_module(module)
    line = "step {:4}/7 | loss 10.98 (+nanz)| norm 15.2 (+nanz)| lr 2.57e-06 | {:.2f} ms | 34.2% bf16 MFU | {} tok/s\n"
    text = "val loss 11.0\n" + "".join(line.format(i, 1000.5 + i, 500000 + i) for i in range(1, 5)) + "total average iteration time: 1 ms\n"
    expect(module.steps_of_llm_c(text), [(1003.5, 500003.0), (1004.5, 500004.0)])


for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
