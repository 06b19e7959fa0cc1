# SPDX-License-Identifier: Apache-2.0
"""The split by token type, recomputed from the exported sets with an attention of its own."""

import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

from attention import read_safetensors
from make_traces import encode

HERE = os.path.dirname(os.path.abspath(__file__))
RATTN = os.environ.get("RATTN_SIM", os.path.join(HERE, "../../build/rattn-sim"))
P, N, HQ, HKV, D = 30, 12, 4, 2, 16
NAMES = ["text", "image", "none-of-these"]
passed = failed = 0


def check(what, got, expected):
    global passed, failed
    near = got is expected or (
        got is not None and expected is not None and abs(got - expected) <= 2e-6 * (1 + abs(expected))
    )
    passed, failed = passed + near, failed + (not near)
    if not near:
        print(f"FAIL  {what}: expected {expected}, got {got}")


def write(path, rng, types):
    tensors, layers = {}, (0, 1)
    for l in layers:
        tensors[f"s0.l{l}.k"] = (rng.normal(size=(HKV, P + N, D)), "F32")
        tensors[f"s0.l{l}.v"] = (rng.normal(size=(HKV, P + N, D)), "F32")
        tensors[f"s0.l{l}.q"] = (rng.normal(size=(HQ, 1 + N, D)), "F32")
    metadata = {
        "format": "rattn-trace", "version": "1.0", "n_layers": "2", "layers": "0,1",
        "n_q_heads": str(HQ), "n_kv_heads": str(HKV), "head_dim": str(D), "attn_scale": "0.5",
        "n_seq": "1", "s0.prompt_len": str(P), "s0.decode_len": str(N), "s0.q_tail": "1",
        "token_types": ",".join(NAMES),
    }  # fmt: skip
    header, data = {"__metadata__": metadata}, b""
    entries = [(name, dtype, array.shape, encode(array, dtype)) for name, (array, dtype) in tensors.items()]
    entries.append(("s0.token_type", "U8", types.shape, types.astype("u1").tobytes()))
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    return {name: np.asarray(array, "f4").astype("f8") for name, (array, _) in tensors.items()}


def expected(values, types, export):
    """visible share, kept share, mass, recovered, error of each type."""
    sums = np.zeros((len(NAMES), 6))  # visible, kept, mass, kept mass, error, errors
    heads = 0
    for t in range(N):
        L = P + t + 1
        for l in (0, 1):
            q, k, v = (values[f"s0.l{l}.{x}"] for x in "qkv")
            for kv in range(HKV):
                n = export["attended_len"][t, l, kv]
                row = export["attended"][t, l, kv]
                kept = np.arange(L) if row[0] < 0 else row[:n]
                inside = np.zeros(L, bool)
                inside[kept] = True
                for i in range(len(NAMES)):
                    sums[i, 0] += (types[:L] == i).sum()
                    sums[i, 1] += (inside & (types[:L] == i)).sum()
                for h in range(kv * HQ // HKV, (kv + 1) * HQ // HKV):
                    logits = 0.5 * k[kv, :L] @ q[h, 1 + t]
                    prob = np.exp(logits - logits.max())
                    prob /= prob.sum()
                    o = prob @ v[kv, :L]
                    part = (prob * inside) @ v[kv, :L] / prob[inside].sum()
                    heads += 1
                    for i in range(len(NAMES)):
                        sums[i, 2] += prob[types[:L] == i].sum()
                        sums[i, 3] += prob[inside & (types[:L] == i)].sum()
                    sums[types[L - 1], 4] += np.linalg.norm(part - o) / np.linalg.norm(o)
                    sums[types[L - 1], 5] += 1
    share = lambda a, b: a / b if b > 0 else None
    total = sums[:, 0].sum()
    return [
        {"visible_share": share(s[0], total), "kept_share": share(s[1], s[0]), "mass": share(s[2], heads),
         "mass_recovered": share(s[3], s[2]), "output_rel_err_mean": share(s[4], s[5])}
        for s in sums
    ]  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(5)
    types = rng.integers(0, 2, P + N)
    trace = os.path.join(folder, "typed.safetensors")
    values = write(trace, rng, types)
    policies = ["full", "recycled:k=6,stride=4", "streaming:k=6", "oracle:k=3"]
    for policy in policies:
        export = os.path.join(folder, "export.safetensors")
        command = [RATTN, "replay", trace, "-p", policy, "--by-type", "--repeat", "1", "-q", "--format", "json", "--export", export]
        got = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["by_type"]
        want = expected(values, types, read_safetensors(export)[1])
        for name, figures in zip(NAMES, want):
            for key, value in figures.items():
                check(f"{policy} {name} {key}", got[name][key], value)
    sample = os.path.join(HERE, "../../traces/data/smollm2-135m.safetensors")
    refused = subprocess.run([RATTN, "replay", sample, "-p", "full", "--by-type"], capture_output=True, text=True)
    check("a trace without types: exit code", refused.returncode, 2)
    check("a trace without types: names the tensor", "s0.token_type" in refused.stderr, True)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
