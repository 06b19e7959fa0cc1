# SPDX-License-Identifier: Apache-2.0
"""The schedules, written from the design's text: which positions each step attends to.

A step handles all full-attention layers, because recycled layers may look at each other. State is
plain lists, evict-first; nothing here is incremental that could be recomputed.
"""

import math

import numpy as np

RECYCLED = dict(sim="none", pool="7", agg="max", current="pseudo", evict="pooled", attend="before",
                query="pre", scope="layer", share="none", stagger="0")  # fmt: skip


class LayerRun:
    """What a schedule did to one layer. Rows of N+1: the first is the prefill."""

    def __init__(self, view):
        N, shape = view.N, (view.N, view.Hkv, view.T)
        self.attended = np.zeros(shape, bool)
        self.is_full = np.zeros(N, bool)
        self.scored = np.zeros(N + 1, bool)
        self.scores_first = np.zeros(N, bool)  # attend=after: attention yields no scores of C_f
        self.rebuilt = np.zeros(N + 1, int)  # entries of C_r written as an index list
        self.entries = np.zeros(N + 1, int)  # refresh_entries
        self.copied = np.zeros(N, int)  # heads whose self is copied into a compact C_r
        self.overlap = np.full((N + 1, view.Hkv), np.nan)
        self.listed = np.zeros(N, int)  # entries of the index list a sparse step reads

    def refresh(self, row, old, new):
        for h, (before, after) in enumerate(zip(old, new)):
            common = len(set(before) & set(after))
            self.entries[row] += len(after) - common
            self.rebuilt[row] += len(after)
            if after:
                self.overlap[row, h] = common / len(after)

    def attend(self, t, p, sets):
        for h, positions in enumerate(sets):
            self.attended[t, h, list(positions) + [p]] = True

    def attend_all(self, t, p):
        self.attended[t, :, : p + 1] = True


def parse(spelling):
    name, _, rest = spelling.partition(":")
    return name, dict(pair.split("=", 1) for pair in rest.split(",") if pair)


def budget(text, P):
    if "/" in text:
        a, b = text.split("/")
        return max(1, P * int(a) // int(b))
    return int(text)


def run(spelling, views, layer_ids):
    """[LayerRun] of the full-attention layers."""
    name, options = parse(spelling)
    if name == "recycled":
        engine = Recycled(options, views, layer_ids)
        for t in range(views[0].N):
            engine.step(t)
        return engine.runs
    rule = {"full": full, "oracle": oracle, "streaming": streaming}[name]
    return [rule(options, view) for view in views]


def full(_, view):
    r = LayerRun(view)
    r.is_full[:] = True
    for t in range(view.N):
        r.attend_all(t, view.P + t)
    return r


def oracle(options, view):
    r, k, score = LayerRun(view), budget(options["k"], view.P), view.aggregate("sum")
    for t in range(view.N):
        p = view.P + t
        best = np.argsort(-score[t + 1, :, :p], axis=1, kind="stable")[:, :k]
        r.attend(t, p, best)
        r.listed[t] = best.size
    return r


def streaming(options, view):
    r, k, sinks = LayerRun(view), budget(options["k"], view.P), int(options.get("sinks", 4))
    stride = int(options.get("stride", 0))

    def kept(p):
        """What the step at position p finds: the sinks, and the newest before it."""
        here = sorted(set(range(min(sinks, p))) | set(range(max(0, p - (k - sinks)), p)))
        return [here] * view.Hkv

    if stride:
        r.refresh(0, [[]] * view.Hkv, kept(view.P))
    for t in range(view.N):
        p = view.P + t
        if stride and (t + 1) % stride == 0:
            r.is_full[t] = True
            r.attend_all(t, p)
            r.refresh(t + 1, kept(p), kept(p + 1))
            continue
        r.attend(t, p, kept(p))
        if stride:
            r.listed[t], r.copied[t] = sum(map(len, kept(p))), view.Hkv
    return r


def max_pool(score, width):
    half, pads = width // 2, np.full(width // 2, -np.inf)
    padded = np.concatenate([pads, score, pads])
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).max(axis=1)


def choose(score, k, o):
    """The selection of one KV head over positions 0..p, evict-first."""
    p = len(score) - 1
    pooled = max_pool(score, int(o["pool"]))
    n = {"pseudo": p + 1, "snapkv": p, "drop": p}[o["current"]]
    keep = k - 1 if o["current"] == "snapkv" else k
    ranked = sorted(range(n), key=lambda j: (-pooled[j], j))[:keep]
    if o["evict"] == "raw":
        order = sorted(ranked, key=lambda j: (score[j], -j))
    else:
        order = ranked[::-1]
    return order + [p] if o["current"] == "snapkv" else order


