# SPDX-License-Identifier: Apache-2.0
"""H2O: heavy hitters and recent tokens. Zhang et al., arXiv 2306.14048, section 4, algorithm 1.

A position's score is all the attention it has received so far. Of a full cache the newest stay
whatever their score, and of the rest those with the largest score. An evicted position loses its
score and never comes back; old positions win by seniority, which is part of the method.

Each step attends to the kept positions and itself; the probabilities of exactly that softmax are
added to the scores. The step's own position enters with what it gave itself, then the cut is made.

Paper and public code: the paper's algorithm evicts while it reads the prompt; the code
(H2OKVCache_LayerWise) reads the whole prompt with full attention, sums the probabilities of all its
queries and cuts once. Here as the code: `acc` of the trace is that sum. The code knows no shared KV
heads: agg=sum (max, mean, first) makes one score of a group's. recent=0.5 is the paper's half and
half.
"""

from common import aggregate, best, budget, full_layers, group, group_attention, part, with_defaults

DEFAULTS = {"k": None, "recent": "0.5", "agg": "sum"}


def cut(score, k, r):
    """score: {position: score} of one KV head."""
    if len(score) <= k:
        return score
    positions = sorted(score)
    recent = positions[len(positions) - r :]
    rest = positions[: len(positions) - r]
    kept = recent + best(rest, score, k - r)
    return {j: score[j] for j in sorted(kept)}


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        k = budget(o["k"], view.P)
        r = part(o["recent"], k)
        caches = []
        for kv in range(view.Hkv):
            received = aggregate([view.acc[h] for h in group(view, kv)], o["agg"])
            caches.append(cut(dict(enumerate(received)), k, r))
        for t in range(view.N):
            me = view.P + t
            layer.attend(caches)
            for kv in range(view.Hkv):
                here = sorted(caches[kv]) + [me]
                p = group_attention(view, t + 1, kv, here, o["agg"])
                score = {j: caches[kv].get(j, 0.0) + float(x) for j, x in zip(here, p)}
                caches[kv] = cut(score, k, r)
    return result
