# SPDX-License-Identifier: Apache-2.0
"""Audit of replays of transformed keys and values against numpy (tests/reference/transforms.py).

Would catch rows that are not those of the reference, a schedule that sees the recorded scores, mass
or recall of the transformed softmax, an error against anything but the recorded output, bits that
are not counted, and figures that depend on threads, on other schedules or on the phase that formed
them. Ends with `N passed, N failed`.
"""

import copy
import os
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "reference"))

import audit_replay
import make_traces
import reference
import transforms
from attention import Trace, softmax
from audit_replay import SAMPLE, check, counts, equal, near, replay


class Seen:
    """A trace as a schedule sees it: its views have transformed rows, and the recorded view beside.
    Rows behind the last step that runs are never looked at."""

    def __init__(self, trace, chain, steps):
        self.trace, self.chain, self.steps = trace, chain, steps
        self.layer_ids, self.window = trace.layer_ids, trace.window

    def view(self, seq, layer):
        true = self.trace.view(seq, layer)
        if true.window:
            return true
        name = "s%d.l%d." % (seq, layer)
        dtype = self.trace.tensors["dtypes"][name + "k"]
        T = true.P + (self.steps[1] + 1 if self.steps else true.N)
        acc = self.trace.tensors.get(name + "acc")
        rows = true.K[:, :T], true.V[:, :T], true.P, dtype, true.meta, acc, true.tail
        K, V, k_bits, v_bits = transforms.apply(self.chain, *rows)
        view = copy.copy(true)
        view.true, view.bits, view.rows = true, (k_bits, v_bits), true.Hkv * T
        view.K, view.V = true.K.copy(), true.V.copy()
        view.K[:, :T], view.V[:, :T] = K, V
        group = np.repeat(np.arange(view.Hkv), view.G)
        logits = self.trace.scale * np.einsum("hnd,htd->nht", view.q, view.K[group], optimize=True)
        view.logits = np.where(view.visible[:, None], logits, -np.inf)
        view.prob = softmax(view.logits)
        view.o = view.times_v(view.prob)
        size = np.einsum("hnd,htd->nht", abs(view.q), abs(view.K[group]), optimize=True)
        size = np.where(view.visible[:, None], self.trace.scale * size, 0)
        view.logit_size, view.ranks = size[1:].max(axis=(1, 2)), {}
        return view


class SeenQuality(reference.Quality):
    def __init__(self, view, run, agg):
        super().__init__(view, run, agg)
        if view.window or not hasattr(view, "true"):
            return
        true, mask = view.true, np.repeat(run.attended, view.G, axis=1)
        self.mass = (true.prob[1:] * mask).sum(axis=2)
        self.mass[self.everything] = 1
        norm = np.linalg.norm(true.o[1:], axis=2)
        error = np.linalg.norm(self.o - true.o[1:], axis=2)
        self.rel_err = np.divide(error, norm, out=np.full(norm.shape, np.nan), where=norm > 0)
        self.layer_err = reference.whole_layer(error, norm)
        wanted = self.size - 1
        hits = (run.attended & (true.rank(agg) < wanted[:, :, None])).sum(axis=2)
        self.recall = np.divide(hits, wanted, out=np.full(hits.shape, np.nan), where=wanted > 0)
        self.recall[self.everything] = np.where(wanted[self.everything] > 0, 1, np.nan)


recorded_traffic = reference.traffic


