# SPDX-License-Identifier: Apache-2.0
"""How many prompts of `rattn-prompts` files the model gets right: under full attention, and when
the tokens after the prompt see only sinks and the most recent ones. Says which files can show
anything: a (task, length) counts if full attention is right on 80 % of its prompts.

The forward pass is that of reference_forward.py. The tokens after the prompt go through in one
block: each row's mask is what its decode step would see, so the numbers are the same.
"""

import argparse

import numpy as np

import reference_forward as forward
import safetensors_io

SINKS = 4


def streaming_attend(K):
    """forward.attend, with the first 4 and the most recent tokens: K keys and the token itself."""

    def attend(q, k, v, scale, received=None, window=0):
        if window:
            raise ValueError("streaming over layers that see a window is not supported")
        (Hq, n, D), (Hkv, m, _) = q.shape, k.shape
        rows, columns = np.arange(m - n, m)[:, None], np.arange(m)[None, :]
        seen = (columns <= rows) & ((columns < SINKS) | (columns >= rows - (K - SINKS)))
        group = Hq // Hkv
        s = (q.reshape(Hkv, group * n, D) * scale) @ k.transpose(0, 2, 1)
        s = np.where(seen, s.reshape(Hkv, group, n, m), -np.inf)
        top = s.max(axis=3, keepdims=True)
        p = np.exp(s - top)
        total = p.sum(axis=3, keepdims=True)
        o = (p / total).reshape(Hkv, group * n, m) @ v
        return o.reshape(Hq, n, D), (top + np.log(total)).reshape(Hq, n)

    return attend


class Score:
    """Of one prompt under one attention: right or not at each probe, margins, log-probabilities."""

    def __init__(self, logits, P, tokens, probes, candidates):
        self.right, self.margin, self.logprob, self.places = [], [], [], []
        for at, wrong in zip(probes, candidates):
            row, gold = logits[at - P], tokens[at]
            wrong = wrong[wrong >= 0]
            best = row[wrong].max() if len(wrong) else np.delete(row, gold).max()
            self.margin.append(float(row[gold] - best))
            self.right.append(bool(row[gold] > best))
            self.logprob.append(float(forward.log_softmax(row)[gold]))
            self.places.append(int((row > row[gold]).sum()))


def continuation_logits(decoder, last, tokens, P, attend):
    """Logits that predict tokens[P:]: the prefill's last, then one row a token."""
    original, decoder.length, forward.attend = forward.attend, P, attend
    try:
        hidden = decoder.forward(tokens[P:-1])
    finally:
        forward.attend = original
    return np.concatenate([last[None], decoder.logits(hidden)])


def score_file(model, path, n, fraction):
    """Lists of Score, full and streaming, of the first n prompts (0: all)."""
    reader = safetensors_io.Reader(path)
    lengths, prompt_len = reader.raw("lengths"), reader.raw("prompt_len")
    probe, candidates = reader.raw("probe"), reader.raw("candidates")
    tokens, start = reader.raw("tokens"), np.concatenate([[0], np.cumsum(lengths)])
    scores = ([], [])
    for i in range(min(n or len(lengths), len(lengths))):
        ids, P = tokens[start[i] : start[i + 1]], int(prompt_len[i])
        mine = probe[:, 0] == i
        decoder = forward.Decoder(model, len(ids), "f16")
        last = decoder.prefill(ids[:P])
        for out, attend in zip(scores, (forward.attend, streaming_attend(P // fraction))):
            logits = continuation_logits(decoder, last, ids, P, attend)
            out.append(Score(logits, P, ids, probe[mine, 1], candidates[mine]))
    return reader.metadata, scores


def percent(flags):
    return 100 * sum(flags) / len(flags)


def line(metadata, scores):
    full, streaming = (percent([all(s.right) for s in side]) for side in scores)
    words = [f"{metadata['task']:<70}", f"n {len(scores[0]):>3}", f"full {full:5.1f} %"]
    words.append(f"streaming {streaming:5.1f} %")
    for side in scores:
        flat = [x for s in side for x in s.right]
        places = [x == 0 for s in side for x in s.places]
        margin = np.mean([x for s in side for x in s.margin])
        words.append(f"probes {percent(flat):5.1f} % argmax {percent(places):5.1f} %")
        words.append(f"margin {margin:5.2f}")
    words.append("counts" if full >= 80 else f"n/a (baseline {full:.0f} %)")
    return "  ".join(words)


def main():
    parser = argparse.ArgumentParser(description="score prompts under full and streaming attention")
    parser.add_argument("model", help="prepared model directory")
    parser.add_argument("prompts", nargs="+", help="rattn-prompts files")
    parser.add_argument("--first", type=int, default=0, help="prompts of each file (all)")
    parser.add_argument("--fraction", type=int, default=8, help="K = P / this (%(default)s)")
    parser.add_argument("--by-probe", action="store_true", help="also right answers by probe")
    args = parser.parse_args()
    model = forward.Model.load(args.model, np.float32)
    for path in args.prompts:
        metadata, scores = score_file(model, path, args.first, args.fraction)
        print(line(metadata, scores), flush=True)
        if args.by_probe:
            for side, name in zip(scores, ("full", "streaming")):
                rows = ["".join("x" if r else "." for r in s.right) for s in side]
                print(f"  {name}: " + " ".join(rows), flush=True)


if __name__ == "__main__":
    main()
