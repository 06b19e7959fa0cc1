#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records with `rattn-sim record` and compares every tensor with the reference decoder's.

The trace's tokens go through reference_forward.py in f64. In f32 both are compared as they come. In
f16 and bf16 they would drift apart: a value next to a rounding boundary falls on the other side of
it, and thousands follow a layer later. So the reference takes over the recorded q, k and v once it
has compared them with its own, layer by layer: each is proved from the one before, and what comes
out in the end can be held to the same bound as in f32.

Under a schedule (-p) the reference decodes under it too; o and lse then remain those of full
attention over the rows that came of it.

Prints a figure per tensor and ends with `N passed, N failed`; exit 1 when one is out of its bound.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile

import numpy as np

import reference_forward as forward
import reference_policies
import safetensors_io
import trace_recorder

TOLERANCE = 1e-4  # of log-probabilities; of all else relative to the tensor's largest element
NEAR = 1e-5  # of the same: this near, two sums are one although small elements have finer steps
MIN_EQUAL = 0.95  # share of f16 and bf16 elements that are equal bit for bit
# Prompt queries that are not stored are not taken over, nor is any of a layer that is not recorded:
# what depends on them drifts by this much.
DRIFT = {"f32": TOLERANCE, "f16": 0.02, "bf16": 0.15}

# What one recorder says and another does not, or says of itself.
OWN_KEYS = {"content.sha256", "dtype.compute"}
PROVENANCE_KEYS = {"model.id", "model.revision", "model.sha256", "model.quant", "license"}


class Report:
    def __init__(self):
        self.results = []

    def check(self, what, holds, figures=""):
        self.results.append(bool(holds))
        mark = "ok    " if holds else "FAIL  "
        print(mark + what + (f": {figures}" if str(figures) else ""), flush=True)

    def within(self, what, worst, bound, more=""):
        self.check(what, worst <= bound, f"{worst:.1e} <= {bound:.0e}{more}")


def ulp_distance(a, b):
    """Elements of two arrays of stored bits, in steps between neighbouring numbers."""

    def line(stored):
        bits = np.ascontiguousarray(stored).view(np.uint16).astype(np.int32)
        return np.where(bits & 0x8000, -(bits & 0x7FFF), bits)

    return np.abs(line(a) - line(b))


class Following(forward.Decoder):
    """A reference decoder that compares its q, k and v with a trace's, and goes on with those.

    In f32 it goes on with its own. With `policy` it decodes under that schedule.
    """

    def __init__(self, model, trace, lengths, dtype, policy):
        P, N, W = lengths
        self.P, self.policy = P, policy
        super().__init__(model, P + N, dtype)
        self.trace, self.first_q, self.follows = trace, P - W, dtype != "f32"
        self.recorded = {int(layer) for layer in trace.metadata["layers"].split(",")}
        self.figures, self.seen_logits = {}, []
        self.stored = {
            f"s0.l{layer}.{x}": trace.raw(f"s0.l{layer}.{x}")
            for layer in self.recorded
            for x in "qkv"
        }
        decode = lambda stored: safetensors_io.decode(stored, self.dtype)
        self.scale = {name: float(np.abs(decode(s)).max()) for name, s in self.stored.items()}

    def project(self, h, layer, cos, sin):
        own = super().project(h, layer, cos, sin)
        if layer not in self.recorded:
            return own
        return tuple(self.compare(layer, x, array) for x, array in zip("qkv", own))

    def compare(self, layer, x, own):
        """The rows that go on: own, with the recorded ones in their place."""
        name, n = f"s0.l{layer}.{x}", own.shape[1]
        first = self.first_q if x == "q" else 0  # position of the tensor's first row
        skip = max(0, first - self.length)
        if skip >= n:
            return own
        rows = slice(self.length + skip - first, self.length + n - first)
        stored, mine = self.stored[name][:, rows], safetensors_io.encode(own[:, skip:], self.dtype)
        values = safetensors_io.decode(stored, self.dtype).astype(np.float64)
        error = np.abs(values - own[:, skip:]) / self.scale[name]
        figure = self.figures.setdefault(name, {"worst": 0.0, "far": 0, "equal": 0, "n": 0})
        figure["worst"] = max(figure["worst"], float(error.max()))
        figure["n"] += error.size
        if self.dtype != "F32":
            steps = ulp_distance(stored, mine)
            figure["equal"] += int((steps == 0).sum())
            figure["far"] += int(((steps > 1) & (error > NEAR)).sum())
        if not self.follows:
            return own
        own = own.copy()
        own[:, skip:] = values
        return own

    def attended(self, layer, q, keys, values, o):
        if self.policy is None or self.model.slides[layer]:
            return o
        m, scale = keys.shape[1], self.model.scale
        if m == self.P:
            self.policy.start(layer, q[:, -1], keys, scale)
        if m <= self.P:
            return o
        sets = self.policy.positions(layer, m - 1 - self.P, q[:, 0], keys, scale)
        return reference_policies.attend_to(sets, q[:, 0], keys, values, scale)[:, None]

    def logits(self, hidden):
        out = super().logits(hidden)
        self.seen_logits.append(out[-1])  # of the prompt's end, then of each step
        return out


