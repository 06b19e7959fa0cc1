# SPDX-License-Identifier: Apache-2.0
"""The schedules of hf_policies.py against the numpy definitions of tests/reference and tests/audit.

Random queries, keys and values; sets are compared step by step, head by head, and must be equal.
Spellings and refusals are compared with what rattn-sim says, where it is built.
"""

import json
import os
import re
import subprocess
import tempfile

import numpy as np

import support
from support import check, refuses, safetensors_io

import torch

import attention
import h2o
import hf_policies
import schedules
import snapkv
import streaming
import tova

REFERENCES = {"h2o": h2o, "snapkv": snapkv, "streaming": streaming, "tova": tova}
P, N, HQ, HKV, D, LAYERS = 41, 26, 6, 2, 8, (1, 2, 5)
ROPE, UNTURNED = {"rope.type": "default", "rope.theta": "10000"}, {"rope.type": "none"}

SPELLINGS = (
    ["full"]
    + [f"streaming:{o}" for o in ("k=9", "k=1/3,sinks=0", "k=12,sinks=7,stride=4", "k=60")]
    + [f"tova:{o}" for o in ("k=7", "k=1", "k=1/4,agg=max", "k=9,heads=layer", "k=200",
                            "k=9,agg=first,heads=layer", "k=11,agg=sum")]
    + [f"h2o:{o}" for o in ("k=8", "k=1", "k=9,recent=0", "k=9,recent=1", "k=1/3,recent=0.3",
                           "k=10,agg=max", "k=10,agg=mean", "k=10,agg=first", "k=300")]
    + [f"snapkv:{o}" for o in ("k=12,window=4", "k=12,window=4,evict=fifo", "k=1/2,window=9,pool=3",
                              "k=20,window=5,pooling=avg,pool=5", "k=300,window=41", "k=33",
                              "k=20,window=5,agg=mean,pool=1", "k=20,window=5,agg=first")]
)  # fmt: skip
RECYCLED = (
    "k=7,stride=5", "k=7,stride=1", "k=1,stride=3", "k=60,stride=5", "k=100,stride=9",
    "k=1/4,stride=6", "k=7,stride=300", "k=7,stride=5,pool=1", "k=7,stride=5,pool=15",
    "k=7,stride=5,agg=mean", "k=7,stride=5,agg=first,pool=1", "k=7,stride=5,agg=sum",
    "k=7,stride=5,current=snapkv", "k=1,stride=5,current=snapkv", "k=7,stride=5,current=drop",
    "k=80,stride=5,current=drop", "k=3,stride=9,evict=raw", "k=7,stride=8,evict=raw,current=snapkv",
    "k=7,stride=5,attend=after", "k=7,stride=3,attend=after,current=snapkv,evict=raw",
    "k=7,stride=2,sim=0.3", "k=7,stride=2,sim=0.3,query=post", "k=7,stride=3,sim=-2",
    "k=7,stride=3,sim=1", "k=7,stride=2,sim=0.1,scope=model-prev", "k=7,stride=5,stagger=1",
    "k=7,stride=2,sim=-0.2,scope=model-prev,query=post", "k=7,stride=4,sim=0.2,stagger=1",
    "k=7,stride=5,share=1", "k=7,stride=5,share=2", "k=7,stride=5,share=1/5",
    "k=7,stride=3,share=2,attend=after", "k=7,stride=2,sim=0.2,share=1/5",
    "k=7,stride=2,sim=0.1,scope=model-prev,share=2", "k=7,stride=5,share=5,stagger=1",
)  # fmt: skip


