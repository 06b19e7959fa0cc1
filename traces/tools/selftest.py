# SPDX-License-Identifier: Apache-2.0
"""Tests of these tools that need numpy only: no model, no tokenizer, no network.

Tiny random Llama models go through reference_forward.py and, independently, through tiny_llama.py;
those of all families, in selftest_families.py, through tiny_families.py.
Files are read back by hand with struct and json.
Ends with `N passed, N failed`.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

import compare_traces
import prepare_model
import reference_forward as forward
import safetensors_io
import selftest_families
import trace_recorder
from tiny_llama import Naive, tiny_model

HERE = os.path.dirname(os.path.abspath(__file__))
results = []


def check(what, holds, figures=""):
    results.append(bool(holds))
    print(("ok    " if holds else "FAIL  ") + what + (f": {figures}" if str(figures) else ""))


def refuses(what, call, expected):
    """`call` must raise and say `expected`: a tool that goes on would leave a wrong file."""
    try:
        call()
    except (ValueError, SystemExit) as error:
        check(f"refuses {what}", expected in str(error), error)
    else:
        check(f"refuses {what}", False, "it did not")


SHAPES = (
    # name, Hq, Hkv, D, hidden, tied: Hq*D differs from hidden, one KV head, as many as queries
    ("one kv head", 5, 1, 6, 21, False),
    ("kv heads = q heads", 3, 3, 8, 23, True),
    ("groups of three", 6, 2, 10, 27, False),
)


def test_forward():
    """Would catch a wrong formula, GQA map, RoPE pairing, norm, mask, cache index or chunk seam."""
    for name, Hq, Hkv, D, hidden, tied in SHAPES:
        for cache, round_to in (("f32", np.float32), ("f16", np.float16)):
            config, weights = tiny_model(Hq, Hkv, D, hidden, tied, seed=Hq)
            ids = np.random.default_rng(7).integers(0, 37, 19)
            naive = Naive(config, weights, round_to)
            expected = np.array([naive.logits(token, pos) for pos, token in enumerate(ids)])
            for compute, bound in ((np.float64, 1e-10), (np.float32, 1e-4)):
                if (cache, compute) == ("f16", np.float32):
                    continue  # a value on a rounding boundary may go either way
                decoder = forward.Decoder(forward.Model(config, weights, compute), 19, cache)
                got = [decoder.prefill(ids[:7])]
                got += [decoder.logits(decoder.forward(ids[i : i + 1]))[0] for i in range(7, 19)]
                worst = np.abs(np.array(got) - expected[6:]).max()
                what = f"{name}, cache {cache}, {np.dtype(compute)}: logits against the naive loop"
                check(what, worst <= bound, f"{worst:.1e} <= {bound:.0e}")


# --- the trace file ----------------------------------------------------------------------------


def write_model(directory, config, weights):
    os.makedirs(directory, exist_ok=True)
    tensors = [(name, "F32", value) for name, value in weights.items()]
    safetensors_io.write(os.path.join(directory, "model.safetensors"), tensors, {})
    provenance = {"tokenizer.sha256": "t", "model.id": "tiny"}
    for name, value in (("config.json", config), ("provenance.json", provenance)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as out:
            json.dump(value, out)


def write_ids(path, ids, tokenizer="t"):
    tensors = [("tokens", "I32", np.asarray(ids, np.int32))]
    safetensors_io.write(path, tensors, {"tokenizer.sha256": tokenizer, "source": "dice"})


def record(folder, output, *options):
    argv = [os.path.join(folder, "model"), "--tokens", os.path.join(folder, "ids"), "-o", output]
    with contextlib.redirect_stdout(io.StringIO()):
        forward.run(forward.make_parser().parse_args([*argv, *options]))


def read_by_hand(path):
    """Header and tensors with nothing but struct and json; checks what the container promises."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    text = data[8 : 8 + length]
    header = json.loads(text)
    metadata, body, end, tensors = header.pop("__metadata__"), data[8 + length :], 0, {}
    contiguous = True
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        contiguous &= begin == end
        end = stop
        kind = {"F16": "<f2", "F32": "<f4", "I32": "<i4"}[entry["dtype"]]
        tensors[name] = np.frombuffer(body[begin:stop], kind).reshape(entry["shape"])
    check(
        "header begins with {, padded with spaces",
        text[:1] == b"{" and text.rstrip(b" ")[-1:] == b"}",
    )
    check("data starts at a multiple of 4096", (8 + length) % 4096 == 0, 8 + length)
    check("tensors are contiguous and end with the file", contiguous and end == len(body))
    check("metadata values are strings", all(type(value) is str for value in metadata.values()))
    digest = hashlib.sha256(body).hexdigest()
    check("content.sha256 is that of the data section", metadata["content.sha256"] == digest)
    return metadata, tensors


