# SPDX-License-Identifier: Apache-2.0
"""What a replay must report, in numpy: quality and traffic of a schedule over one sequence.

One idea: a schedule is a mask per (step, KV head, position); everything else follows from it.
Times are not looked at.
"""

import math

import numpy as np

import schedules
from attention import softmax


def whole_layer(error, norm):
    """Of a layer's heads as one vector; NaN where the output is zero."""
    whole = np.linalg.norm(norm, axis=1)
    return np.divide(np.linalg.norm(error, axis=1), whole, out=np.full(whole.shape, np.nan), where=whole > 0)


class Quality:
    """Of one layer. NaN stands for a value that is not defined."""

    def __init__(self, view, run, agg):
        N, p = view.N, view.P + np.arange(view.N)
        self.size = run.attended.sum(axis=2)  # [N, Hkv]
        self.everything = run.is_full & (self.size == (p + 1)[:, None]).all(axis=1)
        mask = np.repeat(run.attended, view.G, axis=1)
        if view.window:
            self.o = view.o[1:]
            return
        self.o = view.times_v(softmax(np.where(mask, view.logits[1:], -np.inf)))
        self.mass = (view.prob[1:] * mask).sum(axis=2)
        norm = np.linalg.norm(view.o[1:], axis=2)
        error = np.linalg.norm(self.o - view.o[1:], axis=2)
        self.rel_err = np.divide(error, norm, out=np.full(norm.shape, np.nan), where=norm > 0)
        self.mass[self.everything] = 1
        self.rel_err[self.everything] = 0
        self.layer_err = whole_layer(error, norm)
        self.layer_err[self.everything] = 0
        wanted = self.size - 1
        hits = (run.attended & (view.rank(agg) < wanted[:, :, None])).sum(axis=2)
        self.recall = np.divide(hits, wanted, out=np.full((N, view.Hkv), np.nan), where=wanted > 0)
        self.recall[self.everything] = np.where(wanted[self.everything] > 0, 1, np.nan)


def traffic(view, run, q, cache, scores, policy, steps):
    """Integer counts of one layer over `steps`, and those of its prefill."""
    row = view.element * (view.D + view.Dv)
    context = view.P + np.arange(view.N + 1)  # of the prefill, then of each step
    one_cache = policy == "streaming" and not run.rebuilt[0]
    again = view.Hkv * context * view.D * view.element * run.scored
    if scores == "fused":
        again[1:] *= run.scores_first
        again[0] = 0
    moved = run.entries * row if cache == "compact" else 0 * run.entries
    copies = run.copied * row if cache == "compact" else 0 * run.copied
    select = 8 * context * (view.Hq + view.Hkv) * run.scored + 8 * run.rebuilt
    if cache == "gather" or policy == "oracle":
        select[1:] += 4 * run.listed
    keys = q.size.sum(axis=1)
    read = keys * row + again[1:] + moved[1:]
    written = view.Hkv * row + copies + moved[1:]
    kept = run.attended[0, 0, : view.P].sum() if one_cache else min(view.P, view.window or view.P)
    total = {
        "keys_read": keys,
        "keys_attended": keys * view.G,
        "kv_read_bytes": read,
        "kv_write_bytes": written,
        "refresh_entries": run.entries[1:],
        "refresh_bytes": moved[1:],
        "selection_bytes": select[1:],
    }
    prefill = {
        "kv_read_bytes": again[0] + moved[0],
        "kv_write_bytes": view.Hkv * kept * row + moved[0],
        "selection_bytes": select[0],
    }
    return (
        {key: int(value[steps].sum()) for key, value in total.items()},
        {key: int(value) for key, value in prefill.items()},
    )


def percentile(values, p):
    return float(np.sort(values)[math.ceil(p * len(values)) - 1])


def summary(values, names):
    defined = values[~np.isnan(values)]
    if not len(defined):
        return dict.fromkeys(names)
    how = {"mean": np.mean, "min": np.min, "max": np.max,
           "p05": lambda x: percentile(x, 0.05), "p95": lambda x: percentile(x, 0.95)}  # fmt: skip
    return {name: float(how[name](defined)) for name in names}


