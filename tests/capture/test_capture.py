# SPDX-License-Identifier: Apache-2.0
"""capture_hf.py without torch: on the stand-ins of tests/capture/fake, each API generation in turn.

What is captured is compared with the reference decoder of traces/tools, read back by hand and by
rattn-sim, where it is built. `make test-capture` does the same with the real thing.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time

GENERATIONS = ("4.48", "4.51", "5.0")

if "FAKE_TRANSFORMERS" not in os.environ:
    counts, status = [0, 0, 0], 0
    for generation in GENERATIONS:
        print("--- transformers", generation)
        child = subprocess.run(
            [sys.executable, __file__], capture_output=True, text=True, check=False,
            env={**os.environ, "FAKE_TRANSFORMERS": generation},
        )  # fmt: skip
        print(child.stdout + child.stderr)
        last = re.search(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\n$", child.stdout)
        got = [int(x or 0) for x in last.groups()] if last else [0, 1, 0]
        counts, status = [a + b for a, b in zip(counts, got)], status or child.returncode
    print("%d passed, %d failed, %d skipped" % tuple(counts))
    sys.exit(status)

import numpy as np  # noqa: E402

import support  # noqa: E402
from support import check, refuses, safetensors_io  # noqa: E402

import attention  # noqa: E402
import capture_hf  # noqa: E402
import hf_config  # noqa: E402
import hf_model  # noqa: E402
import reference_forward  # noqa: E402
import trace_recorder  # noqa: E402
import transformers  # noqa: E402

VERSION = transformers.VERSION
P, N, W = 21, 9, 5
IDS = np.random.default_rng(3).integers(0, 61, 60)


@contextlib.contextmanager
def folder(**config):
    """A model, ids and room for traces."""
    with tempfile.TemporaryDirectory() as path:
        values, weights = support.tiny_llama(**config)
        support.write_model(os.path.join(path, "model"), values, weights)
        support.write_ids(os.path.join(path, "ids"), IDS)
        yield path


def capture(path, *options, output="trace"):
    output = os.path.join(path, output)
    argv = [os.path.join(path, "model"), "--tokens", os.path.join(path, "ids"), "-o", output]
    argv += ["-P", str(P), "-n", str(N), "--q-tail", str(W), *options]
    with contextlib.redirect_stdout(io.StringIO()):
        capture_hf.run(capture_hf.make_parser().parse_args(argv))
    return safetensors_io.Reader(output)


def reference(path, layers):
    """The same run by the reference decoder, f32 cache: (recorder, decoder, tokens, logprob)."""
    model = reference_forward.Model.load(os.path.join(path, "model"))
    decoder = reference_forward.Decoder(model, P + N, "f32")
    recorder = trace_recorder.Recorder(model, layers, (P, N, W), [0, 4, 8])
    tokens, logprob = reference_forward.decode_run(decoder, IDS, P, N, "teacher_forced", recorder)
    return recorder, decoder, tokens, logprob


def far(a, b):
    return float(np.abs(np.asarray(a, "f8") - np.asarray(b, "f8")).max())


def verify(path, what):
    if not os.path.exists(support.RATTN_SIM):
        support.skip(what, "no build/rattn-sim")
        return
    child = subprocess.run(
        [support.RATTN_SIM, "info", "--verify", path], capture_output=True, text=True, check=False
    )
    said = re.findall(r"tolerance \S+|worst \S+", child.stdout)
    check(f"{what}: info --verify", child.returncode == 0, child.stderr.strip() or said)


def test_against_reference():
    with folder() as path:
        got = capture(path, "--layers", "0,2", "--chunk", "8", "--acc", "--check-steps", "0,4,8",
                      "--top-k", "3")  # fmt: skip
        recorder, decoder, tokens, logprob = reference(path, [0, 2])
        expected = {"s0.tokens", "s0.logprob", "s0.check_steps", "s0.topk_id", "s0.topk_logprob"}
        for l in (0, 2):
            expected |= {f"s0.l{l}.{part}" for part in ("q", "k", "v", "o", "acc")}
            for part, rows in (("k", decoder.k), ("v", decoder.v), ("q", recorder.q),
                               ("o", recorder.o), ("acc", recorder.acc)):  # fmt: skip
                a, b = got.f32(f"s0.l{l}.{part}"), rows[l]
                same = a.shape == b.shape and far(a, b) < 1e-4
                check(f"s0.l{l}.{part} as the reference has it", same, far(a, b))
        check("these tensors, in this order", set(got.names()) == expected)
        check("tokens", (got.raw("s0.tokens") == tokens).all())
        check("logprob", far(got.raw("s0.logprob"), logprob) < 1e-4)
        check("check steps", got.raw("s0.check_steps").tolist() == [0, 4, 8])
        meta, size = got.metadata, 8 + len(got.names())
        check("checksum", meta["content.sha256"] == got.content_sha256())
        hooks = "attention (dict)" if VERSION < (4, 50) else "attention"
        hooks += ", mask" if VERSION >= (4, 53) else ""
        check("hooks", meta["capture.attn_impl"] == "sdpa, hooked: " + hooks, hooks)
        wanted = {"layers": "0,2", "n_layers": "3", "n_q_heads": "4", "n_kv_heads": "2",
                  "head_dim": "8", "s0.q_tail": "5", "layer_types": "full,full,full",
                  "rope.type": "default", "rope.theta": "10000", "dtype.cache": "f32",
                  "capture.rounded": "1", "s0.source": "dice", "attn_scale": "0.353553391",
                  "s0.mode": "teacher_forced", "model.arch": "llama"}  # fmt: skip
        wrong = {key: meta.get(key) for key in wanted if meta.get(key) != wanted[key]}
        check("metadata", not wrong, wrong or f"{len(wanted)} keys, {size} names")
        verify(got.path, "layers 0 and 2")
        check("nothing is left beside it", sorted(os.listdir(path)) == ["ids", "model", "trace"])


def test_chunks_and_greedy():
    with folder() as path:
        runs = [capture(path, "--chunk", chunk, output=chunk) for chunk in ("0", "1", "20")]
        for other in runs[1:]:
            worst = max(far(runs[0].f32(n), other.f32(n)) for n in runs[0].names())
            check("however the prompt is cut: the same rows", worst < 1e-4, worst)
        got = capture(path, "--mode", "greedy", "--top-k", "2", "--reproducible", output="greedy")
        best, tokens = got.raw("s0.topk_id")[:, 0], got.raw("s0.tokens")
        check("greedy: the best token follows", (best == tokens[P + 1 :]).all(), tokens[P:])
        same = far(got.raw("s0.topk_logprob")[:, 0], got.raw("s0.logprob")) == 0
        check("greedy: its log-probability is that of the target", same)
        again = capture(path, "--mode", "greedy", "--top-k", "2", "--reproducible", output="again")
        with open(got.path, "rb") as a, open(again.path, "rb") as b:
            check("--reproducible: the same bytes", a.read() == b.read())


def linear_rows(path):
    """K and V of every layer, by one pass over all tokens with a cache that forgets nothing."""

    class Linear(transformers.Cache):
        def update(self, layer, width, *new):
            return super().update(layer, None, *new)

    model = hf_model.Model(os.path.join(path, "model")).model
    model.config._attn_implementation = "sdpa"
    _, cache = model.run([IDS[: P + N]], Linear())
    return {l: [x[0] for x in rows] for l, rows in cache.rows.items()}


def test_sliding_window():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    with folder(layer_types=kinds, sliding_window=6) as path:
        expected, sizes, plain = linear_rows(path), {}, hf_model.sdpa

        def watch():
            def attend(module, query, key, *rest, **options):
                sizes.setdefault(module.layer_idx, []).append(key.shape[2])
                return plain()(module, query, key, *rest, **options)

            return attend

        hf_model.sdpa = watch
        got = capture(path, "--chunk", "9", "--acc")
        hf_model.sdpa = plain
        check("window layers saw no more than their window", max(sizes[0][3:]) == 6, sizes[0])
        check("full layers saw everything", sizes[1][-1] == P + N)
        for l in range(3):
            for part, rows in zip("kv", expected[l]):
                a = got.f32(f"s0.l{l}.{part}")
                same = a.shape == rows.shape and far(a, rows) < 1e-5
                check(f"layer {l}, {part}: all rows, as of a cache that forgets nothing", same)
        check("acc of full layers only", [n for n in got.names() if "acc" in n] == ["s0.l1.acc"])
        kept = {k: got.metadata[k] for k in ("layer_types", "sliding_window")}
        check("metadata of windows", kept == {"layer_types": "sliding,full,sliding",
                                              "sliding_window": "6"}, kept)  # fmt: skip
        verify(got.path, "window layers")
        refuses("window layers only", lambda: capture(path, "--layers", "0,2", output="no"),
                "window layers only")  # fmt: skip


def test_types():
    with folder() as path:
        exact = capture(path, output="f32")
        for options, rounded in (((), "0"), (("--round",), "1")):
            for dtype in ("f16", "f32"):
                got = capture(path, "--cache-dtype", dtype, *options, output="x")
                expected = rounded if dtype == "f16" else "1"
                what = " ".join(("cache", dtype, *options))
                said = got.metadata["capture.rounded"]
                check(f"{what}: capture.rounded", said == expected, said)
                check(f"{what}: dtype.cache", got.metadata["dtype.cache"] == dtype)
                a, b = got.raw("s0.l0.k"), exact.raw("s0.l0.k")
                check(f"{what}: rounded once", (a == b.astype(a.dtype)).all(), a.dtype)
                verify(got.path, what)
    with folder() as path:
        values, weights = support.tiny_llama()
        weights["model.layers.1.self_attn.v_proj.weight"] *= 1e6
        support.write_model(os.path.join(path, "model"), values, weights)
        refuses("what the type cannot hold", lambda: capture(path, "--cache-dtype", "f16"),
                "s0.l1.v: position", "finite values in f16")  # fmt: skip
        check("and leaves nothing", sorted(os.listdir(path)) == ["ids", "model"])


def test_interrupted():
    with folder() as path:
        forward, seen = hf_model.Model.forward, []

        def stop(self, ids, **inputs):
            if self.length == P + 3:
                seen.extend(os.listdir(path))
                spool = next(name for name in seen if ".spool" in name)
                seen.extend(os.listdir(os.path.join(path, spool)))
                raise KeyboardInterrupt
            return forward(self, ids, **inputs)

        hf_model.Model.forward = stop
        try:
            capture(path, "--layers", "1")
            check("the interruption is not swallowed", False)
        except KeyboardInterrupt:
            check("the interruption is not swallowed", True)
        hf_model.Model.forward = forward
        names = sorted(name for name in seen if name.startswith("s0."))
        check("one raw file per tensor meanwhile",
              names == ["s0.l1.k", "s0.l1.o", "s0.l1.q", "s0.l1.v"], names)  # fmt: skip
        check("no trace under its name meanwhile", "trace" not in seen)
        check("nothing is left", sorted(os.listdir(path)) == ["ids", "model"])
        check("no listener is left", hf_model.LISTENER == [None])
        with open(os.path.join(path, "trace"), "w", encoding="utf-8") as out:
            out.write("before")
        sha = safetensors_io.hashlib.sha256

        def broken(*_):
            raise OSError(28, "No space left on device")

        safetensors_io.hashlib.sha256 = broken
        try:
            capture(path)
            check("an error while writing is told", False)
        except OSError as error:
            check("an error while writing is told", "No space" in str(error), error)
        safetensors_io.hashlib.sha256 = sha
        with open(os.path.join(path, "trace"), encoding="utf-8") as left:
            check("what had the name before keeps it", left.read() == "before")
        check("no temporary file", sorted(os.listdir(path)) == ["ids", "model", "trace"])


def test_terminated():
    """The command itself, by a signal."""
    with folder(max_position_embeddings=10**6) as path:
        support.write_ids(os.path.join(path, "ids"), np.resize(IDS, 20000))
        command = [sys.executable, capture_hf.__file__, os.path.join(path, "model"), "-o",
                   os.path.join(path, "trace"), "--tokens", os.path.join(path, "ids"),
                   "-P", "9", "-n", "19000"]  # fmt: skip
        paths = os.pathsep.join((support.FAKE, support.TOOLS))
        child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
        for _ in range(1200):
            found = [name for name in os.listdir(path) if ".spool" in name]
            if child.poll() is not None or found and len(os.listdir(f"{path}/{found[0]}")) >= 9:
                break
            time.sleep(0.05)
        child.terminate()
        status = child.wait(60)
        left = sorted(os.listdir(path))
        check("terminated: status 143, nothing left", status == 143 and left == ["ids", "model"],
              (status, left))  # fmt: skip


def test_images():
    with folder(image_token_id=int(IDS[4])) as path:
        got = capture(path)
        expected = (IDS[: P + N] == IDS[4]).astype("u1")
        check("image tokens", (got.raw("s0.token_type") == expected).all(), expected.sum())
        check("token_types", got.metadata["token_types"] == "text,image")
        verify(got.path, "token types")
    with folder(image_token_id=60000) as path:
        got = capture(path)
        check("no image, no types", "s0.token_type" not in got.names())


def test_refusals():
    with folder() as path:
        refuses("layers that are not there", lambda: capture(path, "--layers", "3"), "0..2")
        refuses("more than there is", lambda: capture(path, "-n", "99"), "expected 121", "got 60")
        refuses("W > P", lambda: capture(path, "--q-tail", "22"), "1 <= W <= P")
        refuses("too many best tokens", lambda: capture(path, "--top-k", "62"), "0..61")
        refuses("negative chunks", lambda: capture(path, "--chunk", "-1"), "0 or more")
        support.write_ids(os.path.join(path, "ids"), [*IDS[:9], 61])
        refuses("ids beyond the vocabulary", lambda: capture(path), "tokens[9] = 61", "0..60")
        with open(os.path.join(path, "model", "tokenizer.json"), "w", encoding="utf-8") as out:
            out.write("{}")
        support.write_ids(os.path.join(path, "ids"), IDS, **{"tokenizer.sha256": "00"})
        refuses("ids of another tokenizer", lambda: capture(path), "another tokenizer")
    for config, word in (
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "chunked"),
        ({"layer_types": ["full_attention"] * 2}, "expected 3"),
        ({"model_type": "gpt_oss"}, "sinks"),
        ({"model_type": "cohere2"}, "interleaved"),
        ({"is_encoder_decoder": True}, "decoder-only"),
        ({"max_position_embeddings": 24}, "at most 24"),
    ):
        with folder(**config) as path:
            refuses(f"{config}", lambda: capture(path), word)


def test_hook():
    """Who is listened to, and what a pass must look like."""
    with folder() as path:
        model = hf_model.Model(os.path.join(path, "model"))

        class Tower:
            layer_idx, config = 0, transformers.Config({"model_type": "vision"})

        class Bare:
            config = model.text

        for name, module in (("a vision tower", Tower()), ("a module without layer", Bare())):
            check(f"{name} is none of ours", not hf_model.is_text_layer(module, model.text))
        check("a text layer is", hf_model.is_text_layer(model.model.layers[1], model.text))
        model.model.layers[1].layer_idx = 0
        ids, about = hf_model.read_ids(os.path.join(path, "ids"), model)
        argv = ["m", "--tokens", "i", "-P", "5", "-n", "2", "-o", os.path.join(path, "t")]
        spec = capture_hf.make_parser().parse_args(argv)
        capture_hf.check_spec(spec, model, len(ids))
        refuses("two calls of a layer in one pass",
                lambda: capture_hf.record(model, ids, about, spec), "called twice")  # fmt: skip
        del model.model.layers[1:]
        refuses("layers that bypass the hook",
                lambda: capture_hf.record(model, ids, about, spec), "did not pass")  # fmt: skip


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
ROPES = (
    ({"rope_theta": 1e5, "rope_scaling": None}, {"rope.type": "default", "rope.theta": "100000"}),
    ({"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}},
     {"rope.type": "default", "rope.theta": "100000"}),
    ({"rope_theta": 5e5, "rope_scaling": LLAMA3},
     {"rope.type": "llama3", "rope.theta": "500000", "rope.factor": "8",
      "rope.low_freq_factor": "1", "rope.high_freq_factor": "4",
      "rope.original_max_position": "8192"}),
    ({"rope_parameters": {"rope_theta": 5e5, **LLAMA3}},
     {"rope.type": "llama3", "rope.original_max_position": "8192"}),
    ({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
     {"rope.type": "linear", "rope.factor": "4"}),
    ({"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None},
     {"rope.type": "default", "rope.theta": "1000000", "rope.theta_local": "10000"}),
    ({"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                          "full_attention": {"rope_type": "linear", "factor": 8.0,
                                             "rope_theta": 1e6}}},
     {"rope.type": "linear", "rope.theta": "1000000", "rope.theta_local": "10000"}),
    ({"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
     {"rope.type": "yarn"}),
    ({"rope_theta": 1e4, "partial_rotary_factor": 0.5}, {"rope.type": "partial"}),
    ({}, {"rope.type": "none"}),
)  # fmt: skip
LAYERS = (
    ({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}, "sf"),
    ({"sliding_window": 512, "sliding_window_pattern": 3}, "ssfssf"),
    ({"sliding_window": 512, "_sliding_window_pattern": 2}, "sfsf"),
    ({"sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 1}, "fff"),
    ({"sliding_window": 32768, "use_sliding_window": True, "max_window_layers": 1}, "fss"),
    ({"sliding_window": 4096}, "ss"),
    ({"sliding_window": None}, "ff"),
)  # fmt: skip


def test_config():
    for config, expected in ROPES:
        got = hf_config.rope_metadata(config)
        check(f"rope: {config}", expected.items() <= got.items(), got)
        if hf_config.can_turn_back(got) and "rope.theta" in got:
            here, there = (f(16, got) for f in (hf_config.inverse_frequencies,
                                                attention.inverse_frequencies))  # fmt: skip
            worst = (np.abs(here - there) / there).max()
            check("frequencies as tests/audit forms them", worst < 3e-7, worst)
    for config, letters in LAYERS:
        got = "".join(kind[0] for kind in hf_config.layer_types(config, len(letters)))
        check(f"layers: {config}", got == letters, got)


if __name__ == "__main__":
    test_against_reference()
    test_chunks_and_greedy()
    test_sliding_window()
    test_types()
    test_interrupted()
    test_terminated()
    test_images()
    test_refusals()
    test_hook()
    test_config()
    raise SystemExit(support.finish())
