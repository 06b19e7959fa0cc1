# SPDX-License-Identifier: Apache-2.0
"""Writes tests/vectors/*.json: inputs, sets and outputs of every reference, for any implementation.

`vectors.py` writes them, `vectors.py --check` says whether they would come out byte for byte. The
format is explained in tests/vectors/README.md. Inputs are multiples of 1/64, so exact in f32. A
seed is passed over when, in any ranking, the last taken and the first left are closer than MARGIN
(equal scores stay in, as the rule for ties decides them, nearly equal ones do not), or when another
option would give the same sets, so that the file could not tell the two apart.
"""

import json
import os
import sys
import tempfile

import numpy as np

import common
import make_traces
from attention import Trace

FOLDER = os.path.join(os.path.dirname(common.HERE), "vectors")
MARGIN = 1e-6
LIMIT = 30 * 1024  # bytes of a file

#   name: [(options, shape, other options that must give other sets)]
#   shape: Hq, Hkv, D, P, N, W, layers of the model, recorded ones
SMALL, DEEP = (4, 2, 8, 12, 6, 4, 1, (0,)), (2, 1, 8, 10, 4, 3, 6, (1, 2, 3, 5))
LONG, FLAT = (2, 1, 8, 20, 8, 4, 1, (0,)), (2, 2, 8, 16, 6, 4, 1, (0,))
VECTORS = {
    "h2o": [
        ("k=5", SMALL, "agg=max agg=first recent=0.25"),
        ("k=6,recent=0.25,agg=max", SMALL, "agg=sum recent=0.5"),
        ("k=1/2,recent=0", FLAT, "recent=0.25"),
    ],
    "tova": [
        ("k=5", SMALL, "agg=max agg=first heads=layer"),
        ("k=3,agg=max", LONG, "agg=mean"),
        ("k=1/4", FLAT, "k=5"),
    ],
    "snapkv": [
        ("k=6,window=2,pool=3", SMALL, "pool=1 agg=mean agg=first pooling=avg window=3"),
        ("k=7,window=4,pool=5,pooling=avg,evict=fifo", LONG, "pooling=max evict=none"),
        ("k=5,window=3,pool=1,agg=mean,evict=fifo", FLAT, "pool=3"),
    ],
    "quest": [
        ("k=6,page=2", SMALL, "agg=mean agg=first newest=0"),
        ("k=8,page=4,agg=mean", LONG, "agg=max least=3"),
        ("k=3,page=4,dense=1", FLAT, "dense=0"),
    ],
    "unlimiformer": [("k=4", SMALL, "k=5"), ("k=1/3", FLAT, "k=6")],
    "longformer": [
        ("window=4", SMALL, "window=3"),
        ("window=3,dilation=3,globals=0/5", LONG, "dilation=1 globals=0"),
        ("window=1,globals=2", FLAT, "globals=0/2"),
    ],
    "sparse-transformer": [
        ("pattern=strided,stride=4", LONG, "pattern=fixed combine=turn"),
        ("pattern=fixed,stride=5", LONG, "c=2"),
        ("pattern=fixed,stride=4,c=2", FLAT, "c=1"),
    ],
    "pyramidkv": [
        ("k=5,window=2,pool=3,beta=4", DEEP, "beta=1 pool=1"),
        ("k=5,window=1,pool=1,evict=fifo", DEEP, "evict=none shape=linear"),
        # a prompt of exactly twice the room is not short; the last layer has one position, not none
        ("k=7,window=2,pool=1,beta=4,short=uniform", DEEP, "beta=1"),
        ("k=6,window=2,pool=1,shape=linear", DEEP, "shape=steps"),
    ],
    "adakv": [
        ("k=5,window=2,pool=3", FLAT, "alpha=1 pool=1 pooling=avg"),
        ("k=6,window=2,pool=1,alpha=0.5,evict=fifo", SMALL, "alpha=0 alpha=1 agg=mean evict=none"),
        ("k=6,window=1,pool=3,safeguard=mix,alpha=0.5", FLAT, "safeguard=guard alpha=0"),
        ("k=6,window=3,pool=3,alpha=0.5,early=1", FLAT, "early=0 pool=1"),
        # halves, which round to even
        ("k=9,window=1,pool=1,safeguard=mix,alpha=0.5", FLAT, "safeguard=guard alpha=0"),
    ],
    "triforce": [
        ("k=6,chunk=2,gamma=2", LONG, "first=1 agg=mean gamma=3 over=prompt"),
        ("k=8,chunk=3,gamma=3,first=1", SMALL, "first=0 chunk=4"),
        ("k=5,chunk=2,gamma=2,draft=streaming,sinks=2", FLAT, "draft=retrieval sinks=1"),
    ],
    "tidal": [
        ("k=3", DEEP, "agg=mean agg=first select=2"),
        ("k=4,select=1/3,correct=3,agg=sum", DEEP, "agg=max correct=0 select=1"),
    ],
}


def grid(values, step=64):
    return np.round(np.asarray(values) * step) / step


