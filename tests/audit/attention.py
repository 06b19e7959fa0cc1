# SPDX-License-Identifier: Apache-2.0
"""Traces and exports read by hand, and full attention over them in f64.

Written from the documents alone, so that agreement with the program means something: no code is
shared with it, and everything is computed for all steps at once. Not for large traces.
"""

import json
import math
import struct

import numpy as np

FORMATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "u1"}


def read_safetensors(path):
    """(metadata, {name: array}); BF16 comes out as f32."""
    with open(path, "rb") as file:
        raw = file.read()
    (size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + size])
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            upper = np.frombuffer(raw[begin:end], "<u2").astype(np.uint32)
            flat = (upper << 16).view(np.float32)
        else:
            flat = np.frombuffer(raw[begin:end], FORMATS[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return metadata, {"dtypes": {n: e["dtype"] for n, e in header.items()}, **tensors}


class Trace:
    def __init__(self, path):
        self.path = path
        self.meta, self.tensors = read_safetensors(path)
        self.Hq, self.Hkv = int(self.meta["n_q_heads"]), int(self.meta["n_kv_heads"])
        self.scale = float(self.meta["attn_scale"])
        self.layer_ids = [int(x) for x in self.meta["layers"].split(",")]
        types = self.meta.get("layer_types", "").split(",")
        width = int(self.meta.get("sliding_window", "0"))
        self.window = {
            l: width if types != [""] and types[l] == "sliding" else 0 for l in self.layer_ids
        }
        dtype = self.tensors["dtypes"]["s0.l%d.k" % self.layer_ids[0]]
        self.element = {"F16": 2, "BF16": 2, "F32": 4}[dtype]
        self.views = {}

    def n_seq(self):
        return int(self.meta["n_seq"])

    def view(self, seq, layer):
        if (seq, layer) not in self.views:
            self.views[seq, layer] = View(self, seq, layer)
        return self.views[seq, layer]


class View:
    """One layer of one sequence. Row 0 of whatever has N+1 rows is the last prompt token."""

    def __init__(self, trace, seq, layer):
        name = "s%d.l%d." % (seq, layer)
        self.P = int(trace.meta["s%d.prompt_len" % seq])
        self.N = int(trace.meta["s%d.decode_len" % seq])
        self.Hq, self.Hkv, self.G = trace.Hq, trace.Hkv, trace.Hq // trace.Hkv
        self.T, self.window, self.element = self.P + self.N, trace.window[layer], trace.element
        first = int(trace.meta.get("kv_first.l%d" % layer, "0"))
        self.K = self.linear(trace.tensors[name + "k"], first)
        self.V = self.linear(trace.tensors[name + "v"], first)
        self.D, self.Dv = self.K.shape[2], self.V.shape[2]
        W = int(trace.meta["s%d.q_tail" % seq])
        stored = trace.tensors[name + "q"].astype(np.float64)  # [Hq, W+N, D]
        self.tail = stored[:, :W]  # queries of the last W prompt positions
        self.q = stored[:, W - 1 :]  # [Hq, N+1, D]
        acc = trace.tensors.get(name + "acc")  # [Hq, P], or None: what the prompt's positions got
        self.acc = None if acc is None else acc.astype(np.float64)
        self.meta = trace.meta
        position = np.arange(self.T)
        own = np.arange(self.P - 1, self.T)[:, None]
        self.visible = position <= own  # [N+1, T]
        if self.window:
            self.visible &= position > own - self.window
        group = np.repeat(np.arange(self.Hkv), self.G)
        logits = trace.scale * np.einsum("hnd,htd->nht", self.q, self.K[group], optimize=True)
        self.logits = np.where(self.visible[:, None], logits, -np.inf)  # [N+1, Hq, T]
        self.prob = softmax(self.logits)
        self.o = self.times_v(self.prob)
        # What f32 can do to one logit: the design's bound of kernel_err grows with it.
        size = np.einsum("hnd,htd->nht", abs(self.q), abs(self.K[group]), optimize=True)
        size *= trace.scale
        self.logit_size = np.where(self.visible[:, None], size, 0)[1:].max(axis=(1, 2))
        self.ranks, self.means = {}, {}

    def linear(self, stored, first):
        rows = np.zeros((stored.shape[0], self.T, stored.shape[2]))
        rows[:, first:] = stored
        return rows

    def times_v(self, prob):
        n = prob.shape[0]
        heads = prob.reshape(n, self.Hkv, self.G, self.T).transpose(1, 0, 2, 3)
        out = heads.reshape(self.Hkv, n * self.G, self.T) @ self.V
        out = out.reshape(self.Hkv, n, self.G, self.Dv).transpose(1, 0, 2, 3)
        return out.reshape(n, self.Hq, self.Dv)

    def aggregate(self, agg):
        """[N+1, Hkv, T]: how the query heads of a group become one score."""
        p = self.prob.reshape(self.N + 1, self.Hkv, self.G, self.T)
        if agg == "first":
            return p[:, :, 0]
        return {"max": np.max, "mean": np.mean, "sum": np.sum}[agg](p, axis=2)

    def rank(self, agg):
        """[N, Hkv, T]: place of each position before self by aggregated probability."""
        if agg not in self.ranks:
            score = self.aggregate(agg)[1:].copy()
            for t in range(self.N):
                score[t, :, self.P + t :] = -np.inf
            order = np.argsort(-score, axis=2, kind="stable")
            place = np.empty_like(order)
            np.put_along_axis(place, order, np.arange(self.T)[None, None], axis=2)
            self.ranks[agg] = place
        return self.ranks[agg]

    def mean_query(self, kind):
        """[N+1, D]: mean over the query heads, before RoPE with kind pre."""
        if kind not in self.means:
            mean = self.q.sum(axis=0) / self.Hq
            if kind == "pre":
                mean = unrotate(mean, np.arange(self.P - 1, self.T), self.meta)
            self.means[kind] = mean
        return self.means[kind]


def softmax(logits):
    top = logits.max(axis=-1, keepdims=True)
    e = np.exp(logits - np.where(np.isfinite(top), top, 0))
    return e / e.sum(axis=-1, keepdims=True)


def inverse_frequencies(D, meta):
    """As the models form them, in f32."""
    theta = float(meta["rope.theta"])
    inverse = (1.0 / theta ** (np.arange(0, D, 2) / D)).astype(np.float32)
    if meta["rope.type"] == "linear":
        inverse = inverse / np.float32(meta["rope.factor"])
    if meta["rope.type"] == "llama3":
        factor, low, high, old = (
            float(meta["rope." + key])
            for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position")
        )
        scaled = []
        for x in inverse.astype(np.float64):
            wavelength = 2 * math.pi / x
            smooth = (old / wavelength - low) / (high - low)
            if wavelength > old / low:
                x = x / factor
            elif wavelength >= old / high:
                x = (1 - smooth) * x / factor + smooth * x
            scaled.append(x)
        inverse = np.array(scaled)
    return inverse.astype(np.float32)


def rotate(rows, positions, meta, direction=1):
    """RoPE of the "half" layout: element d turns with element d + D/2."""
    if meta["rope.type"] == "none":
        return rows
    half = rows.shape[-1] // 2
    angle = positions.astype(np.float32)[:, None] * inverse_frequencies(2 * half, meta)
    angle = angle.astype(np.float64)
    cos, sin = np.cos(angle), direction * np.sin(angle)
    a, b = rows[..., :half], rows[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def unrotate(rows, positions, meta):
    return rotate(rows, positions, meta, -1)
