# SPDX-License-Identifier: Apache-2.0
"""The program against the references: random small traces, random options, set by set.

Would catch a wrong tie, a score of the wrong softmax, a forgotten pad, an eviction out of order, a
group that mixes, a default that differs. RATTN_SIM names the program. Policies it does not know yet
are skipped and said so, as are options. `compare.py [SEEDS [POLICY…]]`; ends with
`N passed, N failed`.
"""

import importlib
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np

import common
import audit_replay
import make_traces
from attention import Trace, softmax
from audit_replay import PROGRAM, check, counts, equal, near

NAMES = ("streaming", "oracle", "h2o", "tova", "snapkv", "quest", "unlimiformer", "longformer",
         "sparse-transformer", "pyramidkv", "adakv", "triforce", "tidal")  # fmt: skip
OMITTED = ("agg", "recent", "pool", "pooling", "evict", "alpha", "safeguard", "beta", "dense",
           "page", "dilation", "globals", "pattern", "c", "first", "draft", "correct")  # fmt: skip
NEAR = 1e-9  # scores closer than this may be ordered either way by f64 alone
SEEDS = 40


def module(name):
    return importlib.import_module(name.replace("-", "_"))


# --- traces --------------------------------------------------------------------------------------
def stored(values, dtype):
    """As a reader of the file will see them."""
    raw = make_traces.encode(values, dtype)
    if dtype == "BF16":
        flat = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[dtype])
    return flat.astype(float).reshape(np.shape(values))