def record(args, path):
    command = [args.program, "record", args.model, "--tokens", args.ids, "-o", path]
    command += ["-n", str(args.decode_len), "--prompt-len", str(args.prompt_len), "-p", args.policy]
    command += ["--dtype", args.dtype, "--mode", args.mode, "--q-tail", str(args.q_tail)]
    command += ["--check-steps", args.check_steps, "--top-k", str(args.top_k)]
    command += [] if args.layers == "all" else ["--layers", args.layers]
    subprocess.run([*command, *args.more], check=True, stdout=subprocess.DEVNULL)


def check_names(report, trace, expected):
    """The same tensors, types and shapes; acc of window layers may be there or not."""
    want = {name: (dtype, array.shape) for name, dtype, array in expected}
    got = {name: (trace.dtype(name), trace.shape(name)) for name in trace.names()}
    extra = {name for name in set(got) - set(want) if not name.endswith(".acc")}
    wrong = sorted(extra | {name for name in want if got.get(name) != want[name]})
    report.check("tensors, their types and shapes", not wrong, wrong or f"{len(got)} tensors")


def same_value(a, b):
    try:
        return a == b or float(a) == float(b)
    except (TypeError, ValueError):
        return False


def model_digest(directory):
    """What names a model whose directory does not: SHA-256 of those of config.json and of the data."""

    def data_of(path):
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
            file.seek(8 + header)
            return hashlib.sha256(file.read()).hexdigest()

    with open(os.path.join(directory, "config.json"), "rb") as file:
        config = hashlib.sha256(file.read()).hexdigest()
    parts = sorted(name for name in os.listdir(directory) if name.endswith(".safetensors"))
    digests = [data_of(os.path.join(directory, name)) for name in parts]
    data = digests[0] if parts == ["model.safetensors"] else hashlib.sha256("".join(digests).encode()).hexdigest()
    return hashlib.sha256((config + data).encode()).hexdigest()


def check_metadata(report, trace, expected, provenance, policy):
    wrong = []
    for key, value in expected.items():
        if key in OWN_KEYS or (key.startswith("capture.") and key != "capture.rounded"):
            continue
        if key in PROVENANCE_KEYS and key not in provenance:
            continue
        if key == "license" or key == "s0.policy":
            continue
        got = trace.metadata.get(key, "1" if key == "capture.rounded" else None)
        if key == "rope.theta_local" and got is None:
            continue
        if not same_value(got, value):
            wrong.append(f"{key}: {got!r}, expected {value!r}")
    stated = trace.metadata.get("s0.policy", "full")
    parts = lambda spelling: set(spelling.replace(":", ",").split(","))
    if not parts(policy) <= parts(stated):  # the canonical spelling has the defaults too
        wrong.append(f"s0.policy: {stated!r}, expected {policy!r}")
    report.check("metadata", not wrong, "; ".join(wrong) or f"{len(expected)} keys")


def check_cached(report, decoder, dtype, drift):
    for name, figure in sorted(decoder.figures.items()):
        if dtype == "f32":
            report.within(name, figure["worst"], TOLERANCE)
            continue
        far, n, equal = figure["far"], figure["n"], figure["equal"] / figure["n"]
        figures = f"{far} of {n} more than 1 ulp off, equal {equal:.4f}"
        if drift > TOLERANCE:
            report.within(name, figure["worst"], drift, "; " + figures)
        else:
            report.check(name, far == 0 and equal >= MIN_EQUAL, figures)