def test_trace(folder):
    """Would catch rows off by one, scaled or unrounded q, a wrong acc, logprobs of another step."""
    P, N, W, D, Hq, Hkv = 11, 5, 4, 8, 6, 2
    config, weights = tiny_model(Hq, Hkv, D, 27, False, seed=3)
    ids = np.random.default_rng(1).integers(0, 37, P + N + 1)
    write_model(os.path.join(folder, "model"), config, weights)
    write_ids(os.path.join(folder, "ids"), ids)
    path, options = os.path.join(folder, "trace"), ("-P", "11", "-n", "5", "--q-tail", "4")
    record(folder, path, *options, "--layers", "1", "--check-steps", "3")
    metadata, tensors = read_by_hand(path)
    naive = Naive(config, weights, np.float16)
    logits = np.array([naive.logits(token, pos) for pos, token in enumerate(ids[: P + N])])
    grid = lambda values, heads, rows: np.array(
        [[values[1, h, r] for r in rows] for h in range(heads)]
    )
    expected = {
        "s0.l1.k": grid(naive.k, Hkv, range(P + N)).astype(np.float16),
        "s0.l1.v": grid(naive.v, Hkv, range(P + N)).astype(np.float16),
        "s0.l1.q": grid(naive.q, Hq, range(P - W, P + N)).astype(np.float16),
        "s0.l1.o": grid(naive.o, Hq, (P, P + 2, P + 4)),
        "s0.l1.lse": grid(naive.lse, Hq, (P, P + 2, P + 4)),
        "s0.l1.acc": np.array(
            [[sum(naive.p[1, h, r][j] for r in range(j, P)) for j in range(P)] for h in range(Hq)]
        ),
        "s0.tokens": ids,
        "s0.check_steps": np.array([0, 2, 4]),
        "s0.logprob": np.array(
            [forward.log_softmax(logits[P + t])[ids[P + t + 1]] for t in range(N)]
        ),
    }
    check(
        "trace holds exactly the tensors of its layers",
        set(tensors) == set(expected),
        sorted(tensors),
    )
    for name, value in expected.items():
        got = tensors[name]
        exact = name.endswith((".k", ".v", ".q", "s0.tokens", "s0.check_steps"))
        worst = (
            np.abs(got.astype(np.float64) - value).max() if got.shape == value.shape else math.inf
        )
        check(f"{name} {got.dtype} {got.shape}", worst <= (0 if exact else 1e-6), f"{worst:.1e}")
    wanted = {
        "format": "rattn-trace",
        "version": "1.0",
        "n_layers": "2",
        "layers": "1",
        "n_q_heads": "6",
        "n_kv_heads": "2",
        "head_dim": "8",
        "attn_scale": "%.9g" % 8**-0.5,
        "n_seq": "1",
        "s0.prompt_len": "11",
        "s0.decode_len": "5",
        "s0.q_tail": "4",
        "rope.theta": "500",
        "rope.layout": "half",
        "s0.mode": "teacher_forced",
        "dtype.cache": "f16",
    }
    check("required metadata", all(metadata.get(key) == value for key, value in wanted.items()))
    again = os.path.join(folder, "again")
    record(folder, again, *options, "--layers", "1", "--check-steps", "0,2,4")
    with open(path, "rb") as a, open(again, "rb") as b:
        check("the same inputs give the same bytes", a.read() == b.read())
    greedy = os.path.join(folder, "greedy")
    record(folder, greedy, *options, "--mode", "greedy")
    tokens = safetensors_io.Reader(greedy).raw("s0.tokens")
    naive = Naive(config, weights, np.float16)
    logits = [naive.logits(token, pos) for pos, token in enumerate(tokens[: P + N])]
    best = [int(row.argmax()) for row in logits[P - 1 :]]
    check("greedy tokens are the argmax, the first from the prompt", tokens[P:].tolist() == best)


