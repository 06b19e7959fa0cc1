# SPDX-License-Identifier: Apache-2.0
"""Tests of make_prompts.py and score_prompts.py: numpy only, no model, no tokenizer, no network.

A toy tokenizer stands in: it cuts text as byte-level BPE does (a word takes the space before it)
and makes each piece one token. Prompts are turned back into text and read by parsers of their own:
json, html.parser, regular expressions. Ends with `N passed, N failed`.
"""

import argparse
import contextlib
import hashlib
import html.parser
import io
import json
import os
import re
import sys
import tempfile
import types

import numpy as np

import make_prompts
import prompt_words
import reference_forward as forward
import safetensors_io
import score_prompts
from prompt_tasks import CANDIDATES, TASKS
from tiny_llama import Naive, tiny_model

results = []


def check(what, holds, figures=""):
    results.append(bool(holds))
    print(("ok    " if holds else "FAIL  ") + what + (f": {figures}" if str(figures) else ""))


class Toy:
    """Special tokens, words with the space before them, single digits, other characters."""

    PIECE = re.compile(r"<\|im_\w+\|>| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|[0-9]|\s")

    def __init__(self):
        self.ids, self.pieces = {}, []

    def encode(self, text):
        out = []
        for piece in self.PIECE.findall(text):
            if piece not in self.ids:
                self.ids[piece] = len(self.pieces)
                self.pieces.append(piece)
            out.append(self.ids[piece])
        return out

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


def arguments(task, **given):
    usual = {"length": 700, "n": 3, "seed": 42, "depth": None, "template": "chatml"}
    return argparse.Namespace(task=task, **{**usual, **given})


# --- what each task's text says, read back ------------------------------------------------------


def read_needles(prompt, after, golds):
    told = re.findall(r"The special magic word for (\w+(?: \w+)??)(?: is)?: (\w+)\.", prompt)
    asked = dict(re.findall(r"The special magic word for (\w+(?: \w+)??)(?: is)?: (\w+)", after))
    many = re.search(r"The special magic words for (\w+) are: ([\w, ]+)\.", after)
    if many:
        asked = [(many[1], value) for value in many[2].split(", ")]
        return sorted(told) == sorted(asked) and [v for _, v in asked] == golds
    each_once = all(told.count(pair) == 1 for pair in asked.items())
    keys_once = len({key for key, _ in told}) == len(told)
    return each_once and keys_once and list(asked.values()) == golds and len(golds) == len(asked)


def read_vt(prompt, after, golds):
    value = re.search(r"hold the value (\w+)\?", prompt)[1]
    (start,) = re.findall(rf"VAR (\w+) = {value}\.", prompt)
    copies = re.findall(r"VAR (\w+) is copied to VAR (\w+)\.", prompt)
    order, names = dict(copies), [start]
    while names[-1] in order:
        names.append(order[names[-1]])
    return len(order) == len(copies) and names[1:] == golds


def read_cwe(prompt, after, golds):
    counts = {}
    for word in re.findall(r"\d+\. (\w+)", prompt):
        counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts, key=counts.get)
    first, before = ranked[-len(golds)], ranked[-len(golds) - 1]
    return set(ranked[-len(golds) :]) == set(golds) and counts[first] >= 2 * counts[before]


def read_fwe(prompt, after, golds):
    (line,) = [text for text in prompt.split("\n") if text.count("...") > 3]
    counts = {}
    for word in re.findall(r"[a-z]+|\.\.\.", line):
        counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts, key=lambda word: -counts[word])
    falls = [counts[word] for word in ranked[:5]]
    return ranked[:4] == ["...", *golds] and all(a > b for a, b in zip(falls, falls[1:]))


def read_kv(prompt, after, golds):
    said = json.loads(prompt[prompt.index("{") : prompt.index("}") + 1])
    (key,) = re.findall(r'value of the key "([\w ]+)"', prompt)
    repeated = prompt.count(f'"{key}": "')
    forced = f'"{key}": "{said[key]}"' in after
    last = [value.split()[-1] for value in said.values()]
    holds = forced and golds == [said[key].split()[-1]]
    return holds and repeated == 1 and last.count(golds[0]) == 1


