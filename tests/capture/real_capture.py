# SPDX-License-Identifier: Apache-2.0
"""capture_hf.py on real torch and transformers, on the CPU: `make test-capture`.

Tiny random models of each family, and SmolLM2 where `traces/tools/make_traces.sh prepare` has put
it. A capture is compared with three things that know nothing of the hook: what the model says
without it, the rows in the model's own cache, and the reference decoder in numpy; and rattn-sim
computes the check rows again from the stored q, k, v.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

import support
from support import check, safetensors_io, skip

import torch
import transformers

import capture_hf
import hf_model
import reference_forward
import trace_recorder

SMOLLM2 = os.path.join(support.TOP, "build", "models", "smollm2-135m-instruct")
IDS = np.random.default_rng(3).integers(0, 61, 120)


def capture(model, ids, output, *options):
    argv = [model, "--tokens", ids, "-o", output, "--device", "cpu", *options]
    with contextlib.redirect_stdout(io.StringIO()):
        capture_hf.run(capture_hf.make_parser().parse_args(argv))
    return safetensors_io.Reader(output)


def far(a, b):
    """Largest difference, relative to the largest value."""
    a, b = np.asarray(a, "f8"), np.asarray(b, "f8")
    return float(np.abs(a - b).max() / max(1e-30, np.abs(b).max()))


def verify(path, what):
    command = [support.RATTN_SIM, "info", "--verify", path]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    said = re.findall(r"tolerance \S+|\w+ +worst [^,]+", child.stdout)
    check(f"{what}: info --verify", child.returncode == 0, child.stderr.strip() or said)


def compare_with_model(got, path, ids, P, N, what):
    """Without the hook: log-probabilities of one pass, and the rows of the model's cache."""
    version = hf_model.version()
    kind = {"dtype" if version >= (4, 56) else "torch_dtype": torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", **kind
    )
    rows = torch.tensor([[int(i) for i in ids[: P + N]]])
    with torch.no_grad():
        out = model.eval()(input_ids=rows, use_cache=True)
    logprob = torch.log_softmax(out.logits[0].double(), -1)
    truth = [float(logprob[P + t, int(ids[P + t + 1])]) for t in range(N)]
    worst = np.abs(got.raw("s0.logprob") - np.array(truth)).max()
    check(f"{what}: log-probabilities of the model in one pass", worst < 1e-4, f"{worst:.1e}")
    cache = getattr(out, "cache", None) or out.past_key_values
    worst, compared = 0.0, 0
    for l in range(model.config.num_hidden_layers):
        layer = cache.layers[l] if hasattr(cache, "layers") else None
        kept = (layer.keys, layer.values) if layer else (cache.key_cache[l], cache.value_cache[l])
        for part, rows in zip("kv", kept):
            rows = rows[0].numpy()
            here = got.f32(f"s0.l{l}.{part}")[:, P + N - rows.shape[1] :]
            worst, compared = max(worst, far(here, rows)), compared + rows.shape[1]
    check(f"{what}: {compared} rows of the model's own cache", worst < 1e-5, f"{worst:.1e}")


def compare_with_reference(got, path, ids, P, N, W, what, bound):
    try:
        model = reference_forward.Model.load(path)
    except ValueError as error:
        skip(f"{what}: reference decoder", error)
        return
    decoder = reference_forward.Decoder(model, P + N, "f32")
    steps = got.raw("s0.check_steps").tolist()
    recorder = trace_recorder.Recorder(model, list(range(model.n_layers)), (P, N, W), steps)
    _, logprob = reference_forward.decode_run(decoder, ids, P, N, "teacher_forced", recorder)
    said = []
    for part, rows in (("q", recorder.q), ("k", decoder.k), ("v", decoder.v), ("o", recorder.o)):
        worst = max(far(got.f32(f"s0.l{l}.{part}"), rows[l]) for l in range(model.n_layers))
        said.append((part, worst))
    said.append(("logprob", float(np.abs(got.raw("s0.logprob") - logprob).max())))
    figures = ", ".join(f"{part} {worst:.1e}" for part, worst in said)
    good = all(worst < bound for _, worst in said)
    check(f"{what}: the reference decoder in f64, all layers", good, figures)


