# SPDX-License-Identifier: Apache-2.0
"""Audit of `rattn-sim replay`: sets, quality, output and traffic against numpy.

Would catch a wrong tie rule, eviction order, pool edge, schedule, group map, refresh count, byte
count or percentile, in whatever corner of the options it hides. RATTN_SIM names the program.
Prints a line per failing check; ends with `N passed, N failed`.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np

import make_traces
import schedules
from attention import Trace, read_safetensors
from reference import Replay

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("RATTN_SIM", os.path.join(ROOT, "build", "rattn-sim"))
SAMPLE = os.path.join(ROOT, "traces", "data", "smollm2-135m.safetensors")
SEED = 20411
counts = {True: 0, False: 0}


def check(place, holds, expected="", got=""):
    counts[bool(holds)] += 1
    if not holds:
        print("FAIL  %s: expected %s, got %s" % (place, expected, got))
    return bool(holds)


def equal(place, expected, got):
    return check(place, expected == got, expected, got)


def near(place, expected, got, tolerance):
    """Numbers or arrays of one shape, NaN where the other has NaN. Names the first place off."""
    expected, got = np.asarray(expected, float), np.asarray(got, float)
    if expected.shape != got.shape:
        return check(place, False, "shape %s" % (expected.shape,), "shape %s" % (got.shape,))
    off = ~(np.abs(expected - got) <= tolerance) & ~(np.isnan(expected) & np.isnan(got))
    if not off.any():
        return check(place, True)
    at = tuple(np.argwhere(off)[0])
    return check("%s%s" % (place, list(map(int, at)) or ""), False, expected[at], got[at])


class Replayed:
    """What the program says of one sequence under one policy: printed, and exported."""

    def __init__(self, printed, meta, tensors):
        self.json, self.meta, self.export = printed, meta, tensors


def replay(folder, trace, policies, *options):
    """[Replayed] in the order the program prints them; empty if it failed."""
    target = os.path.join(tempfile.mkdtemp(dir=folder), "export")
    command = [PROGRAM, "replay", trace, "--format", "json", "-q", "--repeat", "1", *options]
    if "--no-quality" not in options:
        command += ["--export", target]
    for policy in policies:
        command += ["-p", policy]
    name = os.path.basename(trace)
    place = "replay %s -p %s %s" % (name, " -p ".join(policies), " ".join(options))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        check(place, False, "a run", error)
        return []
    failure = "exit %d: %s" % (done.returncode, done.stderr.strip())
    if not check(place, done.returncode == 0, "exit 0", failure):
        return []
    results = json.loads(done.stdout)
    results = results if isinstance(results, list) else [results]
    if "--no-quality" in options:
        return [Replayed(one, {}, {}) for one in results]
    paths, exports = [target], {}
    if os.path.isdir(target):
        paths = [os.path.join(target, name) for name in os.listdir(target)]
    for path in paths:
        meta, tensors = read_safetensors(path)
        exports[meta["sequence"], meta["policy"]] = meta, tensors
    return [Replayed(one, *exports[str(one["sequence"]), one["policy"]]) for one in results]


def flatten(value, prefix=""):
    if isinstance(value, dict):
        for key in value:
            yield from flatten(value[key], prefix + key + ".")
    else:
        yield prefix[:-1], value


def lookup(tree, path):
    for key in path.split("."):
        tree = tree.get(key, "absent") if isinstance(tree, dict) else "absent"
    return tree


def compare_figures(place, expected, got):
    for path, value in flatten(expected):
        found = lookup(got, path)
        if isinstance(value, float) and isinstance(found, (int, float)):
            near(place + path, value, found, 1e-9)
        else:
            equal(place + path, value, found)


def compare_export(place, mine, theirs):
    """False when the sets differ: what follows from them would only repeat it."""
    e, s = theirs.export, mine.steps
    equal(place + "layer_ids", mine.layers, e["layer_ids"].tolist())
    equal(place + "attended_heads", "kv", theirs.meta.get("attended_heads"))
    is_full = np.stack([run.is_full[s] for run in mine.runs], axis=1)
    rows, size = mine.sets()
    same = near(place + "is_full", is_full, e["is_full"], 0)
    same &= near(place + "attended_len", size, e["attended_len"], 0)
    same &= near(place + "attended", rows, e["attended"], 0)
    if not same:
        return False
    for name in ("mass", "rel_err"):
        ours = np.stack([getattr(q, name)[s] for q in mine.quality], axis=1)
        near(place + name, ours, e[name], 1e-6)
    o = np.stack([q.o[s] for q in mine.quality], axis=1)
    norm = np.linalg.norm(o, axis=3)
    error = np.linalg.norm(e["out"] - o, axis=3)
    limit = 1e-5 * norm
    worst = float((error / np.where(norm > 0, norm, 1)).max())
    check(place + "out", (error <= limit).all(), "within 1e-5 of numpy", worst)
    kernel = theirs.json["kernel_err"]  # the program keeps its f64 output as f32 in between
    near(place + "kernel_err.max", worst, kernel["max"], 2.0**-24)
    bound = 1e-5 + 8 * 2.0**-24 * max(view.logit_size[: s.stop].max() for view in mine.views)
    near(place + "kernel_err.bound", bound, kernel["bound"], 1e-9)
    return True


def compare(place, mine, theirs):
    if compare_export(place, mine, theirs):
        compare_figures(place, mine.figures, theirs.json)
    allowed = 0 if place.startswith("integer") else 3
    near_ties = theirs.json["near_ties"]
    check(place + "near_ties", near_ties <= allowed, "at most %d" % allowed, near_ties)


def audit(folder, trace, policies, cache="compact", scores="fused", layers=None, steps=None):
    options = ["--cache", cache, "--scores", scores, "-j", "2"]
    if layers:
        options += ["--layers", ",".join(map(str, layers))]
    if steps:
        options += ["--steps", "%d..%d" % steps]
    answers = replay(folder, trace.path, policies, *options)
    if answers:
        place = "results of %s, %s" % (os.path.basename(trace.path), " and ".join(policies))
        equal(place, len(policies) * trace.n_seq(), len(answers))
    by_policy = {}
    for answer in answers:
        by_policy.setdefault(answer.json["policy"], []).append(answer)
    for spelling, group in zip(policies, by_policy.values()):
        for answer in group:
            seq = answer.json["sequence"]
            name = os.path.basename(trace.path).split(".")[0]
            place = "%s s%d %s %s/%s: " % (name, seq, spelling, cache, scores)
            compare(place, Replay(trace, seq, spelling, cache, scores, layers, steps), answer)


SINKS = {"short": 1}  # the prompt of one sequence is a single token
MODES = list(itertools.product(("compact", "gather"), ("fused", "recompute")))
SHARED = {
    "stored": ("recycled:k=5,stride=4,share=4", "recycled:k=5,stride=3,share=1/5,attend=after",
               "recycled:k=5,stride=2,sim=0.8,share=4/5",
               "recycled:k=6,stride=4,k@5-9=3,share=4,evict=raw",
               "recycled:k=5,stride=2,sim=0.8,share=4,scope=model-prev,current=snapkv",
               "recycled:k=6,stride=4,stride@4-5=3,share=4,current=drop"),
    "g4": ("recycled:k=4,stride=3,share=0/2,agg=first,stagger=1",),
    "sliding": ("recycled:k=5,stride=4,share=1,current=drop,agg=mean",),
}  # fmt: skip
ON_SAMPLE = (
    "full",
    "oracle:k=96",
    "streaming:k=1/8,stride=48",
    "recycled:k=192,stride=16",
    "recycled:k=128,stride=8,sim=0.9",
    "recycled:k=1/12,stride=24,pool=1,agg=mean,current=snapkv,evict=raw,attend=after",
)


def random_recycled(draw):
    """Any mixture of the options; the budget small, so that all chosen entries get evicted too."""
    o = {
        "k": draw.choice(["1", "2", "4", "7", "12", "1/4", "2/3", "60"]),
        "stride": draw.choice(["1", "2", "3", "5", "11"]),
        "pool": draw.choice(["1", "3", "7", "7", "31"]),
        "agg": draw.choice(["max", "mean", "first", "sum"]),
        "current": draw.choice(["pseudo", "snapkv", "drop"]),
        "evict": draw.choice(["pooled", "raw"]),
        "attend": draw.choice(["before", "before", "after"]),
    }
    if draw.random() < 0.5:
        o["sim"] = draw.choice(["0.7", "0.8", "0.85", "0.9", "1", "-1.5"])
        o["query"] = draw.choice(["pre", "post"])
        o["scope"] = draw.choice(["layer", "model-prev"])
    if o.get("scope") != "model-prev":
        o["stagger"] = draw.choice(["0", "0", "1"])
    return "recycled:" + ",".join("%s=%s" % pair for pair in o.items())


def audit_small(folder, traces):
    draw = random.Random(SEED)
    for index, (name, trace) in enumerate(traces.items()):
        sinks = SINKS.get(name, draw.choice([1, 4, 9]))
        fixed = [
            "full",
            "oracle:k=%d" % draw.choice([1, 3, 8]),
            "streaming:k=%d,sinks=%d" % (sinks + 3, sinks),
            "streaming:k=%d,sinks=%d,stride=%d" % (sinks + 5, sinks, draw.choice([1, 3, 4])),
        ]
        for mode in (MODES[index % 4], MODES[3 - index % 4]):
            mixed = list(dict.fromkeys(random_recycled(draw) for _ in range(8)))
            audit(folder, trace, fixed + mixed, *mode)
        for number, spelling in enumerate(SHARED.get(name, ())):
            audit(folder, trace, [spelling], *MODES[number % 4])
    plain = ["recycled:k=5,stride=4,sim=0.8", "streaming:k=8,stride=5", "full"]
    audit(folder, traces["stored"], plain, layers=(4, 9))
    audit(folder, traces["stored"], ["recycled:k=5,stride=6,stagger=1"])
    audit(folder, traces["sliding"], plain, layers=(2, 4), steps=(7, 30))
    audit(folder, traces["g2"], plain, "gather", "recompute", steps=(3, 3))


def audit_worked(folder):
    """The worked example's attended sets as the paper's notes print them, not as computed here."""
    answers = replay(folder, make_traces.make_worked(folder), ["recycled:k=3,stride=3,pool=1"])
    for answer in answers:
        rows = [[p for p in row if p >= 0] for row in answer.export["attended"][:, 0, 0].tolist()]
        equal("worked example: attended", [[0, 3, 4, 5], [0, 3, 5, 6], [], [0, 2, 6, 8]], rows)
        equal("worked example: is_full", [0, 0, 1, 0], answer.export["is_full"][:, 0].tolist())
        equal("worked example: keys_read", 20, answer.json["keys_read"])
        overlap = answer.json["refresh_overlap"]["mean"]
        near("worked example: refresh_overlap", 2 / 3, overlap, 1e-12)


def closed_form(P, N, K, S):
    """Keys a KV head reads under a fixed stride, K below the prompt's length, self included."""
    F = N // S
    return (N - F) * K + sum(P + S * j - 1 for j in range(1, F + 1)) + N


