# SPDX-License-Identifier: Apache-2.0
"""Proves the reference decoder on real weights: what no tiny model can show.

Perplexity on ordinary English, a readable greedy answer, check rows and log-probabilities of a
trace, decoding against prefill, f32 against f64, the tokenizer there and back, the q/k row order.
Prints each figure; exit 1 when one is out of its bound. About two minutes and 3 GiB.
"""

import argparse
import inspect
import random
import re
import sys

import numpy as np

import prepare_model
import reference_forward as forward
import safetensors_io
import token_ids

QUESTION = "What is the capital of France? Answer in one sentence, then say what it is known for."
results = []


def check(what, holds, figures):
    results.append(bool(holds))
    print(("ok    " if holds else "FAIL  ") + f"{what}: {figures}", flush=True)


def log_probabilities(model, ids, cache="f16"):
    """ln p(ids[i+1] | ids[..i]) for each i, by prefill alone."""
    decoder, out = forward.Decoder(model, len(ids), cache), []
    for i in range(0, len(ids) - 1, forward.CHUNK):
        block = ids[i : min(i + forward.CHUNK, len(ids) - 1)]
        logits = decoder.logits(decoder.forward(block))
        out += [forward.log_softmax(z)[t] for z, t in zip(logits, ids[i + 1 :])]
    return np.array(out)


def perplexity(model, ids):
    return float(np.exp(-log_probabilities(model, ids).mean()))


def check_tokenizer(tokenizer, english):
    """100 KB of everything; byte-level BPE must give back each byte, and each digit stands alone."""
    dice = random.Random(20)
    scripts = (
        "Grüße, naïve façade. Привет, мир! Γειά σου Κόσμε. 你好，世界。こんにちは世界。안녕하세요. "
    )
    scripts += (
        "مرحبا بالعالم. שלום עולם. नमस्ते दुनिया। สวัสดีชาวโลก. e\u0301 a\u0308 \u200d\u200b "
    )
    emoji = "👩‍👩‍👧‍👦 🇩🇪 👍🏽 🧑🏿‍🚀 ❤️ ☃ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 "
    numbers = " ".join(str(dice.getrandbits(dice.randrange(1, 90))) for _ in range(600))
    numbers += " 1,234.50 -7e-3 0x1F 10:59:07 2003-12-29 "
    blanks = "".join(
        dice.choice([" ", "  ", "\t", "\n", "\r\n", " " * 17, "\u00a0", "\u3000", "x"])
        for _ in range(4000)
    )
    points = [*range(1, 0xD800), *range(0xE000, 0x30000)]
    wild = "".join(chr(dice.choice(points)) for _ in range(3000))
    code = inspect.getsource(argparse)[:30000]
    mixed = english[:30000] + code + scripts * 20 + emoji * 30 + numbers + blanks + wild
    ids = tokenizer.encode(mixed, add_special_tokens=False).ids
    size = len(mixed.encode())
    same = tokenizer.decode(ids, skip_special_tokens=False) == mixed
    check(
        "tokenizer gives mixed text back",
        same and size >= 100_000,
        f"{size} bytes, {len(ids)} tokens",
    )
    check("each digit is a token", len(tokenizer.encode("9081726").ids) == 7, "9081726 gives 7")