def test_family(family):
    P, N, W = 40, 25, 9
    with tempfile.TemporaryDirectory() as folder:
        path, ids = os.path.join(folder, "model"), os.path.join(folder, "ids")
        output = os.path.join(folder, "trace")
        config, weights = support.tiny(family)
        support.write_model(path, config, weights)
        support.write_ids(ids, IDS)
        lengths = ["-P", str(P), "-n", str(N), "--q-tail", str(W)]
        got = capture(path, ids, output, *lengths, "--chunk", "11", "--acc", "--top-k", "4")
        about = {key: got.metadata.get(key) for key in ("layer_types", "rope.type", "rope.theta")}
        kinds = "sliding,sliding,full" if family == "gemma3_text" else "full,full,full"
        check(f"{family}: metadata", about["layer_types"] == kinds and
              about["rope.theta"] == "10000", about)  # fmt: skip
        verify(output, family)
        compare_with_model(got, path, IDS, P, N, family)
        compare_with_reference(got, path, IDS, P, N, W, family, 1e-4)
        whole = capture(path, ids, output + "1", *lengths, "--chunk", "0", "--top-k", "0")
        worst = max(far(whole.f32(n), got.f32(n)) for n in whole.names() if ".l" in n)
        check(f"{family}: one chunk or many", worst < 1e-5, f"{worst:.1e}")
        for dtype in ("bf16", "f16"):
            low = capture(path, ids, output + dtype, *lengths, "--dtype", dtype)
            about = low.metadata["dtype.compute"], low.metadata["capture.rounded"]
            same = low.dtype("s0.l0.k") == dtype.upper() and about == (dtype, "0")
            check(f"{family}: {dtype} is stored as {dtype}", same, about)
            verify(output + dtype, f"{family}, {dtype}")
        rounded = capture(path, ids, output + "r", *lengths, "--cache-dtype", "bf16", "--round")
        check(f"{family}: --round", rounded.metadata["capture.rounded"] == "1")
        verify(output + "r", f"{family}, rounded to bf16 before attention")


def test_smollm2():
    ids = os.path.join(support.TOP, "build", "text", "jargon-saga.ids.safetensors")
    if not (os.path.exists(SMOLLM2) and os.path.exists(ids)):
        skip("SmolLM2", "not prepared: traces/tools/make_traces.sh prepare")
        return
    P, N, W = 96, 16, 32
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "trace")
        lengths = ["-P", str(P), "-n", str(N), "--q-tail", str(W), "--chunk", "50"]
        tokens = safetensors_io.Reader(ids).raw("tokens")
        got = capture(SMOLLM2, ids, output, *lengths, "--dtype", "f32", "--acc")
        verify(output, "SmolLM2")
        compare_with_model(got, SMOLLM2, tokens, P, N, "SmolLM2")
        compare_with_reference(got, SMOLLM2, tokens, P, N, W, "SmolLM2", 1e-3)
        capture(SMOLLM2, ids, output, *lengths, "--dtype", "bf16")
        verify(output, "SmolLM2, bf16")


if __name__ == "__main__":
    print("torch", torch.__version__, "transformers", transformers.__version__)
    transformers.logging.set_verbosity_error()
    getattr(transformers.logging, "disable_progress_bar", lambda: None)()
    for name in support.FAMILIES:
        if name == "gemma3_text" and hf_model.version() < (4, 53):
            skip(name, "transformers before 4.53 decodes it with a cache of fixed length")
            continue
        if name == "qwen3" and hf_model.version() < (4, 51):
            skip(name, "transformers 4.51 is the first to know it")
            continue
        test_family(name)
    if "--no-smollm2" not in sys.argv:
        test_smollm2()
    raise SystemExit(support.finish())
