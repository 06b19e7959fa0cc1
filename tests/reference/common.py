# SPDX-License-Identifier: Apache-2.0
"""What the references share: spellings, softmax, groups, pools, and the rule for ties.

Plain on purpose: lists, loops and sorted(), one position at a time. Traces are read by
tests/audit/attention.py. Letters as everywhere: P prompt tokens, N steps, K budget, G query heads
per KV head; step t processes position self = P + t.
"""

import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "audit"))


# --- spellings -----------------------------------------------------------------------------------
def parse(spelling):
    """"h2o:k=8,recent=0.25" -> ("h2o", {"k": "8", "recent": "0.25"})"""
    name, _, rest = spelling.partition(":")
    return name, dict(pair.split("=", 1) for pair in rest.split(",") if pair)


def budget(text, P):
    """K: a number, or a/b of the prompt, at least 1."""
    if "/" in text:
        a, b = text.split("/")
        return max(1, P * int(a) // int(b))
    return int(text)


def part(text, n):
    """floor(n * fraction); the fraction a decimal or a/b."""
    if "/" in text:
        a, b = text.split("/")
        return n * int(a) // int(b)
    return int(np.floor(n * float(text)))


# --- numbers -------------------------------------------------------------------------------------
def softmax(logits):
    """Over all entries of a 1-D array."""
    e = np.exp(np.asarray(logits, float) - np.max(logits))
    return e / sum(e)


def attention(view, row, head, positions):
    """Softmax of a query head over `positions`. Row 0: the last prompt token's; t+1: step t's."""
    keys = view.K[head // view.G][positions]
    return softmax(view.scale * (keys @ view.q[head, row]))


def aggregate(rows, agg):
    """One score per entry from the rows of the group's query heads."""
    rows = [np.asarray(row, float) for row in rows]
    if agg == "first":
        return rows[0]
    if agg == "max":
        return np.max(rows, axis=0)
    total = sum(rows[1:], rows[0])
    return total / len(rows) if agg == "mean" else total


def group(view, kv):
    """The query heads of a KV head."""
    return range(kv * view.G, (kv + 1) * view.G)


def group_attention(view, row, kv, positions, agg):
    return aggregate([attention(view, row, h, positions) for h in group(view, kv)], agg)


def pool(score, width, kind):
    """Same length. max: beyond the ends nothing counts; avg: zeros do, in the divisor too."""
    half, n, result = width // 2, len(score), []
    for j in range(n):
        near = [score[i] for i in range(j - half, j + half + 1) if 0 <= i < n]
        result.append(max(near) if kind == "max" else sum(near) / width)
    return result


# --- choosing ------------------------------------------------------------------------------------
margins = []  # of each choice: relative distance between the worst taken and the best left


def best(candidates, score, k, exact=True):
    """The k candidates of the highest score, best first; of equal ones, whichever is listed first.

    exact=False: equal scores may differ by rounding elsewhere (sums in another order), so that a
    tie counts as a near one.
    """
    ranked = sorted(candidates, key=lambda j: -score[j])  # sorted() is stable
    if 0 < k < len(ranked):
        a, b = score[ranked[k - 1]], score[ranked[k]]
        if a != b or not exact:
            margins.append(abs(a - b) / max(abs(a), abs(b), 1e-300))
    return ranked[:k]


# --- layers and results --------------------------------------------------------------------------
class Layer:
    """What a policy did to one full-attention layer.

    sets[t][h]: ascending positions without self, None for everything; h counts KV heads, or query
    heads where `heads` is "query". order[t][h], where evictions follow an order: what the cache
    holds after step t, next to be evicted first.
    """

    def __init__(self, layer, view, heads="kv"):
        self.layer, self.view, self.heads = layer, view, heads
        self.is_full, self.sets, self.order = [], [], []

    def attend(self, sets):
        self.is_full.append(0)
        self.sets.append([sorted(int(j) for j in one) for one in sets])

    def attend_all(self):
        self.is_full.append(1)
        self.sets.append([None] * (self.view.Hkv if self.heads == "kv" else self.view.Hq))

    def set_of(self, t, head):
        """The set of a query head."""
        return self.sets[t][head if self.heads == "query" else head // self.view.G]

    def quality(self):
        """out [N, Hq, Dv], mass and rel_err [N, Hq]; NaN where an error is not defined."""
        view = self.view
        out = np.zeros((view.N, view.Hq, view.Dv))
        mass, error = np.ones((view.N, view.Hq)), np.zeros((view.N, view.Hq))
        for t in range(view.N):
            everything = np.arange(view.P + t + 1)
            for h in range(view.Hq):
                values, true = view.V[h // view.G], attention(view, t + 1, h, everything)
                o = true @ values[everything]
                kept = self.set_of(t, h)
                if kept is None:
                    out[t, h] = o
                    continue
                here = kept + [view.P + t]
                out[t, h] = attention(view, t + 1, h, here) @ values[here]
                mass[t, h] = true[here].sum()
                norm = np.linalg.norm(o)
                error[t, h] = np.linalg.norm(out[t, h] - o) / norm if norm > 0 else np.nan
        return out, mass, error


def full_layers(trace, seq, layers=None, heads="kv"):
    """[Layer] of the recorded layers with full attention; window layers follow no policy."""
    ids = [l for l in trace.layer_ids if not trace.window[l] and (layers is None or l in layers)]
    result = []
    for layer in ids:
        view = trace.view(seq, layer)
        view.scale, view.layers_of_model = trace.scale, int(trace.meta["n_layers"])
        result.append(Layer(layer, view, heads))
    return result


def with_defaults(defaults, options):
    """Unknown options are a mistake of the caller."""
    unknown = set(options) - set(defaults)
    if unknown:
        raise ValueError("unknown option %s" % ", ".join(sorted(unknown)))
    return {**defaults, **options}