def check_trace(model, path, logprob):
    """The file against itself (o, lse in f64 from its q, k, v) and against this run (logprob)."""
    trace = safetensors_io.Reader(path)
    number = lambda key: int(trace.metadata[key])
    P, N, W = (number("s0." + key) for key in ("prompt_len", "decode_len", "q_tail"))
    scale, worst_o, worst_lse, worst_acc = float(trace.metadata["attn_scale"]), 0.0, 0.0, 0.0
    steps = trace.raw("s0.check_steps")
    for layer in trace.metadata["layers"].split(","):
        k, v, q = (trace.f32(f"s0.l{layer}.{x}").astype(np.float64) for x in "kvq")
        o, lse, acc = (trace.f32(f"s0.l{layer}.{x}") for x in ("o", "lse", "acc"))
        k, v = (np.repeat(x, len(q) // len(k), axis=0) for x in (k, v))
        for row, t in enumerate(steps):
            z = np.einsum("hd,hjd->hj", q[:, W + t], k[:, : P + t + 1]) * scale
            e = np.exp(z - z.max(axis=1, keepdims=True))
            total = e.sum(axis=1, keepdims=True)
            exact = np.einsum("hj,hjd->hd", e / total, v[:, : P + t + 1])
            worst_o = max(worst_o, np.abs(exact - o[:, row]).max())
            exact = z.max(axis=1) + np.log(total[:, 0])
            worst_lse = max(worst_lse, np.abs(exact - lse[:, row]).max())
        worst_acc = max(worst_acc, np.abs(acc.astype(np.float64).sum(axis=1) / P - 1).max())
    check("check rows: o from the file's q, k, v in f64", worst_o <= 1e-5, f"{worst_o:.1e} <= 1e-5")
    check("check rows: lse likewise", worst_lse <= 1e-5, f"{worst_lse:.1e} <= 1e-5")
    check("acc: each head's sum is P", worst_acc <= 1e-5, f"{worst_acc:.1e} <= 1e-5")
    worst = np.abs(logprob[P : P + N] - trace.raw("s0.logprob")).max()
    check("trace logprob (decoded) against prefill", worst <= 1e-5, f"{worst:.1e} <= 1e-5")


def check_decode(model, ids):
    """The same tokens in one block, in chunks of 256, and token by token after 200."""
    whole = forward.Decoder(model, 300)
    expected = whole.logits(whole.forward(ids[:300]))
    chunked = forward.Decoder(model, 300)
    worst = np.abs(chunked.prefill(ids[:300]) - expected[-1]).max()
    check("chunked against one-block prefill: logits", worst <= 1e-9, f"{worst:.1e} <= 1e-9")
    decoder, worst = forward.Decoder(model, 300), 0.0
    decoder.prefill(ids[:200])
    for i in range(200, 300):
        logits = decoder.logits(decoder.forward(ids[i : i + 1]))[0]
        worst = max(worst, np.abs(logits - expected[i]).max())
    check("decode against prefill, 100 tokens: logits", worst <= 1e-9, f"{worst:.1e} <= 1e-9")


def check_f32(model, directory, ids):
    """What a decoder in f32 may differ by. The cache is f32 too: f16 would amplify it."""
    logits = []
    for each in (model, forward.Model.load(directory, np.float32)):
        decoder = forward.Decoder(each, 256, "f32")
        logits.append(decoder.logits(decoder.forward(ids[:256])))
    worst = np.abs(logits[0] - logits[1]).max()
    agree = (logits[0].argmax(axis=1) == logits[1].argmax(axis=1)).mean()
    check(
        "f32 against f64, 256 tokens: logits",
        worst <= 1e-3,
        f"{worst:.1e} <= 1e-3, argmax equal {agree:.3f}",
    )


def check_greedy(model, tokenizer):
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    )
    prompt += f"<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    ids, answer = tokenizer.encode(prompt, add_special_tokens=False).ids, []
    decoder = forward.Decoder(model, len(ids) + 80)
    logits = decoder.prefill(ids)
    while len(answer) < 80 and int(logits.argmax()) != model.config["eos_token_id"]:
        answer.append(int(logits.argmax()))
        logits = decoder.logits(decoder.forward(answer[-1:]))[0]
    text = tokenizer.decode(answer)
    check(
        "greedy answer names Paris", "Paris" in text, f"\n        Q: {QUESTION}\n        A: {text}"
    )


def check_row_order(model, ids, right):
    """Only one row order of q and k is this model: with the file's own order attention is noise."""
    weights = dict(model.weights)
    for name in weights:
        for kind, heads in (("q_proj", model.Hq), ("k_proj", model.Hkv)):
            if kind in name:
                back = prepare_model.permute(weights[name], heads)
                if (prepare_model.unpermute(back, heads) != weights[name]).any():
                    check("unpermute undoes permute", False, name)
                weights[name] = np.ascontiguousarray(back)
    wrong = perplexity(forward.Model(model.config, weights), ids)
    check(
        "perplexity with q, k rows left interleaved",
        wrong > 10 * right,
        f"{wrong:.0f}, right order {right:.1f}",
    )


def main():
    parser = argparse.ArgumentParser(description="prove the reference decoder on real weights")
    parser.add_argument("model", help="prepared model directory")
    parser.add_argument("ids", help="ids file of English text, 2049 tokens or more")
    parser.add_argument("trace", help="teacher-forced trace of the same ids")
    args = parser.parse_args()
    tokenizer = token_ids.load_tokenizer(args.model)
    ids = safetensors_io.Reader(args.ids).raw("tokens")
    english = tokenizer.decode(ids.tolist())
    check_tokenizer(tokenizer, english)
    model = forward.Model.load(args.model)
    logprob = log_probabilities(model, ids[:2049])
    value = float(np.exp(-logprob.mean()))
    check("perplexity, text as it stands, 2048 tokens", value < 30, f"{value:.2f} < 30")
    check_trace(model, args.trace, logprob)
    # Plain prose: paragraphs joined to one line each, without the layout the model must guess too.
    prose = "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", english))
    prose_ids = np.array(tokenizer.encode(prose, add_special_tokens=False).ids[:2049])
    value = perplexity(model, prose_ids)
    check("perplexity, same text as plain prose, 2048 tokens", value < 30, f"{value:.2f} < 30")
    right = perplexity(model, prose_ids[:513])
    mixed = perplexity(model, np.random.default_rng(0).permutation(prose_ids[:513]))
    check("perplexity of shuffled tokens", mixed > 10 * right, f"{mixed:.0f}, in order {right:.1f}")
    check_row_order(model, prose_ids[:513], right)
    check_decode(model, ids)
    check_f32(model, args.model, ids)
    check_greedy(model, tokenizer)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
