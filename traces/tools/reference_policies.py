# SPDX-License-Identifier: Apache-2.0
"""Schedules for the reference decoder: which positions a decode step attends to, by definition.

Those that check_record.py decodes under: `recycled` (arXiv:2411.05787, algorithm 1; the edges as
docs/policies.md rules them) and `streaming` (arXiv:2309.17453). Slow and plain.
"""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


class Streaming:
    """The first `sinks` positions, the k - sinks newest before self, and self."""

    def __init__(self, k, sinks=4):
        self.k, self.sinks = k, sinks

    def start(self, layer, q, keys, scale):
        pass

    def positions(self, layer, step, q, keys, scale):
        me = keys.shape[1] - 1
        kept = [j for j in range(me) if j < self.sinks or j >= me - (self.k - self.sinks)]
        return [[*kept, me]] * len(keys)


class Recycled:
    """Each stride-th step sees all and keeps the K best; those between see what was kept and self.

    Per layer and KV head: `chosen`, best first, from the last full step, and `added` since then.
    """

    def __init__(self, k, stride, pool=7):
        self.k, self.stride, self.pool = k, stride, pool
        self.chosen, self.added = {}, {}

    def start(self, layer, q, keys, scale):
        """Choose by the query q [Hq, D] of the newest of the positions of keys [Hkv, m, D]."""
        group, half = len(q) // len(keys), self.pool // 2
        for head, rows in enumerate(keys):
            queries = q[head * group : (head + 1) * group]
            score = np.max([softmax(rows @ query * scale) for query in queries], axis=0)
            m = len(score)
            pooled = [score[max(0, j - half) : j + half + 1].max() for j in range(m)]
            ranked = sorted(range(m), key=lambda j: (-pooled[j], j))
            self.chosen[layer, head], self.added[layer, head] = ranked[: self.k], []

    def positions(self, layer, step, q, keys, scale):
        me = keys.shape[1] - 1
        if (step + 1) % self.stride == 0:
            self.start(layer, q, keys, scale)
            return [list(range(me + 1))] * len(keys)
        out = []
        for head in range(len(keys)):
            chosen, added = self.chosen[layer, head], self.added[layer, head]
            out.append(sorted([*chosen, *added, me]))
            added.append(me)
            while len(chosen) + len(added) > self.k:
                chosen.pop() if chosen else added.pop(0)
        return out


def parse(spelling):
    """None for `full`."""
    name, _, rest = spelling.partition(":")
    options = dict(item.split("=") for item in rest.split(",") if item)
    kinds = {"recycled": Recycled, "streaming": Streaming}
    if name == "full" and not options:
        return None
    if name not in kinds:
        raise ValueError(f"{spelling}: expected full, recycled or streaming")
    return kinds[name](**{key: int(value) for key, value in options.items()})


def attend_to(sets, q, keys, values, scale):
    """o [Hq, D] of one step: head h attends to the positions in sets[h's KV head] only."""
    group = len(q) // len(keys)
    out = np.empty_like(q)
    for h, query in enumerate(q):
        head = h // group
        rows = sets[head]
        out[h] = softmax(keys[head][rows] @ query * scale) @ values[head][rows]
    return out
