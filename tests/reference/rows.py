# SPDX-License-Identifier: Apache-2.0
"""Prints the table of tests/unit/test_transform.c: what numpy makes of one small layer.

A row per case: type, rope, whether acc is known, spelling, bits of K and of V, and a hash of the rows
as stored, K before V.
"""

import hashlib
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "audit"))

import transforms
from make_traces import DEFAULT, LINEAR, LLAMA3, NONE, encode

HKV, G, D, DV, P, T, W = 2, 3, 16, 8, 24, 33, 5
CASES = [
    ("F16", "none", NONE, 0, "kvquant"),
    ("F16", "default", DEFAULT, 1, "kvquant"),
    ("F16", "default", DEFAULT, 1, "kvquant:bits=4,outliers=0.1"),
    ("F16", "default", DEFAULT, 1,
     "kvquant:bits=4,values=token,levels=layer,weights=acc,scale=none,sweeps=0"),
    ("F32", "llama3", LLAMA3, 1, "kvquant:keys=head,values=channel,weights=one,ahead=7,damp=3"),
    ("BF16", "linear", LINEAR, 0, "kvquant:bits=3,outliers=0,values=token,sweeps=1,damp=0"),
    ("F32", "default", DEFAULT, 0, "kvquant:bits=3,keys=token,values=channel"),
    ("BF16", "linear", LINEAR, 1, "kvquant:bits=3,outliers=0"),
    ("F32", "llama3", LLAMA3, 1, "kvquant:bits=2,outliers=0.25,nuq=0"),
    ("F16", "default", DEFAULT, 0, "int8"),
    ("F32", "default", DEFAULT, 0, "int4"),
    ("BF16", "none", NONE, 0, "fp8"),
    ("F16", "none", NONE, 0, "fp8:format=e5m2"),
    ("F16", "llama3", LLAMA3, 1, "int8+kvquant:bits=4+int4"),
]


class Draw:
    """Multiples of 1/256 in [-8, 8), from a linear congruence."""

    def __init__(self):
        self.state = 1

    def __call__(self, heads, rows, width):
        out = np.empty((heads, rows, width))
        for index in np.ndindex(out.shape):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            out[index] = ((self.state >> 40) % 4096 - 2048) / 256 * (1 + index[2] % 5)
        return out


def main():
    for dtype, name, rope, has_acc, spelling in CASES:
        draw = Draw()
        K = transforms.stored(draw(HKV, T, D), dtype)
        V = transforms.stored(draw(HKV, T, DV), dtype)
        q = transforms.stored(draw(HKV * G, W, D), dtype)
        acc = abs(draw(1, HKV * G, P)[0]).astype(np.float32) if has_acc else None
        K, V, k_bits, v_bits = transforms.apply(spelling, K, V, P, dtype, rope, acc, q)
        digest = hashlib.sha256(encode(K + 0.0, dtype) + encode(V + 0.0, dtype)).hexdigest()
        row = (dtype, name.upper(), has_acc, spelling, k_bits, v_bits, digest[:16])
        print('        {RA_%s, RA_ROPE_%s, %d, "%s", %d, %d, "%s"},' % row)


if __name__ == "__main__":
    main()