def audit_relations(folder, name, trace):
    P, N = trace.view(0, trace.layer_ids[0]).P, trace.view(0, trace.layer_ids[0]).N
    heads = trace.Hkv * len(trace.layer_ids)
    keep_all = ["recycled:k=%d,stride=%d,current=%s" % (P + N - 1, S, current)
                for S in (4, N + 1) for current in ("pseudo", "snapkv")]  # fmt: skip
    sparse = [
        "streaming:k=6",
        "recycled:k=6,stride=4",
        "recycled:k=6,stride=7,attend=after,agg=sum,pool=1",
        "recycled:k=6,stride=2,sim=0.8,current=snapkv,evict=raw,agg=mean",
        "recycled:k=6,stride=3,share=0",
    ]
    never = "recycled:k=6,stride=%d" % (N + 1)
    policies = ["full", "recycled:k=6,stride=1", never, "oracle:k=6", *keep_all, *sparse]
    one = replay(folder, trace.path, policies, "-j", "1")
    two = replay(folder, trace.path, policies, "-j", "2")
    gather = replay(folder, trace.path, policies, "-j", "2", "--cache", "gather")
    if not len(policies) == len(one) == len(two) == len(gather):
        return
    for spelling, a, b, c in zip(policies, one, two, gather):
        place = "%s %s: " % (name, spelling)
        equal(place + "fingerprint, -j1 and -j2", a.json["fingerprint"], b.json["fingerprint"])
        equal(place + "output_hash, -j1 and -j2", a.json["output_hash"], b.json["output_hash"])
        near(place + "sets, compact and gather", a.export["attended"], c.export["attended"], 0)
    by = dict(zip(policies, one))
    if name == "integer":  # no near ties here, so the backend must come to the same sets alone
        alone = [spelling for spelling in policies if not spelling.startswith("oracle")]
        for spelling, own in zip(alone, replay(folder, trace.path, alone, "--no-quality")):
            place = "%s %s --no-quality: fingerprint" % (name, spelling)
            equal(place, by[spelling].json["fingerprint"], own.json["fingerprint"])
    full, oracle = by["full"], by["oracle:k=6"]
    equal(name + " full: mass", {"mean": 1.0, "p05": 1.0, "min": 1.0}, full.json["mass_recovered"])
    equal(name + " full: error", {"mean": 0.0, "p95": 0.0, "max": 0.0}, full.json["output_rel_err"])
    shape = full.export["attended_len"].shape
    visible = np.broadcast_to((P + 1 + np.arange(N))[:, None, None], shape)
    for spelling in ["full", "recycled:k=6,stride=1", *keep_all]:
        place = "%s %s: everything is attended, " % (name, spelling)
        near(place + "attended_len", visible, by[spelling].export["attended_len"], 0)
    equal(name + " stride > N: full steps", 0, by[never].json["full_layer_steps"])
    for S in (4, N + 1):
        got = by["recycled:k=6,stride=%d" % S].json["keys_read"]
        expected = heads * closed_form(P, N, 6, S)
        equal("%s stride=%d: keys_read, closed form" % (name, S), expected, got)
    bound = group_mean(oracle.export["mass"], trace.Hkv)
    for spelling in sparse:
        e = by[spelling].export
        excess = group_mean(e["mass"], trace.Hkv) - bound
        excess = np.where(e["attended_len"] <= 7, excess, -1).max()
        check("%s %s: mass over oracle's" % (name, spelling), excess <= 2e-7, "at most 0", excess)