def cosine(a, b):
    """None when a norm is zero."""
    norm = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return None if norm == 0 else min(1.0, max(-1.0, float(a @ b) / norm))


def leaders(share, layer_ids):
    """For each layer, the index of the layer it follows, or None when it chooses by itself."""
    if share == "none":
        return [None] * len(layer_ids)
    listed, lead, result = [int(x) for x in share.split("/")], None, []
    for index, layer in enumerate(layer_ids):
        lead = index if layer in listed else lead
        result.append(None if lead in (None, index) else lead)
    return result


def per_layer(options, key, layer_ids):
    """Value of `key` for each layer; key@a-b=value overrides."""
    values = [options.get(key)] * len(layer_ids)
    for name, value in options.items():
        if name.startswith(key + "@"):
            for part in name[len(key) + 1 :].split("/"):
                a, _, b = part.partition("-")
                for index, layer in enumerate(layer_ids):
                    if int(a) <= layer <= int(b or a):
                        values[index] = value
    return values


class Recycled:
    def __init__(self, options, views, layer_ids):
        self.o = o = {**RECYCLED, **options}
        self.views, self.runs, self.ids = views, [LayerRun(view) for view in views], layer_ids
        self.k = [budget(x, views[0].P) for x in per_layer(o, "k", layer_ids)]
        self.stride = [int(x) for x in per_layer(o, "stride", layer_ids)]
        self.leader = leaders(o["share"], layer_ids)
        self.scores = [view.aggregate(o["agg"]) for view in views]
        if o["sim"] != "none":
            self.query = [view.mean_query(o["query"]) for view in views]
            self.reference = [query[0] for query in self.query]
        self.cache = [[[]] * view.Hkv for view in views]
        for l in range(len(views)):
            self.take_over(l, 0) if self.leader[l] is not None else self.rebuild(l, 0)

    def rebuild(self, l, row):
        p = self.views[l].P - 1 + row
        new = [choose(score[: p + 1], self.k[l], self.o) for score in self.scores[l][row]]
        self.runs[l].scored[row] = True
        self.replace(l, row, new)

    def take_over(self, l, row):
        lead = self.cache[self.leader[l]]
        self.replace(l, row, [chosen[max(0, len(chosen) - self.k[l]) :] for chosen in lead])

    def replace(self, l, row, new):
        self.runs[l].refresh(row, self.cache[l], new)
        self.cache[l] = [list(chosen) for chosen in new]

    def due(self, l, t):
        return (t + 1 + (self.ids[l] if self.o["stagger"] == "1" else 0)) % self.stride[l] == 0

    def similar(self, l, row):
        value = cosine(self.query[l][row], self.reference[l])
        return value is not None and value > float(self.o["sim"])

    def fires(self, t):
        choosing = [l for l in range(len(self.views)) if self.leader[l] is None]
        due = [l for l in choosing if self.due(l, t)]
        if self.o["sim"] == "none":
            return due
        if self.o["scope"] == "layer":
            return [l for l in due if not self.similar(l, t + 1)]
        return due if any(not self.similar(l, t) for l in choosing) else []

    def step(self, t):
        fires, p = self.fires(t), self.views[0].P + t
        for l, r in enumerate(self.runs):
            if l in fires:
                self.full_step(l, r, t, p)
            else:
                self.recycled_step(l, r, t, p, self.leader[l] in fires)

    def full_step(self, l, r, t, p):
        r.is_full[t] = True
        self.rebuild(l, t + 1)
        if self.o["attend"] == "after":
            r.scores_first[t] = True
            r.attend(t, p, self.cache[l])
            r.listed[t] = sum(map(len, self.cache[l]))
        else:
            r.attend_all(t, p)
        if self.o["sim"] != "none":
            self.reference[l] = self.query[l][t + 1]

    def recycled_step(self, l, r, t, p, follows):
        if follows:
            self.take_over(l, t + 1)
        r.attend(t, p, self.cache[l])
        r.listed[t] = sum(map(len, self.cache[l]))
        if follows:  # like after any refresh, self is there if it was chosen
            return
        r.copied[t] = len(self.cache[l])
        for chosen in self.cache[l]:
            chosen.append(p)
            del chosen[: max(0, len(chosen) - self.k[l])]
