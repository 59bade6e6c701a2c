"""The tokens of `small_gpt tokenize` beside those of the package `tokenizers`, on texts in several languages.

usage: byte_pairs_test.py PROGRAM            compares with tests/examples/byte_pairs_expected.json
       byte_pairs_test.py PROGRAM --write    asks the package (pip install tokenizers) and writes that file anew
       byte_pairs_test.py PROGRAM --compare FILE SIZE     compares with the package on a text of one's own
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

EXPECTED = pathlib.Path(__file__).with_name("byte_pairs_expected.json")
TEXTS = {
    "english": "It's the year 1611, and they'll say: \"we've seen what the king's men can't see\".  The men saw the king;\nthe king saw the men.\n\n"
               "\tThe  end   of it -- if that's the end -- isn't here, I'm told; you'd think 12,345.67 of them're there.   \n",
    "german": "Über allen Gipfeln ist Ruh, in allen Wipfeln spürest du kaum einen Hauch; die Vögelein schweigen im Walde. Warte nur, balde "
              "ruhest du auch. Größe, Maß, Straße: ein großes Maß der Größe auf der Straße, und über der Straße die Vögelein.\n",
    "russian": "Мой дядя самых честных правил, когда не в шутку занемог, он уважать себя заставил и лучше выдумать не мог. Его пример другим "
               "наука; но, боже мой, какая скука с больным сидеть и день и ночь, не отходя ни шагу прочь!\n",
    "chinese": "千里之行，始於足下。道可道，非常道；名可名，非常名。無名天地之始，有名萬物之母。故常無，欲以觀其妙；常有，欲以觀其徼。\n",
    "mixed": "naïve café — 5½ € ②③ x² Ⅷ ǅ ª º  \u2003\u00a0z\r\n  \u3000\u0085 'tis 's 'S a'b 'll'll  \u200b\U0001f600\U0001f600 e\u0301é ١٢٣ अनुच्छेद १\n" * 3,
}
SIZES = {"english": 300, "german": 320, "russian": 330, "chinese": 300, "mixed": 340}


def of_program(program, text, size):
    """The merges and the tokens: those that train, then those that validate."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "text"
        source.write_bytes(text.encode())
        subprocess.run([program, "tokenize", "--data", source, "--out", folder, "--vocabulary-size", str(size)], check=True, capture_output=True)
        merges = [list(map(int, line.split())) for line in (pathlib.Path(folder) / "merges.txt").read_text().splitlines()]
        tokens = []
        for path in sorted(pathlib.Path(folder).glob("*_train_*.bin")) + sorted(pathlib.Path(folder).glob("*_val_*.bin")):
            data = path.read_bytes()
            tokens += struct.unpack(f"<{(len(data) - 1024) // 2}H", data[1024:])
        return {"merges": merges, "tokens": tokens}


def of_package(text, size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {"merges": [[model["vocab"][a], model["vocab"][b]] for a, b in pairs], "tokens": tokenizer.encode(text).ids}


def main():
    program, how = sys.argv[1], sys.argv[2:]
    if how[:1] == ["--write"]:
        EXPECTED.write_text(json.dumps({name: of_package(text, SIZES[name]) for name, text in TEXTS.items()}) + "\n")
    if how[:1] == ["--compare"]:
        text = pathlib.Path(how[1]).read_text(encoding="utf-8")
        cases = {how[1]: (of_program(program, text, int(how[2])), of_package(text, int(how[2])))}
    else:
        expected = json.loads(EXPECTED.read_text())
        cases = {name: (of_program(program, text, SIZES[name]), expected[name]) for name, text in TEXTS.items()}
    wrong = [name for name, (ours, theirs) in cases.items() if ours != theirs]
    for name, (ours, theirs) in cases.items():
        for key in ("merges", "tokens"):
            at = next((i for i, (a, b) in enumerate(zip(ours[key], theirs[key])) if a != b), None)
            print(f"{name}: {len(ours[key])} {key}, {len(theirs[key])} expected" + (f"; they differ at {at}" if at is not None else ""))
    sys.exit(f"byte_pairs_test: differences in {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