def test_compare(folder):
    """Would catch a comparison that passes anything, or counts -0 and 0 as far apart."""
    a = safetensors_io.Reader(os.path.join(folder, "trace"))
    tensors = [(name, a.dtype(name), a.raw(name)) for name in a.names()]

    def verdict(change, metadata=a.metadata):
        altered = [(n, d, change(n, x.copy())) for n, d, x in tensors]
        safetensors_io.write(os.path.join(folder, "altered"), altered, metadata)
        with contextlib.redirect_stdout(io.StringIO()):
            return compare_traces.compare(a.path, os.path.join(folder, "altered"))

    def nudge(name, ulps, every):
        def change(n, x):
            if n == name:
                x.reshape(-1).view(np.uint16 if x.itemsize == 2 else np.uint32)[::every] += ulps
            return x

        return change

    same = lambda n, x: x
    check("compare: the file itself", verdict(same))
    check("compare: every element 2 ulp off", verdict(nudge("s0.l1.k", 2, 1)))
    check("compare: every element 3 ulp off is refused", not verdict(nudge("s0.l1.k", 3, 1)))
    check(
        "compare: 1 % of the elements 3 ulp off is refused", not verdict(nudge("s0.l1.q", 3, 100))
    )
    check("compare: one other token is refused", not verdict(nudge("s0.tokens", 1, 1000)))
    check("compare: other metadata is refused", not verdict(same, {**a.metadata, "layers": "0"}))
    check(
        "compare: doubled acc is refused",
        not verdict(lambda n, x: x * 2 if n.endswith("acc") else x),
    )
    tiny = 2.0**-24
    distance = compare_traces.ulp_distance(
        np.array([0.0, -tiny, 1.0]), np.array([-0.0, tiny, 1.0009765625])
    )
    check("compare: ulp distance across zero and at one", distance.tolist() == [0, 2, 1], distance)


# --- parts -------------------------------------------------------------------------------------


def test_rounding():
    """Would catch truncation, ties away from even, and bits that do not come back."""
    x = np.random.default_rng(5).standard_normal(4000).astype(np.float32)
    step = np.float32(2.0**-8)  # bf16 neighbours of 1 are 2^-7 apart: these are ties
    x = np.concatenate([x, 1 + step * np.arange(1, 9, 2, dtype=np.float32), [0.0, -0.0, 1e30]])
    x = x.astype(np.float32)
    for dtype, bits in (("F16", 11), ("BF16", 8)):
        values = x if dtype == "BF16" else x[np.abs(x) < 60000]
        got = safetensors_io.decode(safetensors_io.encode(values, dtype), dtype)
        # Python's round() is half-to-even; exponents below f16's smallest normal do not occur here.
        scale = [2.0 ** (bits - math.frexp(float(value))[1]) for value in values]
        want = [round(float(value) * s) / s for value, s in zip(values, scale)]
        normal = np.abs(values) >= 2.0**-14
        check(f"{dtype} rounds to nearest even", (got == np.array(want))[normal].all(), len(values))
    check("F32 is kept", (safetensors_io.decode(safetensors_io.encode(x, "F32"), "F32") == x).all())


