# SPDX-License-Identifier: Apache-2.0
"""What the reference decoder leaves behind: an `rattn-trace` 1.0 file (traces/FORMAT.md).

A Recorder sits beside the decoder and keeps the rows a trace holds. It computes nothing of its own,
so the forward pass reads the same with and without it.
"""

import numpy as np

import safetensors_io

TOOL_VERSION = "1.0"


class Recorder:
    """Keeps rows of the chosen layers of one sequence; storage is sized at the start.

    lengths = (P, N, W): prompt tokens, decode steps, prompt queries kept. check_steps: the decode
    steps whose attention output is kept, so that a reader can prove it understood the file. top_k:
    how many of the likeliest ids are kept per step.
    """

    def __init__(self, model, layers, lengths, check_steps, top_k=0):
        (P, N, W), C, Hq = lengths, len(check_steps), model.Hq
        self.model, self.layers, self.check_steps = model, layers, check_steps
        self.P, self.N, self.W = lengths
        self.q = {l: np.empty((Hq, W + N, model.D), np.float32) for l in layers}
        self.acc = {l: np.zeros((Hq, P), np.float64) for l in layers}
        self.o = {l: np.empty((Hq, C, model.D), np.float32) for l in layers}
        self.lse = {l: np.empty((Hq, C), np.float32) for l in layers}
        self.topk_id = np.empty((N, top_k), np.int32)
        self.topk_logprob = np.empty((N, top_k), np.float32)

    def received(self, layer, end):
        """Where attend() adds probabilities; None for decode steps, which are not part of acc."""
        return self.acc[layer][:, :end] if layer in self.acc and end <= self.P else None

    def layer(self, layer, begin, q, o, lse):
        """Called once per layer and block: q, o [Hq, n, D], lse [Hq, n] from position begin on."""
        if layer not in self.q:
            return
        end, first = begin + q.shape[1], self.P - self.W
        keep = max(begin, first)
        if keep < end:
            self.q[layer][:, keep - first : end - first] = q[:, keep - begin :]
        if begin - self.P in self.check_steps:
            row = self.check_steps.index(begin - self.P)
            self.o[layer][:, row], self.lse[layer][:, row] = o[:, 0], lse[:, 0]

    def scored(self, step, logprobs):
        """Called once per decode step, with ln p of each id. Of equals the lower id comes first."""
        ids = np.argsort(-logprobs, kind="stable")[: self.topk_id.shape[1]]
        self.topk_id[step], self.topk_logprob[step] = ids, logprobs[ids]

    def tensors(self, decoder, tokens, logprob):
        """(name, dtype, array) in file order: large ones first, so that every row is aligned."""
        dtype, out = decoder.dtype, []
        for l in self.layers:
            for name, rows in (("k", decoder.k[l]), ("v", decoder.v[l]), ("q", self.q[l])):
                out.append((f"s0.l{l}.{name}", dtype, safetensors_io.encode(rows, dtype)))
        for l in self.layers:
            if not self.model.slides[l]:  # policies choose in full-attention layers only
                out.append((f"s0.l{l}.acc", "F32", self.acc[l].astype(np.float32)))
            if self.check_steps:
                out += [(f"s0.l{l}.o", "F32", self.o[l]), (f"s0.l{l}.lse", "F32", self.lse[l])]
        out += [("s0.tokens", "I32", tokens), ("s0.logprob", "F32", logprob)]
        if self.topk_id.size:
            out.append(("s0.topk_id", "I32", self.topk_id))
            out.append(("s0.topk_logprob", "F32", self.topk_logprob))
        if self.check_steps:
            out.append(("s0.check_steps", "I32", np.array(self.check_steps, np.int32)))
        return out

    def metadata(self, args, provenance, ids_metadata):
        """All values are strings. There is no time stamp: the same inputs give the same bytes."""
        model = self.model
        licenses = (provenance.get("license", "unknown"), ids_metadata.get("license", "unknown"))
        values = {
            "format": "rattn-trace",
            "version": "1.0",
            "model.id": provenance.get("model.id", "unknown"),
            "model.revision": provenance.get("model.revision", ""),
            "model.arch": model.arch,
            "model.sha256": provenance.get("model.sha256", ""),
            "model.quant": provenance.get("model.quant", "none"),
            "n_layers": model.n_layers,
            "layers": comma_list(self.layers),
            "n_q_heads": model.Hq,
            "n_kv_heads": model.Hkv,
            "head_dim": model.D,
            "v_head_dim": model.D,
            "hidden_size": model.hidden,
            "vocab_size": model.vocab,
            "attn_scale": "%.9g" % model.scale,
            "attn_softcap": 0,
            "attn_sinks": "none",
            "layer_types": comma_list(["sliding" if s else "full" for s in model.slides]),
            **({"sliding_window": model.window} if model.window else {}),
            **rope_metadata(model),
            "rope.layout": "half",
            "k.stage": "post_rope",
            "dtype.compute": args.compute,
            "dtype.cache": args.dtype,
            "n_seq": 1,
            "s0.prompt_len": self.P,
            "s0.decode_len": self.N,
            "s0.q_tail": self.W,
            "s0.first_pos": 0,
            "s0.mode": args.mode,
            "s0.policy": "full",
            "s0.task": "lm",
            "s0.source": ids_metadata.get("source", "unknown"),
            "s0.source_sha256": ids_metadata.get("source_sha256", ""),
            "tokenizer.sha256": provenance.get("tokenizer.sha256", ""),
            "license": "model: %s; text: %s" % licenses,
            "capture.tool": "reference_forward.py",
            "capture.tool_version": TOOL_VERSION,
            "capture.attn_impl": "numpy",
            "capture.device": "cpu",
            "capture.rounded": 1,
            "content.sha256": "",
        }
        return {key: str(value) for key, value in values.items()}


def rope_metadata(model):
    """The rotation of the full layers, and the sliding layers' theta where that is another."""
    rope, names = model.rope, {"original_max_position_embeddings": "original_max_position"}
    values = {"rope.type": rope.type, "rope.theta": "%.9g" % rope.theta}
    if any(model.slides) and model.rope_local.theta != rope.theta:
        values["rope.theta_local"] = "%.9g" % model.rope_local.theta
    for name, number in rope.numbers.items():
        values["rope." + names.get(name, name)] = "%.9g" % number
    return values


def comma_list(items):
    return ",".join(str(item) for item in items)


def parse_layers(text, n_layers):
    layers = range(n_layers) if text == "all" else sorted({int(item) for item in text.split(",")})
    layers = list(layers)
    if layers[0] < 0 or layers[-1] >= n_layers:
        raise ValueError(f"--layers {text}: the model has layers 0..{n_layers - 1}")
    return layers


def parse_check_steps(text, N):
    """A count: so many steps, evenly spaced, first and last included. With a comma: the steps."""
    steps = [int(item) for item in text.split(",") if item]
    if "," not in text:
        steps = np.linspace(0, N - 1, min(steps[0], N)).round().astype(int).tolist()
    if steps != sorted(set(steps)) or (steps and not 0 <= steps[0] <= steps[-1] < N):
        raise ValueError(f"--check-steps {text}: expected ascending steps in 0..{N - 1}")
    return steps