FIGURES = (
    ("mass_recovered", "mass", ("mean", "p05", "min")),
    ("output_rel_err", "rel_err", ("mean", "p95", "max")),
    ("topk_recall", "recall", ("mean",)),
    ("refresh_overlap", "overlap", ("mean", "p05")),
)


def window_run(view):
    run = schedules.LayerRun(view)
    run.attended[:] = view.visible[1:, None]
    return run


class Replay:
    """The whole of one sequence under one policy, as the design says it must come out."""

    def __init__(self, trace, seq, spelling, cache, scores, layers=None, steps=None):
        ids = [l for l in trace.layer_ids if layers is None or l in layers]
        self.layers = [l for l in ids if not trace.window[l]]
        self.window_layers = [l for l in ids if trace.window[l]]
        self.views = [trace.view(seq, l) for l in self.layers]
        first, last = steps or (0, self.views[0].N - 1)
        self.steps = slice(first, last + 1)
        self.policy, options = schedules.parse(spelling)
        self.runs = schedules.run(spelling, self.views, self.layers)
        agg = options.get("agg", "max")
        self.quality = [Quality(view, run, agg) for view, run in zip(self.views, self.runs)]
        for run, q in zip(self.runs, self.quality):
            q.overlap = run.overlap[1:]
        self.figures = {
            "steps": last + 1 - first,
            "layers": self.layers,
            "window_layers": self.window_layers,
            "k_resolved": None,
        }
        if "k" in options:
            self.figures["k_resolved"] = schedules.budget(options["k"], self.views[0].P)
        self.count(trace, seq, cache, scores)
        self.measure()

    def count(self, trace, seq, cache, scores):
        f, prefill, window = self.figures, {}, {}
        full = sum(int(run.is_full[self.steps].sum()) for run in self.runs)
        f["full_layer_steps"] = full
        f["recycled_layer_steps"] = f["steps"] * len(self.layers) - full
        f["effective_stride"] = f["steps"] * len(self.layers) / full if full else None
        work = list(zip(self.views, self.runs, self.quality, [f] * len(self.views)))
        for layer in self.window_layers:
            view = trace.view(seq, layer)
            run = window_run(view)
            work.append((view, run, Quality(view, run, "max"), window))
        for view, run, q, where in work:
            policy = "window" if view.window else self.policy
            counts, before = traffic(view, run, q, cache, scores, policy, self.steps)
            for target, source in ((where, counts), (prefill, before)):
                for key, value in source.items():
                    target[key] = target.get(key, 0) + value
        names = ("keys_read", "kv_read_bytes", "kv_write_bytes")
        f["window"] = {key: window.get(key, 0) for key in names}
        for key, value in window.items():
            f[key] += value
        f["prefill"] = prefill

    def measure(self):
        f, s = self.figures, self.steps
        for where, on_recycled in ((f, False), (f.setdefault("on_recycled", {}), True)):
            for name, attribute, parts in FIGURES:
                values = []
                for q in self.quality:
                    counted = ~q.everything[s] if on_recycled else slice(None)
                    values.append(getattr(q, attribute)[s][counted].ravel())
                where[name] = summary(np.concatenate(values), parts)
        layers = np.stack([q.layer_err[s] for q in self.quality])
        known = ~np.isnan(layers)
        steps = np.where(known, layers, 0).sum(axis=0)[known.any(axis=0)] / known.sum(axis=0)[known.any(axis=0)]
        f["step_rel_err"] = summary(steps, ("mean", "p95", "max"))
        f["undefined_errors"] = sum(int(np.isnan(q.rel_err[s]).sum()) for q in self.quality)

    def sets(self):
        """attended, attended_len as an export holds them."""
        s, Hkv = self.steps, self.views[0].Hkv
        size = np.stack([q.size[s] for q in self.quality], axis=1)
        everything = np.stack([q.everything[s] for q in self.quality], axis=1)
        width = int(np.where(everything[:, :, None], 1, size).max())
        rows = np.full(size.shape[:2] + (Hkv, width), -1, np.int32)
        for l, run in enumerate(self.runs):
            for t, h, *_ in np.argwhere(~np.repeat(everything[:, l, None], Hkv, axis=1)):
                members = np.flatnonzero(run.attended[s][t, h])
                rows[t, l, h, : len(members)] = members
        return rows, size