def test_permutation():
    """Would catch a permutation that is its own inverse by accident, or applied the wrong way."""
    heads, D = 3, 10
    rows = np.arange(heads * D, dtype=np.float32).reshape(-1, 1) * np.ones((1, 4), np.float32)
    back = prepare_model.unpermute(prepare_model.permute(rows, heads), heads)
    check("unpermute undoes permute", (back == rows).all())
    hf = prepare_model.unpermute(rows, heads)[:, 0]
    want = [head * D + 2 * j + s for head in range(heads) for s in (0, 1) for j in range(D // 2)]
    check("hf row s*D/2+j is gguf row 2j+s", hf.tolist() == want)


def test_refusals(folder):
    model_dir, ids = os.path.join(folder, "model"), os.path.join(folder, "ids")
    output = os.path.join(folder, "refused")
    go = lambda *options: lambda: record(folder, output, *options)
    refuses("too few tokens", go("-P", "11", "-n", "6", "--q-tail", "4"), "18 needed")
    refuses("W > P", go("-P", "3", "-n", "2", "--q-tail", "4"), "W <= P")
    refuses(
        "a layer the model lacks",
        go("-P", "9", "-n", "2", "--q-tail", "4", "--layers", "2"),
        "0..1",
    )
    refuses(
        "a check step beyond N",
        go("-P", "9", "-n", "2", "--q-tail", "4", "--check-steps", "0,2"),
        "0..1",
    )
    refuses(
        "more positions than the model has",
        go("-P", "9", "-n", "60", "--q-tail", "4", "--mode", "greedy"),
        "positions",
    )
    config, weights = tiny_model(6, 2, 8, 27, False, seed=3)
    refuses(
        "rope scaling",
        lambda: forward.Model({**config, "rope_scaling": {"factor": 8}}, weights),
        "rope_scaling",
    )
    weights["model.layers.0.self_attn.v_proj.weight"] *= np.float32(1e6)
    write_model(model_dir, config, weights)
    refuses(
        "a value that overflows f16", go("-P", "9", "-n", "2", "--q-tail", "4"), "does not fit F16"
    )
    write_ids(ids, np.zeros(20), tokenizer="another")
    refuses(
        "ids of another tokenizer", go("-P", "9", "-n", "2", "--q-tail", "4"), "another tokenizer"
    )
    check(
        "no refused run left a file", not [f for f in os.listdir(folder) if f.startswith("refused")]
    )


def test_interrupted_write(folder):
    """Would catch a writer that leaves half a file under the final name, or its spool behind."""
    path = os.path.join(folder, "kept")
    safetensors_io.write(path, [("a", "U8", np.arange(5, dtype=np.uint8))], {"n": "1"})
    original, calls = safetensors_io.bytes_of, []

    def full_disk(array):
        calls.append(array)
        if len(calls) == 2:
            raise OSError("no space left")
        return original(array)

    safetensors_io.bytes_of = full_disk
    try:
        safetensors_io.write(path, [(n, "U8", np.zeros(9, np.uint8)) for n in "ab"], {"n": "2"})
    except OSError:
        pass
    finally:
        safetensors_io.bytes_of = original
    kept = safetensors_io.Reader(path)
    check(
        "a failed write keeps the old file", kept.metadata == {"n": "1"} and kept.raw("a")[4] == 4
    )
    check(
        "a failed write leaves no spool",
        not [f for f in os.listdir(folder) if f.startswith("kept.")],
    )


def test_shadowing():
    """Would catch tokenize.py standing in for the standard module that tracebacks are made with."""
    code = (
        "import inspect, io, tokenize\n"
        "print(len(list(tokenize.generate_tokens(io.StringIO('a = 1').readline))))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    check(
        "`import tokenize` in this folder is the standard module",
        run.stdout.strip() == "5",
        run.stderr[-300:],
    )
    scripts = ("tokenize.py", "prepare_model.py", "reference_forward.py")
    for script in (*scripts, "tiny_models.py", "check_record.py"):
        command = [sys.executable, os.path.join(HERE, script), "--help"]
        run = subprocess.run(command, capture_output=True, text=True)
        check(
            f"{script} --help",
            run.returncode == 0 and run.stdout.startswith("usage:"),
            run.stderr[-300:],
        )


def test_check_steps():
    steps = trace_recorder.parse_check_steps("16", 192)
    check("16 check steps of 192", (len(steps), steps[0], steps[-1]) == (16, 0, 191), steps)
    check("no check steps", trace_recorder.parse_check_steps("0", 5) == [])
    check("more check steps than steps", trace_recorder.parse_check_steps("16", 3) == [0, 1, 2])


def main():
    sys.dont_write_bytecode = True
    forward.CHUNK = 3  # so that tiny prompts have seams
    with tempfile.TemporaryDirectory() as folder:
        test_forward()
        test_trace(folder)
        test_compare(folder)
        test_refusals(folder)
        test_interrupted_write(folder)
    forward.CHUNK = 16  # windows of tiny models end within a chunk and beyond it
    with tempfile.TemporaryDirectory() as folder:
        selftest_families.run(check, refuses, folder)
    test_rounding()
    test_permutation()
    test_check_steps()
    test_shadowing()
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
