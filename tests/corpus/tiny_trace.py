# SPDX-License-Identifier: Apache-2.0
"""A complete rattn-trace in a few hundred bytes, built with the standard library alone.

Two model layers (0 full, 1 sliding with window 3), P=4, N=3, W=2, Hq=2, Hkv=1, D=Dv=8, f16. Its check rows
come from a textbook softmax in Python floats, so they are independent of the code under test.
"""

import copy
import hashlib
import json
import math
import struct

P, N, W, HQ, HKV, D = 4, 3, 2, 2, 1, 8
T = P + N
WINDOW, SCALE = 3, 0.25
CHECK_STEPS = (0, 2)
FORMATS = {"F16": "e", "F32": "f", "I32": "i", "U8": "B", "BF16": "H", "F64": "d", "I8": "b"}


def pack(dtype, values):
    return struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)


def container(text, data=b"", length=None):
    """Length, header text and data of a safetensors file; `length` overrides the true one."""
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Trace:
    """Metadata and tensors; `tensors` maps a name to [dtype, shape, bytes]."""

    def __init__(self):
        self.metadata = {
            "format": "rattn-trace", "version": "1.0", "model.id": "tiny", "n_layers": "2", "layers": "0,1",
            "n_q_heads": str(HQ), "n_kv_heads": str(HKV), "head_dim": str(D), "attn_scale": str(SCALE),
            "layer_types": "full,sliding", "sliding_window": str(WINDOW), "rope.type": "none",
            "n_seq": "1", "s0.prompt_len": str(P), "s0.decode_len": str(N), "s0.q_tail": str(W),
            "token_types": "text,image",
        }  # fmt: skip
        self.tensors = {}
        for layer in range(2):
            self.add_layer(0, layer)
        self.put("s0.tokens", "I32", [T + 1], range(T + 1))
        self.put("s0.logprob", "F32", [N], [-1.0, -0.5, 0.0])
        self.put("s0.check_steps", "I32", [len(CHECK_STEPS)], CHECK_STEPS)
        self.put("s0.token_type", "U8", [T], [0, 0, 1, 1, 0, 0, 0])

    def put(self, name, dtype, shape, values):
        self.tensors[name] = [dtype, list(shape), pack(dtype, list(values))]

    def add_layer(self, seq, layer):
        # Eighths between -1 and 1: exact in f16, and different at every place.
        value = lambda part, head, row, d: (
            ((7 * part + 5 * head + 3 * row + 11 * d + 13 * layer + row * d) % 17) - 8
        ) / 8
        rows = lambda part, heads, n: [
            value(part, h, r, d) for h in range(heads) for r in range(n) for d in range(D)
        ]
        prefix = f"s{seq}.l{layer}."
        self.put(prefix + "k", "F16", [HKV, T, D], rows(0, HKV, T))
        self.put(prefix + "v", "F16", [HKV, T, D], rows(1, HKV, T))
        self.put(prefix + "q", "F16", [HQ, W + N, D], rows(2, HQ, W + N))
        o, lse = [], []
        for h in range(HQ):
            for t in CHECK_STEPS:
                p = P + t
                keys = range(max(0, p - WINDOW + 1) if layer == 1 else 0, p + 1)
                dot = lambda j: sum(value(2, h, W + t, d) * value(0, 0, j, d) for d in range(D))
                weights = [math.exp(SCALE * dot(j)) for j in keys]
                total = sum(weights)
                o += [
                    sum(w * value(1, 0, j, d) for w, j in zip(weights, keys)) / total
                    for d in range(D)
                ]
                lse.append(math.log(total))
        self.put(prefix + "o", "F32", [HQ, len(CHECK_STEPS), D], o)
        self.put(prefix + "lse", "F32", [HQ, len(CHECK_STEPS)], lse)
        # Any division of P queries among P positions will do.
        self.put(prefix + "acc", "F32", [HQ, P], [1.75, 1.25, 0.75, 0.25] * HQ)

    def copy(self):
        return copy.deepcopy(self)

    def data(self):
        return b"".join(tensor[2] for tensor in self.tensors.values())

    def header(self):
        out, at = {"__metadata__": self.metadata}, 0
        for name, (dtype, shape, raw) in self.tensors.items():
            out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
            at += len(raw)
        return out

    def bytes(self):
        return container(json.dumps(self.header()), self.data())

    def with_checksum(self):
        self.metadata["content.sha256"] = hashlib.sha256(self.data()).hexdigest()
        return self