def seen_traffic(view, run, q, cache, scores, policy, steps):
    """Rows take the mean of their layer's bits, rounded up for each count of them."""
    if not hasattr(view, "true"):
        return recorded_traffic(view, run, q, cache, scores, policy, steps)
    whole = 8 * view.rows

    def taken(n, bits):
        return np.array([-(-int(x) * bits // whole) for x in np.atleast_1d(n)])

    both = sum(view.bits)
    context = view.P + np.arange(view.N + 1)
    one_cache = policy == "streaming" and not run.rebuilt[0]
    again = taken(view.Hkv * context, view.bits[0]) * run.scored
    if scores == "fused":
        again[1:] *= run.scores_first
        again[0] = 0
    compact = cache == "compact"
    moved = taken(run.entries, both) if compact else 0 * run.entries
    copies = run.copied if compact else 0 * run.copied
    select = 8 * context * (view.Hq + view.Hkv) * run.scored + 8 * run.rebuilt
    if not compact or policy == "oracle":
        select[1:] += 4 * run.listed
    keys = q.size.sum(axis=1)
    kept = run.attended[0, 0, : view.P].sum() if one_cache else view.P
    total = {
        "keys_read": keys,
        "keys_attended": keys * view.G,
        "kv_read_bytes": taken(keys, both) + again[1:] + moved[1:],
        "kv_write_bytes": taken(view.Hkv + copies, both) + moved[1:],
        "refresh_entries": run.entries[1:],
        "refresh_bytes": moved[1:],
        "selection_bytes": select[1:],
    }
    prefill = {
        "kv_read_bytes": again[0] + moved[0],
        "kv_write_bytes": taken(view.Hkv * kept, both)[0] + moved[0],
        "selection_bytes": select[0],
    }
    return (
        {key: int(value[steps].sum()) for key, value in total.items()},
        {key: int(value) for key, value in prefill.items()},
    )


class SeenReplay(reference.Replay):
    def __init__(self, trace, seq, spelling, cache, scores, layers=None, steps=None):
        name, _, chain = spelling.partition("+")
        trace = Seen(trace, chain, steps) if chain else trace
        super().__init__(trace, seq, name, cache, scores, layers, steps)
        self.figures["transformation"] = None
        if chain:
            bits = [np.mean([view.bits[i] / view.rows for view in self.views]) for i in (0, 1)]
            self.figures["transformation"] = {
                "bits_per_key_entry": float(bits[0] / self.views[0].D),
                "bits_per_value_entry": float(bits[1] / self.views[0].Dv),
            }


reference.Quality, reference.traffic, audit_replay.Replay = SeenQuality, seen_traffic, SeenReplay

CHAINS = (
    "kvquant",
    "kvquant:bits=4,outliers=0.1",
    "kvquant:bits=3,keys=token,values=channel,nuq=0",
    "kvquant:bits=3,values=token,levels=layer,weights=acc,scale=none,sweeps=0",
    "int8",
    "int4",
    "fp8",
    "fp8:format=e5m2",
    "kvquant:bits=4,outliers=0+int8",
)
POLICIES = (
    "full",
    "streaming:k=9,sinks=2",
    "streaming:k=8,sinks=1,stride=4",
    "recycled:k=5,stride=3",
    "recycled:k=4,stride=2,sim=0.8,pool=1,agg=mean,evict=raw",
    "recycled:k=6,stride=4,attend=after,current=snapkv",
    "oracle:k=6",
)


def audit_small(folder, traces):
    for number, (name, trace) in enumerate(traces.items()):
        spellings = ["full"]
        for i, policy in enumerate(POLICIES):
            spellings.append(policy + "+" + CHAINS[(i + number) % len(CHAINS)])
        spellings.append("full+" + CHAINS[(number + 3) % len(CHAINS)])
        audit_replay.audit(folder, trace, list(dict.fromkeys(spellings)),
                           *audit_replay.MODES[number % 4])  # fmt: skip
    audit_replay.audit(folder, traces["sliding"], ["recycled:k=5,stride=4+int4"], layers=(2, 4),
                       steps=(7, 30))  # fmt: skip


OTHERS = (
    "tova:k=7",
    "quest:k=12,page=4",
    "unlimiformer:k=5",
    "longformer:window=6,globals=2",
    "triforce:k=12,chunk=4,gamma=3",
    "tidal:k=6,select=0",
)


def audit_others(folder, trace):
    """Of policies whose sets are audited elsewhere: what the exported sets hold and miss, whichever
    they are. The backend chose by the transformed keys too, and was held to the reference's."""
    chain = "kvquant:bits=3,outliers=0.1"
    seen = Seen(trace, chain, None)
    for answer in replay(folder, trace.path, [policy + "+" + chain for policy in OTHERS]):
        e, place = answer.export, answer.json["policy"] + ": "
        for l, layer in enumerate(e["layer_ids"].tolist()):
            view = seen.view(answer.json["sequence"], layer)
            mask = np.zeros((view.N, e["attended"].shape[2], view.T), bool)
            for t, h in np.ndindex(mask.shape[:2]):
                row = e["attended"][t, l, h]
                row = row[row >= 0] if (row >= 0).any() else np.arange(view.P + t + 1)
                mask[t, h, row] = True
            mask = np.repeat(mask, view.Hq // mask.shape[1], axis=1)
            whole = (mask.sum(axis=2) == (view.P + 1 + np.arange(view.N))[:, None]).all(axis=1)
            mass = (view.true.prob[1:] * mask).sum(axis=2)
            o = view.times_v(softmax(np.where(mask, view.logits[1:], -np.inf)))
            error = np.linalg.norm(o - view.true.o[1:], axis=2)
            near(place + "mass", np.where(whole[:, None], 1, mass), e["mass"][:, l], 1e-6)
            error /= np.linalg.norm(view.true.o[1:], axis=2)
            near(place + "rel_err", error, e["rel_err"][:, l], 1e-6)


def audit_relations(folder, trace):
    """Neither threads, nor what else is replayed, nor the phase that forms the rows change them."""
    policies = ["recycled:k=5,stride=3+kvquant:bits=3", "full+int8", "streaming:k=9"]
    one = replay(folder, trace.path, policies, "-j", "1")
    two = replay(folder, trace.path, list(reversed(policies)), "-j", "2")[::-1]
    bare = replay(folder, trace.path, policies, "--no-quality")
    for spelling, a, b, c in zip(policies, one, two, bare):
        alone = replay(folder, trace.path, [spelling])[0]
        for key in ("fingerprint", "output_hash"):
            equal("%s: %s, -j1 and -j2" % (spelling, key), a.json[key], b.json[key])
            equal("%s: %s, alone" % (spelling, key), a.json[key], alone.json[key])
        equal(spelling + ": bytes without quality", a.json["kv_read_bytes"], c.json["kv_read_bytes"])


def audit_sample(folder):
    """What few bits cost: smaller and larger by turns, on a real recording."""
    sample = Trace(SAMPLE)
    spellings = ["full+kvquant:bits=%d" % bits for bits in (2, 3, 4)]
    spellings += ["full+kvquant:bits=4,outliers=0.04", "full+int8"]
    audit_replay.audit(folder, sample, spellings[2:3] + ["recycled:k=192,stride=16+kvquant"])
    found = [answer.json for answer in replay(folder, SAMPLE, ["full"] + spellings)]
    if len(found) != 6:
        return
    error = [one["output_rel_err"]["mean"] for one in found]
    share = [one["kv_read_bytes"] / found[0]["kv_read_bytes"] for one in found]
    check("sample: error falls with bits", error[1] > error[2] > error[3] > 0, "", error)
    check("sample: bytes grow with bits", share[1] < share[2] < share[3] < 1, "", share)
    check("sample: 4 bits", error[3] <= 0.05, "at most 0.05", error[3])
    check("sample: 4 bits, more outliers", error[4] < error[3], "", error[3:5])
    check("sample: int8", error[5] < 0.02, "below 0.02", error[5])
    near("sample: full+int8, share of bytes", 8.5 / 16, share[5], 1e-6)
    for one in found[1:]:
        equal("sample: mass of " + one["policy"], 1.0, one["mass_recovered"]["min"])
        equal("sample: speed-up of " + one["policy"], None, one["speedup_attention"])


def main():
    with tempfile.TemporaryDirectory(prefix="rattn-audit-") as folder:
        names = ("g1", "g2", "g3", "g4", "sliding", "two")
        traces = {name: Trace(make_traces.make(folder, name)) for name in names}
        audit_small(folder, traces)
        audit_others(folder, traces["g3"])
        audit_relations(folder, traces["g3"])
        audit_sample(folder)
    print("%d passed, %d failed" % (counts[True], counts[False]))
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