def received(q, k, scale, P):
    """acc: the probability each prompt position got from all prompt queries."""
    Hq, result = q.shape[0], np.zeros((q.shape[0], P))
    for h in range(Hq):
        keys = k[h // (Hq // k.shape[0]), :P]
        logits = np.where(np.tri(P, dtype=bool), scale * (q[h, :P] @ keys.T), -np.inf)
        result[h] = softmax(logits).sum(axis=0)
    return result


def make(folder, seed, draw):
    """A trace of 1 to 4 layers; every third seed integer-valued, full of ties."""
    kind = "integer" if seed % 3 == 2 else "real"
    rng = np.random.default_rng(1000 + seed)
    G, Hkv = draw.choice((1, 2, 4)), draw.choice((1, 2, 3))
    D, Dv = draw.choice((8, 16)), draw.choice((8, 24))
    dtype = draw.choice(("F32", "F16", "BF16"))
    ropes = (make_traces.DEFAULT, make_traces.NONE)
    rope = draw.choice(ropes) if kind == "real" else make_traces.NONE
    n_layers = draw.randint(1, 6)
    ids = sorted(draw.sample(range(n_layers), draw.randint(1, min(4, n_layers))))
    types = ["sliding" if len(ids) > 2 and l == ids[1] and seed % 4 == 1 else "full"
             for l in range(n_layers)]  # fmt: skip
    scale = 0.5 if kind == "integer" else 1.4 / D**0.5
    meta = {
        "format": "rattn-trace", "version": "1.0", "n_layers": str(n_layers), "n_seq": "1",
        "layers": ",".join(map(str, ids)), "n_q_heads": str(G * Hkv), "n_kv_heads": str(Hkv),
        "head_dim": str(D), "v_head_dim": str(Dv), "attn_scale": "%.17g" % scale, **rope,
        "layer_types": ",".join(types), "sliding_window": "7",
    }  # fmt: skip
    if "sliding" not in types:
        del meta["layer_types"], meta["sliding_window"]
    P = draw.choice((1, 2, 5, draw.randint(3, 20), draw.randint(9, 60), draw.randint(20, 60)))
    N, W = draw.randint(6, 16), min(P, draw.randint(8, 20))
    meta.update({"s0.prompt_len": str(P), "s0.decode_len": str(N), "s0.q_tail": str(W)})
    tensors = {}
    for l in ids:
        shape = (G * Hkv, Hkv, D, Dv)
        q, k, v = make_traces.layer_values(rng, kind, shape, rope, P + N, P + N)
        acc = received(stored(q, dtype), stored(k, dtype), scale, P)
        for letter, values in (("q", q[:, P - W :]), ("k", k), ("v", v)):
            tensors["s0.l%d.%s" % (l, letter)] = (values, dtype)
        tensors["s0.l%d.acc" % l] = (acc, "F32")
    path = os.path.join(folder, "%s%d.safetensors" % (kind, seed))
    make_traces.write(path, meta, tensors)
    return kind, Trace(path), P, W


# --- options -------------------------------------------------------------------------------------
def some_k(draw, P, least=1):
    k = draw.choice(("1", "2", "3", "5", "8", "13", "24", "80", "1/2", "1/3", "3/4"))
    return k if common.budget(k, P) >= least else str(least + draw.randint(0, 12))


def random_options(name, draw, P, W, kind, n_layers):
    """Any mixture the contract allows."""
    pick, agg = draw.choice, draw.choice(("max", "mean", "sum", "first"))
    if name == "streaming":
        sinks = min(P, pick((0, 1, 4)))
        return {"k": some_k(draw, P, sinks + 1), "sinks": str(sinks), "stride": pick(("none", "3"))}
    if name in ("oracle", "unlimiformer"):
        return {"k": some_k(draw, P)}
    if name == "h2o":
        return {"k": some_k(draw, P), "recent": pick(("0.5", "0", "1", "0.25", "0.75")), "agg": agg}
    if name == "tova":
        return {"k": some_k(draw, P), "agg": agg, "heads": pick(("group", "group", "layer"))}
    if name in ("snapkv", "pyramidkv", "adakv"):
        w = draw.randint(1, W)
        o = {"k": some_k(draw, P, w + 1), "window": str(w), "pool": pick(("1", "3", "5", "7")),
             "pooling": pick(("max", "avg")) if kind == "real" else "max", "agg": agg,
             "evict": pick(("none", "fifo"))}  # fmt: skip
        if name == "pyramidkv":
            o.update({"beta": pick(("1", "2", "5", "20")), "shape": pick(("steps", "linear")),
                      "short": pick(("pyramid", "uniform")),
                      "counts": pick(("prefix", "prefix", "all"))})  # fmt: skip
        if name == "adakv":
            o.update({"alpha": pick(("0", "0.2", "0.5", "1")), "safeguard": pick(("guard", "mix")),
                      "early": pick(("0", "0", "1"))})  # fmt: skip
        return o
    if name == "quest":
        return {"k": some_k(draw, P), "page": pick(("1", "2", "4", "5", "16")), "agg": agg,
                "dense": pick(("0", "0", "1", "2")), "least": pick(("1", "1", "2", "3")),
                "newest": pick(("1", "0"))}  # fmt: skip
    if name == "longformer":
        return {"window": pick(("1", "2", "5", "9", "90")), "dilation": pick(("1", "1", "2", "5")),
                "globals": pick(("0", "1", "3", "0/5", "2/7/11", "0/%d" % (P + 2))),
                "symmetric": pick(("0", "1"))}  # fmt: skip
    if name == "sparse-transformer":
        stride = draw.randint(1, 9)
        return {"pattern": pick(("strided", "fixed")), "stride": str(stride),
                "c": str(draw.randint(1, stride)),
                "combine": pick(("merged", "merged", "turn"))}  # fmt: skip
    if name == "triforce":
        chunk = pick((1, 2, 4, 8)) if kind == "integer" else pick((1, 3, 4, 8))
        return {"k": some_k(draw, P, max(chunk, 2)), "chunk": str(chunk), "agg": agg,
                "gamma": pick(("1", "2", "4", "6")), "first": pick(("0", "1")),
                "draft": pick(("retrieval", "retrieval", "streaming")), "sinks": "1",
                "over": pick(("all", "all", "prompt"))}  # fmt: skip
    select = sorted(draw.sample(range(n_layers), min(n_layers, draw.randint(1, 2))))
    return {"k": some_k(draw, P), "select": "/".join(map(str, select)), "agg": agg,
            "correct": pick(("0", "0", "3"))}  # fmt: skip


def known():
    """{policy: {parameter}} of the program."""
    command = [PROGRAM, "list", "policies", "--format", "json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {one["name"]: {p["name"] for p in one["parameters"]} for one in listed}


def spell(name, options, parameters, draw):
    """What the program knows of them; some are left to the defaults of both sides."""
    used = {key: value for key, value in options.items() if key in parameters}
    used = {key: value for key, value in used.items() if key not in OMITTED or draw.random() < 0.8}
    return name + ":" + ",".join("%s=%s" % pair for pair in used.items()), used


# --- comparing -----------------------------------------------------------------------------------
def same(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def compare_defaults(place, name, used, canonical):
    """What the program says it ran is what the reference ran."""
    mine = {**module(name).DEFAULTS, **used}
    for key, value in common.parse(canonical)[1].items():
        if key in mine:
            check(place + "option " + key, same(mine[key], value), mine[key], value)


def compare_sets(place, layers, theirs):
    """Every step; False at the first that differs, as the rest would only repeat it."""
    export = theirs.export
    equal(place + "attended_heads", layers[0].heads, theirs.meta.get("attended_heads"))
    equal(place + "layer_ids", [layer.layer for layer in layers], export["layer_ids"].tolist())
    for l, layer in enumerate(layers):
        equal(place + "is_full", layer.is_full, export["is_full"][:, l].tolist())
        for t, mine in enumerate(layer.sets):
            me = layer.view.P + t
            for h, one in enumerate(mine):
                expected = list(range(me + 1)) if one is None else one + [me]
                length = int(export["attended_len"][t, l, h])
                got = [int(j) for j in export["attended"][t, l, h] if j >= 0]
                if one is None and not got:
                    got = list(range(length))
                where = place + "layer %d step %d head %d: " % (layer.layer, t, h)
                if not equal(where + "attended", expected, got):
                    return False
                if not equal(where + "attended_len", len(expected), length):
                    return False
    return True


def compare_values(place, layers, theirs):
    for l, layer in enumerate(layers):
        out, mass, error = layer.quality()
        where = place + "layer %d: " % layer.layer
        near(where + "mass", mass, theirs.export["mass"][:, l], 1e-6)
        near(where + "rel_err", error, theirs.export["rel_err"][:, l], 1e-6)
        distance = np.linalg.norm(theirs.export["out"][:, l] - out, axis=2)
        off = (distance - 1e-5 * np.linalg.norm(out, axis=2)).max()
        check(where + "out", off <= 0, "within 1e-5 of numpy", off)


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    names, program, undecided = sys.argv[2:] or NAMES, known(), 0
    for name in names:
        if name not in program:
            print("skipped: %s, unknown to the program" % name)
            continue
        for key in sorted(set(module(name).DEFAULTS) - program[name]):
            print("skipped: option %s of %s, unknown to the program" % (key, name))
    for seed in range(seeds):
        draw = random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="rattn-reference-") as folder:
            kind, trace, P, W = make(folder, seed, draw)
            n_layers = int(trace.meta["n_layers"])
            for name in names:
                draw = random.Random("%d %s" % (seed, name))
                options = random_options(name, draw, P, W, kind, n_layers)
                if name not in program:
                    continue
                spelling, used = spell(name, options, program[name], draw)
                place = "seed %d, %s: " % (seed, spelling)
                common.margins.clear()
                layers = module(name).run(trace, 0, used)
                if min(common.margins, default=1) < NEAR:
                    undecided += 1
                    continue
                for theirs in audit_replay.replay(folder, trace.path, [spelling], "-j", "1"):
                    compare_defaults(place, name, used, theirs.json["policy"])
                    if compare_sets(place, layers, theirs):
                        compare_values(place, layers, theirs)
                    ties, allowed = theirs.json["near_ties"], 0 if kind == "integer" else 3
                    check(place + "near_ties", ties <= allowed, "at most %d" % allowed, ties)
    if undecided:
        print("skipped: %d replays whose choice hangs on the last bits of a score" % undecided)
    print("%d passed, %d failed" % (counts[True], counts[False]))
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