def group_mean(mass, Hkv):
    return mass.astype(float).reshape(mass.shape[0], mass.shape[1], Hkv, -1).mean(axis=3)


def audit_swapped(folder, trace):
    """KV heads in another order give the same results in that order: groups never mix."""
    policies = ["recycled:k=5,stride=4", "recycled:k=4,stride=3,agg=mean,evict=raw", "oracle:k=4"]
    swapped = make_traces.swap_heads(trace.path, os.path.join(folder, "swapped.safetensors"))
    straight, turned = replay(folder, trace.path, policies), replay(folder, swapped, policies)
    for spelling, a, b in zip(policies, straight, turned):
        shape = a.export["mass"].shape[:2] + (trace.Hkv, -1)
        place, expected = "heads swapped, %s: " % spelling, a.export["attended"][:, :, ::-1]
        near(place + "attended", expected, b.export["attended"], 0)
        expected = a.export["mass"].reshape(shape)[:, :, ::-1]
        near(place + "mass", expected, b.export["mass"].reshape(shape), 0)


def main():
    with tempfile.TemporaryDirectory(prefix="rattn-audit-") as folder:
        traces = {name: Trace(make_traces.make(folder, name)) for name in make_traces.SHAPES}
        audit_worked(folder)
        audit_small(folder, traces)
        for name in ("g3", "g4", "integer"):
            audit_relations(folder, name, traces[name])
        audit_swapped(folder, traces["g3"])
        sample = Trace(SAMPLE)
        audit(folder, sample, ON_SAMPLE)
        audit(folder, sample, ON_SAMPLE[3:4], "gather", "recompute", layers=(9,), steps=(0, 63))
    print("%d passed, %d failed" % (counts[True], counts[False]))
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
