# SPDX-License-Identifier: Apache-2.0
"""Traces for examples worked by hand, made so that softmax gives round numbers."""

import os

import numpy as np

import common  # noqa: F401  (finds tests/audit)
import make_traces
from attention import Trace


def trace(folder, q, weights, P, acc=None, W=1, group=1, n_layers=1, layers=(0,), keys=None):
    """Axis a of the keys holds log(weights[a]); q: the axis each row picks, None for zero."""
    k = np.log(np.array(weights, float)).T if keys is None else np.array(keys, float)
    T, D = len(k), 8
    K = np.zeros((1, T, D))
    K[0, :, : k.shape[1]] = k
    Q = np.zeros((group, W + T - P, D))
    for head, rows in enumerate(q if group > 1 else [q]):
        for row, axis in enumerate(rows):
            if axis is not None:
                Q[head, row, axis] = 1
    meta = {
        "format": "rattn-trace", "version": "1.0", "n_layers": str(n_layers),
        "layers": ",".join(map(str, layers)), "n_q_heads": str(group), "n_kv_heads": "1",
        "head_dim": str(D), "v_head_dim": str(D), "attn_scale": "1", "n_seq": "1",
        "s0.prompt_len": str(P), "s0.decode_len": str(T - P), "s0.q_tail": str(W),
    }  # fmt: skip
    V = np.eye(T, D)[None]
    tensors = {}
    for l in layers:
        tensors.update({"s0.l%d.%s" % (l, x): (a, "F32") for x, a in zip("qkv", (Q, K, V))})
        if acc is not None:
            tensors["s0.l%d.acc" % l] = (np.array(acc, float).reshape(group, P), "F32")
    path = os.path.join(folder, "example.safetensors")
    make_traces.write(path, meta, tensors)
    return Trace(path)


def sets(layers, layer=0, head=0):
    return [step[head] for step in layers[layer].sets]


def equal(what, expected, got):
    if expected != got:
        raise AssertionError("%s: expected %s, got %s" % (what, expected, got))