def read_chain(prompt, after, golds):
    keys = re.findall(r"KEY: (\w+) (\w+) (\w+)\.", prompt)
    name = re.search(r"starts with the word (\w+)\.", prompt)[1]
    step, walk = {first: last for first, _, last in keys}, []
    while name in step and len(walk) <= len(keys):
        name = step[name]
        walk.append(name)
    said = re.findall(r"KEY: (\w+ \w+ \w+)\.", after)
    listed = {" ".join(key) for key in keys}
    holds = len(step) == len(keys) and walk == golds
    return holds and len(said) == len(golds) and set(said) <= listed


class Tables(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.title, self.cell = {}, None, None

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.found.setdefault(self.title, []).append([])
        self.cell = tag if tag in ("h2", "td", "th") else None

    def handle_data(self, data):
        if self.cell == "h2":
            self.title = data.split()[-1]
        elif self.cell:
            self.found[self.title][-1].append(data)
        self.cell = None


def read_table(prompt, after, golds):
    tables = Tables()
    tables.feed(prompt)
    name = re.findall(r"Convert the table (\w+) to TSV", prompt)[-1]
    tsv = [line.split("\t") for line in after.strip().split("\n") if "\t" in line]
    cells = [cell.split()[-1] for row in tables.found[name][1:] for cell in row]
    return tsv == tables.found[name] and cells == golds


READERS = {
    "vt": read_vt,
    "cwe": read_cwe,
    "fwe": read_fwe,
    "kv-recall": read_kv,
    "chain-of-key": read_chain,
    "table-to-tsv": read_table,
}


def test_task(task, template, length):
    """Would catch an answer the text does not hold, or holds twice; a probe beside its token; a
    prompt that is a token too long; a candidate that is right as well."""
    toy = Toy()
    args = arguments(task, template=template, length=length)
    prompts = make_prompts.make_prompts(toy.encode, args)
    words = set(prompt_words.usable(toy.encode))
    exact = truth = probes = forms = joint = True
    for prompt in prompts:
        text = toy.decode(prompt.tokens[: prompt.P])
        after = toy.decode(prompt.tokens[prompt.P :])
        golds = [field.gold for field in prompt.draft.fields]
        exact &= prompt.P == length
        joint &= toy.encode(text + after) == list(prompt.tokens)
        truth &= READERS.get(task, read_needles)(text, after, golds)
        at = [index for index, _ in prompt.probes]
        probes &= [toy.pieces[prompt.tokens[i]].strip() for i in at] == golds
        probes &= at == sorted(set(at)) and prompt.P < at[0] and at[-1] < len(prompt.tokens)
        for (index, wrong), gold in zip(prompt.probes, golds):
            names = [toy.pieces[i] for i in wrong]
            spaced = toy.pieces[prompt.tokens[index]].startswith(" ")
            forms &= len(set(names)) == CANDIDATES and gold not in [name.strip() for name in names]
            forms &= all(n.strip() in words and n.startswith(" ") == spaced for n in names)
    what = f"{task}, {template}, {length} tokens"
    check(f"{what}: prompt has exactly these", exact)
    check(f"{what}: the text holds the answers, once", truth)
    check(f"{what}: probes point at them, after the prompt's end and a primed token", probes)
    check(f"{what}: candidates are {CANDIDATES} other words of the same form", forms)
    check(f"{what}: tokens are those of the text as a whole", joint)


def test_wrong_answers():
    """Candidates of tasks whose answers have no order must not be right answers."""
    toy = Toy()
    for task in ("niah-multivalue", "cwe", "fwe"):
        prompts = make_prompts.make_prompts(toy.encode, arguments(task, length=900))
        holds = True
        for prompt in prompts:
            golds = {field.gold for field in prompt.draft.fields}
            holds &= not any(golds & set(field.others) for field in prompt.draft.fields)
        check(f"{task}: no candidate is another right answer", holds)


def test_depth():
    """Would catch a depth that is written down but not obeyed."""
    toy = Toy()
    for task in ("niah-single", "kv-recall", "chain-of-key", "table-to-tsv"):
        prompts = make_prompts.make_prompts(toy.encode, arguments(task, n=5, length=900))
        places = []
        for prompt in prompts:
            text, field = prompt.draft.haystack, prompt.draft.fields[0]
            said = rf'(: |: "\w+ |KEY: \w+ \w+ |<td>\w+ ){field.gold}\b'
            places.append(re.search(said, text).start() / len(text))
        steps = [b - a for a, b in zip(places, places[1:])]
        figures = " ".join(f"{p:.2f}" for p in places)
        spread = min(steps) > -0.05 and places[0] < 0.2 and places[-1] > 0.7
        check(f"{task}: depth grows from the start to the end", spread, figures)
        one = make_prompts.make_prompts(toy.encode, arguments(task, n=2, depth=0.25))
        check(f"{task}: --depth holds for all", [p.depth for p in one] == [0.25, 0.25])


def test_file(folder):
    """Would catch a file that differs from run to run, and tensors that do not fit together."""

    def write(name, **given):
        args = arguments("niah-multiquery", n=4, **given)
        prompts = make_prompts.make_prompts(Toy().encode, args)
        path = os.path.join(folder, name)
        safetensors_io.write(path, make_prompts.tensors_of(prompts), {"task": "t"})
        with open(path, "rb") as file:
            return path, hashlib.sha256(file.read()).hexdigest()

    path, digest = write("a")
    check("same seed, same file", write("b")[1] == digest)
    check("another seed, another file", write("c", seed=43)[1] != digest)
    reader = safetensors_io.Reader(path)
    lengths, probe = reader.raw("lengths"), reader.raw("probe")
    check("lengths add up to the tokens", lengths.sum() == reader.shape("tokens")[0])
    seeds = reader.raw("seed").tolist()
    check("seeds: one of its own for each, none negative", len(set(seeds)) == 4 and min(seeds) >= 0)
    order = [tuple(row) for row in probe.tolist()]
    check("probes ascend, none twice", order == sorted(set(order)))
    check("a row of candidates for each probe", reader.shape("candidates") == (len(probe), 15))
    again = make_prompts.make_prompts(Toy().encode, arguments("niah-multiquery", n=2))
    both = make_prompts.make_prompts(Toy().encode, arguments("niah-multiquery", n=7))
    same = [p.seed for p in again] == [p.seed for p in both[:2]]
    check("a prompt's seed does not depend on n", same)


def test_command(folder):
    """The command itself, the toy in the place of the tokenizer."""
    toy = Toy()
    stub = types.ModuleType("token_ids")
    result = lambda text, **_: types.SimpleNamespace(ids=toy.encode(text))
    stub.load_tokenizer = lambda _: types.SimpleNamespace(encode=result)
    sys.modules["token_ids"] = stub
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as out:
        out.write("{}")
    essay = os.path.join(folder, "essay.txt")
    with open(essay, "w", encoding="utf-8") as out:
        names = [(a, b) for a in "ABCDEFGHIJKLMN" for b in "opqrstuvw"]
        out.write(" ".join(f"Sentence {a} of {b} tells nothing much." for a, b in names))
    path = os.path.join(folder, "out.safetensors")
    argv = ["--task", "niah-single", "--n", "2", "--length", "600", "--model", folder, "-o", path]
    argv += ["--haystack", essay, "--license", "CC0"]
    with contextlib.redirect_stdout(io.StringIO()):
        make_prompts.run(make_prompts.make_parser().parse_args(argv))
    said = safetensors_io.Reader(path).metadata
    with open(essay, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    wanted = {"format": "rattn-prompts", "version": "1.0", "family": "niah", "license": "CC0"}
    wanted |= {"source_sha256": digest, "tokenizer.sha256": hashlib.sha256(b"{}").hexdigest()}
    check("metadata", all(said.get(k) == v for k, v in wanted.items()), said.get("task"))
    tokens = safetensors_io.Reader(path).raw("tokens")
    check("--haystack: its sentences hide the needle", "tells nothing much" in toy.decode(tokens))
    for what, more, expected in (
        ("a length that holds no prompt", ["--length", "30"], "at least"),
        ("a depth above 1", ["--depth", "1.5"], "0..1"),
        ("no prompts", ["--n", "0"], "from 1 on"),
    ):
        try:
            make_prompts.run(make_prompts.make_parser().parse_args(argv + more))
        except ValueError as error:
            check(f"refuses {what}", expected in str(error), error)
        else:
            check(f"refuses {what}", False)


def test_dice():
    """splitmix64's published sequence for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    dice = prompt_words.Dice(1234567)
    got = [dice.below(1 << 64) for _ in published]
    check("dice are splitmix64", got == published, got)
    drawn = prompt_words.Dice(1).shuffled(range(50))
    check("a shuffle keeps every item", sorted(drawn) == list(range(50)) and drawn != sorted(drawn))
    words = prompt_words.WORDS
    check("no word stands in the list twice", len(set(words)) == len(words))


def test_score():
    """Would catch a mask that is off by one, or a block that differs from single steps."""
    config, weights = tiny_model(6, 2, 8, 27, False, seed=3)
    model = forward.Model(config, weights, np.float64)
    ids = np.random.default_rng(2).integers(0, 37, 40)
    P, K = 24, 10

    def block(attend):
        decoder = forward.Decoder(model, 40, "f32")
        last = decoder.prefill(ids[:P])
        return score_prompts.continuation_logits(decoder, last, ids, P, attend)

    naive = Naive(config, weights, np.float32)
    full = np.array([naive.logits(token, pos) for pos, token in enumerate(ids[:-1])])[P - 1 :]
    worst = np.abs(block(forward.attend) - full).max()
    check("full attention over the continuation: the naive loop", worst < 1e-9, f"{worst:.1e}")
    wide = np.abs(block(score_prompts.streaming_attend(40)) - full).max()
    check("streaming with a window over all is full attention", wide < 1e-9, f"{wide:.1e}")
    # Single steps over a cache from which the keys that streaming drops were taken out.
    narrow, decoder = block(score_prompts.streaming_attend(K)), forward.Decoder(model, 40, "f32")
    decoder.prefill(ids[:P])
    original, worst = forward.attend, 0.0
    try:
        for pos in range(P, 39):
            kept = [*range(4), *range(pos - (K - 4), pos + 1)]
            forward.attend = lambda q, k, v, scale, *_, kept=kept: original(
                q, k[:, kept], v[:, kept], scale
            )
            logits = decoder.logits(decoder.forward(ids[pos : pos + 1]))[0]
            worst = max(worst, np.abs(logits - narrow[pos - P + 1]).max())
    finally:
        forward.attend = original
    check("streaming: single steps over 4 + 6 keys and the token", worst < 1e-9, f"{worst:.1e}")
    check("streaming differs from full", np.abs(narrow - full).max() > 1e-3)
    logits = np.zeros((3, 9))
    logits[1, [4, 5, 6]] = 2, 3, 1
    score = score_prompts.Score(logits, 10, np.array([0] * 11 + [4]), [11], np.array([[6, -1]]))
    holds = score.right == [True] and score.margin == [1.0]
    check("right: above its candidates, not above all", holds)
    check("its rank among all tokens", score.places == [1])
    score = score_prompts.Score(logits, 10, np.array([0] * 11 + [4]), [11], np.array([[-1, -1]]))
    check("without candidates the argmax counts", score.right == [False])


def main():
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            test_task(task, "chatml", 1024)
            test_task(task, "plain", 601)
        test_wrong_answers()
        test_depth()
        test_file(folder)
        test_command(folder)
        test_dice()
        test_score()
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