def relative(a, b):
    """Worst difference relative to b's largest element."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max()) if a.shape == b.shape else float("inf")


def check_outputs(report, trace, recorder, drift):
    for layer in recorder.layers:
        parts = [("acc", recorder.acc[layer], drift)]
        if recorder.check_steps:
            parts.append(("o", recorder.o[layer], TOLERANCE))
            parts.append(("lse", recorder.lse[layer], TOLERANCE))
        for x, expected, bound in parts:
            name = f"s0.l{layer}.{x}"
            if name in trace.names():
                report.within(name, relative(trace.raw(name), expected), bound)


def check_tokens(report, tokens, ids, args, logits, bound):
    P, N = args.prompt_len, args.decode_len
    given = P if args.mode == "greedy" else P + N + 1
    same = tokens.shape == (P + N + 1,) and (tokens[:given] == ids[:given]).all()
    report.check("s0.tokens: those of the file", same, f"{given} tokens")
    if args.mode == "greedy":
        behind = [row.max() - row[token] for row, token in zip(logits, tokens[P:])]
        report.within("s0.tokens: greedy, behind the best logit", max(behind), bound)


def check_scores(report, trace, tokens, args, logits, bound):
    P, N, K = args.prompt_len, args.decode_len, args.top_k
    logprobs = np.array([forward.log_softmax(row) for row in logits[1:]])
    own = logprobs[np.arange(N), tokens[P + 1 :]]
    worst = float(np.abs(trace.raw("s0.logprob") - own).max())
    report.within("s0.logprob", worst, bound)
    if not K:
        return
    ids, scores = trace.raw("s0.topk_id"), trace.raw("s0.topk_logprob")
    ranked = np.argsort(-logprobs, axis=1, kind="stable")[:, :K]
    of = lambda which: np.take_along_axis(logprobs, which, axis=1)
    # Another id at a rank is right only where the reference has the two as near as the bound.
    worst = float(np.abs(of(ids) - of(ranked)).max())
    distinct = all(len(set(row)) == K for row in ids.tolist())
    falling = bool((np.diff(scores, axis=1) <= 0).all())
    report.check(
        "s0.topk_id",
        distinct and falling and worst <= 2 * bound,
        f"equal {float((ids == ranked).mean()):.4f}, others {worst:.1e} apart",
    )
    report.within("s0.topk_logprob", float(np.abs(scores - of(ids)).max()), bound)


def check_trace(report, args, path):
    trace, ids_file = safetensors_io.Reader(path), safetensors_io.Reader(args.ids)
    lengths = args.prompt_len, args.decode_len, args.q_tail
    model = forward.Model.load(args.model)
    layers = trace_recorder.parse_layers(args.layers, model.n_layers)
    steps = trace_recorder.parse_check_steps(args.check_steps, args.decode_len)
    recorder = trace_recorder.Recorder(model, layers, lengths, steps, args.top_k)
    policy = reference_policies.parse(args.policy)
    decoder, tokens = Following(model, trace, lengths, args.dtype, policy), trace.raw("s0.tokens")
    P, N, _ = lengths
    _, logprob = forward.decode_run(decoder, tokens, P, N, "teacher_forced", recorder)
    provenance = forward.read_provenance(args.model)
    check_names(report, trace, recorder.tensors(decoder, tokens, logprob))
    if not provenance.get("model.sha256"):
        provenance = {**provenance, "model.sha256": model_digest(args.model)}
    expected = recorder.metadata(args, provenance, ids_file.metadata)
    check_metadata(report, trace, expected, provenance, args.policy)
    all_layers = len(layers) == model.n_layers
    drift = TOLERANCE if all_layers and args.q_tail == args.prompt_len else DRIFT[args.dtype]
    check_cached(report, decoder, args.dtype, drift)
    check_outputs(report, trace, recorder, drift)
    bound, logits = TOLERANCE if all_layers else DRIFT[args.dtype], decoder.seen_logits
    check_tokens(report, tokens, ids_file.raw("tokens"), args, logits, bound)
    check_scores(report, trace, tokens, args, logits, bound)


def make_parser():
    parser = argparse.ArgumentParser(description="prove `rattn-sim record` on one model and text")
    add = parser.add_argument
    add("model", help="model directory")
    add("ids", help="ids file")
    add("--program", required=True, help="rattn-sim")
    add("-P", "--prompt-len", type=int, default=40, help="prompt tokens (%(default)s)")
    add("-n", "--decode-len", type=int, default=12, help="decode steps (%(default)s)")
    add("--q-tail", type=int, default=64, help="prompt queries kept, at most P (%(default)s)")
    add("--layers", default="all", help="layers to record (%(default)s)")
    add("--check-steps", default="16", help="check rows: count or list (%(default)s)")
    add("--mode", choices=("teacher_forced", "greedy"), default="teacher_forced")
    add("--dtype", choices=tuple(DRIFT), default="f16", help="stored type (%(default)s)")
    add("--top-k", type=int, default=16, help="likeliest ids kept per step (%(default)s)")
    policies = "full, recycled:k=,stride= or streaming:k= (%(default)s)"
    add("-p", "--policy", default="full", help=policies)
    add("--keep", help="keep the trace under this name")
    add("more", nargs="*", default=[], help="further options of record, after --")
    return parser


def main():
    args = make_parser().parse_args()
    args.q_tail, args.compute = min(args.q_tail, args.prompt_len), "f64"
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or os.path.join(folder, "trace.safetensors")
        try:
            record(args, path)
            check_trace(report, args, path)
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            report.check("recorded and read", False, error)
        verify = [args.program, "info", "--verify", path]
        verified = subprocess.run(verify, capture_output=True, text=True)
        report.check("info --verify", verified.returncode == 0, verified.stderr[-300:])
    passed = sum(report.results)
    print(f"{passed} passed, {len(report.results) - passed} failed")
    sys.exit(0 if all(report.results) else 1)


if __name__ == "__main__":
    main()