def make(folder, seed, shape):
    Hq, Hkv, D, P, N, W, n_layers, ids = shape
    rng = np.random.default_rng(seed)
    meta = {
        "format": "rattn-trace", "version": "1.0", "n_layers": str(n_layers), "n_seq": "1",
        "layers": ",".join(map(str, ids)), "n_q_heads": str(Hq), "n_kv_heads": str(Hkv),
        "head_dim": str(D), "v_head_dim": str(D), "attn_scale": "0.5",
        "s0.prompt_len": str(P), "s0.decode_len": str(N), "s0.q_tail": str(W),
    }  # fmt: skip
    tensors = {}
    for l in ids:
        q, k, v = make_traces.layer_values(
            rng, "vectors", (Hq, Hkv, D, D), make_traces.NONE, P + N, W + N
        )
        acc = rng.gamma(1.0, 1.0, (Hq, P))
        for letter, values in (("q", q), ("k", k), ("v", v), ("acc", acc)):
            tensors["s0.l%d.%s" % (l, letter)] = (grid(values), "F32")
    path = os.path.join(folder, "vector.safetensors")
    make_traces.write(path, meta, tensors)
    return Trace(path)


def nine(values):
    """Lists of numbers of nine digits."""
    if isinstance(values, np.ndarray):
        return nine(values.tolist())
    if isinstance(values, list):
        return [nine(one) for one in values]
    return float("%.9g" % values)


def discriminates(run, trace, options, layers, others):
    """Whether the sets would be others under each of the other options."""
    mine = [layer.sets for layer in layers]
    for pair in others.split():
        key, value = pair.split("=")
        if [layer.sets for layer in run(trace, 0, {**options, key: value})] == mine:
            return False
    return True


def vector(name, options, shape, others, first_seed):
    """The first seed from there on without near ties, as one JSON object."""
    module = __import__(name.replace("-", "_"))
    spelling = "%s:%s" % (name, options)
    options = common.parse(spelling)[1]
    for seed in range(first_seed, first_seed + 1000):
        with tempfile.TemporaryDirectory() as folder:
            trace = make(folder, seed, shape)
        common.margins.clear()
        layers = module.run(trace, 0, options)
        margin = min(common.margins, default=1)
        if margin >= MARGIN and discriminates(module.run, trace, options, layers, others):
            break
    else:
        raise ValueError("%s: no seed serves" % spelling)
    Hq, Hkv, D, P, N, W, n_layers, ids = shape
    result = {
        "format": "rattn-vector", "version": "1", "policy": spelling, "seed": seed,
        "options": {**module.DEFAULTS, **options},
        "P": P, "N": N, "W": W, "Hq": Hq, "Hkv": Hkv, "D": D, "Dv": D, "scale": 0.5,
        "n_layers": n_layers, "heads": layers[0].heads, "layers": [],
    }  # fmt: skip
    for layer in layers:
        out, mass, error = layer.quality()
        error = np.where(error < 1e-12, 0, error)  # two sums over the same positions
        tensors = {x: trace.tensors["s0.l%d.%s" % (layer.layer, x)] for x in ("q", "k", "v", "acc")}
        entry = {"layer": layer.layer, **{x: t.tolist() for x, t in tensors.items()}}
        entry.update({"is_full": layer.is_full, "sets": layer.sets})
        if layer.order:
            entry["order"] = layer.order
        entry.update({"out": nine(out), "mass": nine(mass), "rel_err": nine(error)})
        result["layers"].append(entry)
    return result


def text(tree):
    """One line per field, so that differences read well."""

    def compact(value):
        return json.dumps(value, separators=(",", ":"))

    lines = ["%s: %s" % (compact(k), compact(v)) for k, v in tree.items() if k != "layers"]
    layers = []
    for layer in tree["layers"]:
        fields = ["  %s: %s" % (compact(k), compact(v)) for k, v in layer.items()]
        layers.append("{\n" + ",\n".join(fields) + "\n}")
    return "{\n" + ",\n".join(lines) + ',\n"layers": [' + ",".join(layers) + "]\n}\n"


def main():
    check, stale = "--check" in sys.argv[1:], []
    os.makedirs(FOLDER, exist_ok=True)
    expected = set()
    for name, cases in VECTORS.items():
        for number, (options, shape, others) in enumerate(cases, 1):
            file = "%s-%d.json" % (name, number)
            expected.add(file)
            first_seed = 1000 * number + len(expected)
            written = text(vector(name, options, shape, others, first_seed))
            assert len(written) <= LIMIT, "%s: %d bytes" % (file, len(written))
            path = os.path.join(FOLDER, file)
            if not check:
                with open(path, "w") as target:
                    target.write(written)
            elif not os.path.exists(path) or open(path).read() != written:
                stale.append(file)
    stale += sorted(f for f in os.listdir(FOLDER) if f.endswith(".json") and f not in expected)
    for file in stale:
        print("FAIL  %s is not what vectors.py writes" % file)
    print("%d passed, %d failed" % (len(expected) - len(stale), len(stale)))
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
