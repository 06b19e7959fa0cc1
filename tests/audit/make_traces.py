# SPDX-License-Identifier: Apache-2.0
"""Small seeded traces for the audit, by a writer of its own.

Queries wander slowly, so that thresholds on their similarity split the steps; keys have a few
directions in common, so that attention has peaks. The names say what a trace is for.
"""

import json
import os
import struct

import numpy as np

from attention import read_safetensors, rotate

LLAMA3 = {
    "rope.type": "llama3", "rope.theta": "10000", "rope.factor": "8", "rope.low_freq_factor": "1",
    "rope.high_freq_factor": "4", "rope.original_max_position": "32",
}  # fmt: skip
DEFAULT = {"rope.type": "default", "rope.theta": "10000"}
LINEAR = {"rope.type": "linear", "rope.theta": "500", "rope.factor": "4"}
NONE = {"rope.type": "none"}

#   name: seed, Hq, Hkv, D, Dv, dtype, layer types, rope, [(P, N, W)]
SHAPES = {
    "g1": (1, 2, 2, 8, 8, "F32", "ff", DEFAULT, [(23, 40, 1)]),
    "g2": (2, 2, 1, 16, 24, "F16", "fff", DEFAULT, [(40, 33, 5)]),
    "g3": (3, 9, 3, 64, 64, "F16", "ff", LLAMA3, [(36, 40, 3)]),
    "g4": (4, 8, 2, 32, 16, "BF16", "fff", LINEAR, [(29, 37, 2)]),
    "sliding": (5, 6, 3, 16, 16, "F16", "sfssf", DEFAULT, [(31, 40, 2)]),
    "two": (6, 4, 2, 24, 8, "F32", "fff", LLAMA3, [(12, 17, 3), (27, 30, 3)]),
    "short": (7, 3, 1, 8, 40, "BF16", "ff", NONE, [(1, 12, 1), (5, 3, 4)]),
    "integer": (8, 6, 2, 8, 8, "F16", "ff", NONE, [(32, 40, 2)]),
    "void": (9, 4, 2, 8, 16, "F32", "ff", NONE, [(10, 20, 1)]),
    "stored": (10, 4, 2, 16, 16, "F16", "ffff", DEFAULT, [(20, 24, 2)]),
}
WINDOW = 9


def encode(values, dtype):
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(values, {"F16": "<f2", "F32": "<f4", "I32": "<i4"}[dtype]).tobytes()


def write(path, metadata, tensors):
    """tensors: {name: (array, dtype)}."""
    header, data = {"__metadata__": metadata}, b""
    for name, (values, dtype) in tensors.items():
        raw = encode(values, dtype)
        where = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": where}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def wander(rng, heads, rows, D, pull):
    x = np.empty((heads, rows, D))
    x[:, 0] = rng.normal(size=(heads, D))
    for t in range(1, rows):
        x[:, t] = pull * x[:, t - 1] + np.sqrt(1 - pull**2) * rng.normal(size=(heads, D))
    return x + 0.7 * rng.normal(size=D)


def layer_values(rng, name, shape, rope, length, tail):
    """q, k, v of one layer. `tail`: query rows, of the last positions."""
    Hq, Hkv, D, Dv = shape
    if name == "integer":  # many exact ties, each logit exact in f32
        return (
            rng.integers(-1, 2, (Hq, tail, D)),
            rng.integers(-1, 2, (Hkv, length, D)),
            rng.integers(-3, 4, (Hkv, length, Dv)),
        )
    q = wander(rng, Hq, tail, D, 0.93)
    common = rng.normal(size=(Hkv, 3, D))
    k = 0.7 * rng.normal(size=(Hkv, length, D)) + 0.8 * common[:, rng.integers(0, 3, length)]
    v = rng.normal(size=(Hkv, length, Dv))
    if name == "void":
        v[0] = 0  # attention of the first group is a zero vector: its error is not defined
        q[:, 5:8] = 0  # no direction to compare, and every position ties
    position = np.arange(length)
    return rotate(q, position[-tail:], rope), rotate(k, position, rope), v


def make(folder, name):
    seed, Hq, Hkv, D, Dv, dtype, kinds, rope, sequences = SHAPES[name]
    rng, n = np.random.default_rng(seed), len(kinds)
    ids, total = (range(n), n) if name != "stored" else ((1, 4, 5, 9), 12)
    types = ["full"] * total
    for layer, kind in zip(ids, kinds):
        types[layer] = {"f": "full", "s": "sliding"}[kind]
    meta = {
        "format": "rattn-trace", "version": "1.0", "model.id": "audit/" + name,
        "n_layers": str(total),
        "layers": ",".join(map(str, ids)), "n_q_heads": str(Hq), "n_kv_heads": str(Hkv),
        "head_dim": str(D), "v_head_dim": str(Dv), "n_seq": str(len(sequences)),
        "attn_scale": "0.5" if name == "integer" else "%.9g" % (1.4 / np.sqrt(D)), **rope,
    }  # fmt: skip
    if "s" in kinds:
        meta["layer_types"] = ",".join(types)
        meta.update({"sliding_window": str(WINDOW), "kv_first.l2": "20"})
    tensors = {}
    for s, (P, N, W) in enumerate(sequences):
        for key, value in (("prompt_len", P), ("decode_len", N), ("q_tail", W)):
            meta["s%d.%s" % (s, key)] = str(value)
        for layer in ids:
            q, k, v = layer_values(rng, name, (Hq, Hkv, D, Dv), rope, P + N, W + N)
            first = int(meta.get("kv_first.l%d" % layer, "0"))
            for letter, values in (("q", q), ("k", k[:, first:]), ("v", v[:, first:])):
                tensors["s%d.l%d.%s" % (s, layer, letter)] = (values, dtype)
    path = os.path.join(folder, name + ".safetensors")
    write(path, meta, tensors)
    return path


def make_worked(folder):
    """The worked example of the paper's notes: P=5, N=4; axis 0 of the keys holds the log scores of
    the prompt's last query, axis 1 those of step 2. Other steps have a zero query."""
    k = np.zeros((1, 9, 8))
    k[0, :5, 0] = np.log([0.40, 0.05, 0.10, 0.25, 0.20])
    k[0, :8, 1] = np.log([0.20, 0.02, 0.30, 0.03, 0.05, 0.10, 0.18, 0.12])
    q = np.zeros((1, 5, 8))
    q[0, 0, 0] = q[0, 3, 1] = 1
    v = np.random.default_rng(0).normal(size=(1, 9, 8))
    meta = {
        "format": "rattn-trace", "version": "1.0", "n_layers": "1", "layers": "0", "n_q_heads": "1",
        "n_kv_heads": "1", "head_dim": "8", "v_head_dim": "8", "attn_scale": "1", "n_seq": "1",
        "s0.prompt_len": "5", "s0.decode_len": "4", "s0.q_tail": "1",
    }  # fmt: skip
    path = os.path.join(folder, "worked.safetensors")
    write(path, meta, {"s0.l0.q": (q, "F32"), "s0.l0.k": (k, "F32"), "s0.l0.v": (v, "F32")})
    return path


def swap_heads(path, target):
    """The same trace with its KV heads, and their groups, in reverse order."""
    meta, tensors = read_safetensors(path)
    dtypes, Hkv = tensors.pop("dtypes"), int(meta["n_kv_heads"])
    swapped = {}
    for name, values in tensors.items():
        groups = values.reshape(Hkv, -1, *values.shape[1:])
        swapped[name] = (groups[::-1].reshape(values.shape), dtypes[name])
    write(target, meta, swapped)
    return target
