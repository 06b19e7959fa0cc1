# SPDX-License-Identifier: Apache-2.0
"""Prompts with known answers, as ids: a `rattn-prompts` file, what `rattn-sim eval` reads.

The tasks are in prompt_tasks.py. A prompt has exactly --length tokens and ends with the question;
primed answer and gold answer follow as the continuation. The same arguments give the same file.
"""

import argparse
import hashlib
import os
import re

import numpy as np

import safetensors_io
from prompt_tasks import TASKS, Case
from prompt_words import NOISE, derive, usable

TEMPLATES = {
    # before the text, between question and continuation
    "plain": ("", "\nAnswer: "),
    "chatml": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
}


class Prompt:
    """`tokens` = prompt and continuation, the first `P` of them prompt; `probes` lists
    (index, candidates)."""

    def __init__(self, seed, depth, tokens, P, probes, draft, size):
        self.seed, self.depth, self.tokens, self.P = seed, depth, tokens, P
        self.probes, self.draft, self.size = probes, draft, size


def padding(encode, n):
    """n tokens of noise that end a line: what the haystack's pieces leave of the length."""
    if n == 0:
        return []
    ids = encode(" ".join(NOISE))
    return ((ids * (n // len(ids) + 1))[: n - 1]) + encode("\n")


def one_token(encode, word, lead):
    """The id of `word` where it stands after `lead`."""
    before, both = encode(lead), encode(lead + word)
    if lead.endswith(" "):  # the space belongs to the word
        before = encode(lead[:-1])
    if len(both) != len(before) + 1 or both[:-1] != before:
        raise ValueError(f"'{word}' is not one token after '{lead}'")
    return both[-1]


def encode_fields(encode, draft):
    """The continuation's tokens, and (index, candidates) of each field in it."""
    ids, probes = [], []
    text = ""
    for field in draft.fields:
        lead = field.lead
        gold = one_token(encode, field.gold, lead)
        ids += encode(lead[:-1] if lead.endswith(" ") else lead)
        probes.append((len(ids), [one_token(encode, w, lead) for w in field.others]))
        ids.append(gold)
        text += lead + field.gold
    ids += encode(draft.end)
    if ids != encode(text + draft.end):
        raise ValueError(f"'{text + draft.end}' is not the tokens of its pieces")
    return ids, probes


def frame(encode, template, draft):
    """Tokens before the padding and after it, up to the continuation."""
    before, after = TEMPLATES[template]
    # " " at the end belongs to the continuation's first word, were it not forced apart.
    body = draft.text + "\n\n" + draft.question + after.rstrip(" ")
    return encode(before), encode(body)


def make_prompt(encode, words, args, seed, depth, sentences):
    def draw(size):
        draft = TASKS[args.task](Case(seed, size, depth, words, sentences))
        before, body = frame(encode, args.template, draft)
        return draft, before, body

    def used(size):
        _, before, body = draw(size)
        return len(before) + len(body)

    if used(1) > args.length:
        raise ValueError(f"{args.task}: {used(1)} tokens at least, --length is {args.length}")
    low, high = 1, 2  # fits, perhaps not
    while high < args.length and used(high) <= args.length:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if used(middle) <= args.length else (low, middle)
    draft, before, body = draw(low)
    ids = before + padding(encode, args.length - len(before) - len(body)) + body
    # "Answer:" and the continuation's first word are apart by the word's own space.
    after = TEMPLATES[args.template][1]
    first = draft.fields[0]
    if after.endswith(" ") and not first.lead.startswith(" "):
        first.lead = " " + first.lead
    more, probes = encode_fields(encode, draft)
    P = len(ids)
    return Prompt(seed, depth, ids + more, P, [(P + at, c) for at, c in probes], draft, low)


def make_prompts(encode, args, sentences=NOISE):
    """A list of Prompt; `encode` maps text to a list of ids."""
    words = usable(encode)
    prompts = []
    for i in range(args.n):
        depth = i / (args.n - 1) if args.n > 1 else 0.5
        depth = depth if args.depth is None else args.depth
        seed = derive(args.seed, i)
        prompts.append(make_prompt(encode, words, args, seed, depth, list(sentences)))
    return prompts


def tensors_of(prompts):
    probes = [(i, at) for i, p in enumerate(prompts) for at, _ in p.probes]
    candidates = [c for p in prompts for _, c in p.probes]
    return [
        ("seed", "I64", np.array([p.seed for p in prompts], np.int64)),
        ("tokens", "I32", np.concatenate([p.tokens for p in prompts]).astype(np.int32)),
        ("lengths", "I32", np.array([len(p.tokens) for p in prompts], np.int32)),
        ("prompt_len", "I32", np.array([p.P for p in prompts], np.int32)),
        ("depth", "F32", np.array([p.depth for p in prompts], np.float32)),
        ("probe", "I32", np.array(probes, np.int32)),
        ("candidates", "I32", np.array(candidates, np.int32)),
    ]


def spelling(args):
    words = [f"length={args.length}", f"n={args.n}", f"seed={args.seed}"]
    words += [f"template={args.template}"]
    words += [] if args.depth is None else [f"depth={args.depth:g}"]
    return f"{args.task}:" + ",".join(words)


def read_sentences(path):
    """Sentences of a text file, and its SHA-256."""
    with open(path, "rb") as file:
        data = file.read()
    text = re.sub(r"\s+", " ", data.decode("utf-8", "replace"))
    found = [s for s in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if 20 <= len(s) <= 400]
    if len(found) < 100:
        raise ValueError(f"{path}: {len(found)} sentences found, 100 needed")
    return found, hashlib.sha256(data).hexdigest()


def make_parser():
    parser = argparse.ArgumentParser(description="prompts with known answers, as token ids")
    add = parser.add_argument
    add("--task", required=True, choices=tuple(TASKS))
    add("--length", type=int, default=1024, help="tokens of the prompt (%(default)s)")
    add("--n", type=int, default=50, help="prompts (%(default)s)")
    add("--seed", type=int, default=42, help="every prompt's own seed comes of it (%(default)s)")
    add("--depth", type=float, help="0..1 for all; left out: spread evenly")
    add("--template", choices=tuple(TEMPLATES), default="chatml", help="(%(default)s)")
    add("--haystack", help="text file whose sentences hide needles and chains (noise sentences)")
    add("--license", default="", help="licence of --haystack, for the record")
    add("--model", required=True, help="prepared model directory")
    add("-o", "--output", required=True, help="file to write")
    return parser


def run(args):
    if args.n < 1 or args.length < 1 or not (args.depth is None or 0 <= args.depth <= 1):
        raise ValueError("expected --n and --length from 1 on and --depth in 0..1")
    import token_ids

    tokenizer = token_ids.load_tokenizer(args.model)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    source, digest, sentences = "make_prompts.py", "", NOISE
    if args.haystack:
        sentences, digest = read_sentences(args.haystack)
        source = f"make_prompts.py, haystack {os.path.basename(args.haystack)}"
    prompts = make_prompts(encode, args, sentences)
    metadata = {
        "format": "rattn-prompts",
        "version": "1.0",
        "task": spelling(args),
        "family": "niah" if args.task.startswith("niah-") else args.task,
        "tokenizer.sha256": safetensors_io.file_sha256(os.path.join(args.model, "tokenizer.json")),
        "source": source,
        "source_sha256": digest,
        "license": args.license if args.haystack else "Apache-2.0",
    }
    safetensors_io.write(args.output, tensors_of(prompts), metadata)
    steps = sorted({len(p.tokens) - p.P for p in prompts})
    probes = sum(len(p.probes) for p in prompts)
    print(
        f"{args.output}: {len(prompts)} prompts of {args.length} tokens, {steps[0]}..{steps[-1]} "
        f"tokens after them, {probes} judged"
    )


def main():
    try:
        run(make_parser().parse_args())
    except (ValueError, OSError) as error:
        raise SystemExit(f"make_prompts: {error}")


if __name__ == "__main__":
    main()