def draw(seed, whole=False):
    """A trace with all prompt queries. whole: of small whole numbers, so that scores are equal."""
    rng = np.random.default_rng(seed)
    tensors, meta = [], {
        "format": "rattn-trace", "version": "1.0", "n_layers": "6", "n_q_heads": str(HQ),
        "layers": ",".join(map(str, LAYERS)), "n_kv_heads": str(HKV), "head_dim": str(D),
        "attn_scale": "0.4", "n_seq": "1", "s0.prompt_len": str(P), "s0.decode_len": str(N),
        "s0.q_tail": str(P), **(UNTURNED if whole else ROPE),
    }  # fmt: skip
    drift = rng.standard_normal((HQ, 1, D))
    for l in LAYERS:
        q = drift + rng.standard_normal((HQ, P + N, D))
        q = attention.rotate(q, np.arange(P + N), meta).astype("f4")
        k, v = (rng.standard_normal((HKV, P + N, D)).astype("f4") for _ in "kv")
        if whole:
            q, k = (np.rint(x / 2) for x in (q, k))
        causal = np.where(np.tri(P), 0, -np.inf)
        keys = np.repeat(k[:, :P].astype("f8"), HQ // HKV, 0)
        logits = 0.4 * np.einsum("hnd,hld->hnl", q[:, :P].astype("f8"), keys) + causal
        acc = attention.softmax(logits).sum(1).astype("f4")
        for name, rows in (("q", q), ("k", k), ("v", v), ("acc", acc)):
            tensors.append((f"s0.l{l}.{name}", "F32", rows))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t")
        safetensors_io.write(path, tensors, meta)
        return attention.Trace(path)


def sets_here(trace, spelling, chunk):
    """([N][layer][head] ascending sets with self, None for everything, full layer-steps)"""
    name, o, _ = hf_policies.parse(spelling)
    rope = {key: trace.meta[key] for key in trace.meta if key.startswith("rope.")}
    shape = hf_policies.Shape(P, N, LAYERS, rope, 0.4)
    policy, result = hf_policies.make(name, o, shape), []
    q = [torch.tensor(trace.tensors[f"s0.l{l}.q"]) for l in LAYERS]
    k = [torch.tensor(trace.tensors[f"s0.l{l}.k"]) for l in LAYERS]
    for begin in range(0, P, chunk):
        end = min(begin + chunk, P)
        for i in range(len(LAYERS)):
            policy.prompt(i, q[i][:, begin:end], k[i][:, :end])
    for t in range(N):
        result.append([])
        for i in range(len(LAYERS)):
            query, keys = q[i][:, P + t : P + t + 1], k[i][:, : P + t + 1]
            kept = policy.attended(i, t, query, keys)
            if kept is not None:
                kept = [sorted({*row, P + t}) for row in kept.tolist()]
            result[-1].append(kept)
            policy.learn(i, t, query, keys)
    return result, policy.full_layer_steps


def sets_there(trace, spelling):
    """The same by the references."""
    name, options = schedules.parse(spelling)
    if name in REFERENCES:
        layers = REFERENCES[name].run(trace, 0, options)
        full = sum(sum(layer.is_full) for layer in layers)
        return [
            [
                None if layer.is_full[t] else [sorted([*s, P + t]) for s in layer.sets[t]]
                for layer in layers
            ]
            for t in range(N)
        ], full
    runs = schedules.run(spelling, [trace.view(0, l) for l in LAYERS], LAYERS)
    full = sum(int(run.is_full.sum()) for run in runs)
    return [
        [
            None if run.attended[t].sum() == HKV * (P + t + 1)
            else [np.flatnonzero(row).tolist() for row in run.attended[t]]
            for run in runs
        ]
        for t in range(N)
    ], full  # fmt: skip


def as_sets(rows, t):
    return rows if rows is not None else [list(range(P + t + 1))] * HKV


def test_sets():
    spellings = SPELLINGS + ["recycled:" + o for o in RECYCLED]
    for at, spelling in enumerate(spellings):
        worst = ""
        # Sums of equal parts in another order are no ties to the last bit: none with whole numbers.
        ties = spelling.startswith("recycled") and not re.search("agg=(mean|sum)", spelling)
        for seed, chunk, whole in ((at, P, False), (at + 1000, 7, False), (at, P, ties)):
            trace = draw(seed, whole)
            here, n_here = sets_here(trace, spelling, chunk)
            there, n_there = sets_there(trace, spelling)
            if n_here != n_there:
                worst = worst or f"{n_here} full layer-steps, expected {n_there}"
            for t in range(N):
                for i, (a, b) in enumerate(zip(here[t], there[t])):
                    if as_sets(a, t) != as_sets(b, t) and not worst:
                        worst = f"seed {seed}, step {t}, layer {LAYERS[i]}: {a}, expected {b}"
        check(f"{spelling}: sets of {3 * N * len(LAYERS) * HKV} steps", not worst, worst)


WRONG = (
    "recycled:k=0,stride=2", "recycled:k=4", "recicled", "recycled:k=4,stride=2,agg=maxi",
    "recycled:k=4,stride=2,pool=4", "recycled:k=4,strid=2", "full:k=3", "streaming:k=3",
    "snapkv:k=20", "recycled:k=4,stride=2,k=5", "recycled:k", "recycled:k=4,stride=2,sim=x",
    "recycled:k=4,stride=2,sim=inf", "recycled:k=4,stride=2,share=5/3", "h2o:k=4,recent=1.5",
    "recycled:k=4,stride=2,current=7", "tova:k=4,heads=grup", "streaming:k=9,sinks=-1",
    "recycled:k=4,stride=2,sim=0.5,scope=model-prev,stagger=1", "snapkv:k=50,window=0",
    "h2o:k=1/0", "h2o:k=1/4/2", "recycled:stride=2,k=", "snapkv:k=40,pool=1025",
    "recycled:k=99999999999,stride=2",
)  # fmt: skip
RIGHT = (
    "full", "recycled:k=2/8,stride=4", "recycled:stride=4,k=9,sim=0.850", "h2o:k=4,recent=.25",
    "recycled:k=4,stride=2,sim=-0", "recycled:k=4,stride=2,sim=1e-7,share=0/19",
    "streaming:k=9,stride=none",
    "tova:k=1/3,heads=layer", "snapkv:k=1/4", "recycled:k=4,stride=2,sim=1e20",
)  # fmt: skip


def tell(spelling):
    sample = os.path.join(support.TOP, "traces", "data", "smollm2-135m.safetensors")
    command = [support.RATTN_SIM, "replay", sample, "-p", spelling, "--dry-run",
               "--format", "json"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_spellings():
    if not os.path.exists(support.RATTN_SIM):
        support.skip("spellings", "no build/rattn-sim to compare with")
        return
    for spelling in WRONG:
        said = tell(spelling).stderr.strip().removeprefix("rattn-sim: ")
        refuses(spelling, lambda: hf_policies.parse(spelling), said.splitlines()[0])
    for spelling in RIGHT:
        canonical = hf_policies.parse(spelling)[2]
        said = json.loads(tell(spelling).stdout)["policy"]
        check(f"canonical {spelling}", said == canonical, canonical)
        check("it parses back", hf_policies.parse(canonical)[2] == canonical)


def test_refusals():
    shape = hf_policies.Shape(10, 4, (0, 1), {"rope.type": "yarn"}, 1.0)

    def make(spelling):
        name, o, _ = hf_policies.parse(spelling)
        return lambda: hf_policies.make(name, o, shape)

    refuses("unknown rotation", make("recycled:k=2,stride=2,sim=0.5"), "yarn", "query=post")
    refuses("a layer that is not there", make("recycled:k=2,stride=2,share=7"), "share", "got 7")
    refuses("a window beyond the prompt", make("snapkv:k=99,window=11"), "at most 10", "got 11")
    refuses("a share below the sinks", make("streaming:k=1/5"), "more than sinks=4", "1/5 of 10")
    refuses("a share below the window", make("snapkv:k=1/2,window=5"), "got 5 of 10")
    refuses("transformations", lambda: hf_policies.parse("full+int8"), "transformations")
    refuses("single layers", lambda: hf_policies.parse("tova:k=2,k@0=3"), "single layers")


if __name__ == "__main__":
    print("on", "torch " + torch.__version__)
    test_sets()
    test_spellings()
    test_refusals()
    raise SystemExit(support.finish())
