# SPDX-License-Identifier: Apache-2.0
"""The reference decoder: a forward pass in plain numpy, and the trace it leaves.

It covers the families of model_families.py: Llama, Mistral, Qwen2, Qwen3, Gemma 3 (text).

It reads a prepared model directory and a file of token ids, prefills the prompt in chunks, then
decodes token by token under full attention, greedily or teacher-forced, and writes an `rattn-trace`
1.0 file. Written to be read, not to be fast: it is what other decoders are compared with.

It computes in f64 unless told otherwise. q, k and v are rounded to f16 on the way, and one value
that rounds the other way moves thousands of others a layer later: in f32, two BLAS kernels leave
visibly different traces. In f64 sums differ so far below the rounding that all machines agree.
"""

import argparse
import json
import os
import sys

import numpy as np

import model_families
import safetensors_io
import trace_recorder
from safetensors_io import STORED_TYPES

CHUNK = 256  # prompt tokens per matrix product


class Model(model_families.Architecture):
    """Configuration and weights of one model directory, and the type everything is computed in."""

    def __init__(self, config, weights, compute=np.float64):
        super().__init__(config)
        self.check_weights(weights)
        self.compute = compute
        self.weights = {name: np.asarray(w, compute) for name, w in weights.items()}
        if self.plus_one:
            self.weights |= {n: 1 + w for n, w in self.weights.items() if n.endswith("norm.weight")}

    @classmethod
    def load(cls, directory, compute=np.float64):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        return cls(config, model_families.load_weights(directory), compute)

    def weight(self, name, layer=None):
        prefix = "model." if layer is None else f"model.layers.{layer}."
        return self.weights[prefix + name + ".weight"]

    def bias(self, name, layer):
        return self.weights[f"model.layers.{layer}.{name}.bias"]

    def head_weight(self):
        """[vocab, hidden]; small models use the embedding both ways."""
        return self.weight("embed_tokens") if self.tied else self.weights["lm_head.weight"]


def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight: no mean is subtracted, no bias added."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def silu(x):
    with np.errstate(over="ignore"):  # exp(-x) = inf gives x / inf = -0, the right limit
        return x / (1 + np.exp(-x))


def gelu_tanh(x):
    """GELU by its tanh formula, which differs from the erf one in the fourth digit."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {"silu": silu, "gelu_pytorch_tanh": gelu_tanh}


def rope_tables(positions, inv_freq):
    """cos, sin [n, D/2] of pos * inv_freq, rounded to f32 where HF rounds.

    HF forms inv_freq and the product pos * inv_freq in f32. The product's rounding error grows with
    the position: at 8,000 an f64 angle would differ by up to 5e-4, enough to be another model than
    the one that was trained. cos and sin are taken in f64 and rounded once: equal on all machines.
    """
    angle = (np.asarray(positions, np.float32)[:, None] * inv_freq[None, :]).astype(np.float64)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate_half(x, cos, sin):
    """HF's layout: element i pairs with i + D/2, not with its neighbour. x [H, n, D]."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attend(q, k, v, scale, received=None, window=0):
    """Causal attention of the last n of m positions: query i sits at position m-n+i.

    q [Hq, n, D], k and v [Hkv, m, D]. Returns o [Hq, n, D] and lse [Hq, n], the natural log of the
    softmax sum. `received` [Hq, m], if given, gains the probability each position got, summed over
    the n queries. `window` > 0: a query sees that many positions, itself the last.
    """
    (Hq, n, D), (Hkv, m, _) = q.shape, k.shape
    if window:
        first = max(0, m - n - window + 1)  # the oldest position that any of the queries sees
        k, v, m = k[:, first:], v[:, first:], m - first
        received = None if received is None else received[:, first:]
    group = Hq // Hkv  # query head h shares KV head h // group
    o, lse = np.empty_like(q), np.empty((Hq, n), q.dtype)
    future = np.triu(np.ones((n, n), bool), 1)  # keys after the query, all inside this block
    if window:
        past = np.arange(m) <= np.arange(m - n, m)[:, None] - window  # keys that left it
    for g in range(Hkv):
        heads = slice(g * group, (g + 1) * group)
        p = ((q[heads].reshape(group * n, D) * scale) @ k[g].T).reshape(group, n, m)
        p[:, :, m - n :][:, future] = -np.inf
        if window:
            p[:, past] = -np.inf
        top = p.max(axis=2, keepdims=True)  # subtracted so that exp cannot overflow
        p -= top
        np.exp(p, out=p)
        total = p.sum(axis=2, keepdims=True)
        lse[heads] = (top + np.log(total))[..., 0]
        o[heads] = (p.reshape(group * n, m) @ v[g]).reshape(group, n, D) / total
        if received is not None:
            received[heads] += ((1 / total.transpose(0, 2, 1)) @ p)[:, 0]
    return o, lse


class Decoder:
    """A model and its KV cache. `cache_dtype` is what k and v are kept in and q is rounded to."""

    def __init__(self, model, capacity, cache_dtype="f16"):
        self.model, self.dtype, self.length = model, STORED_TYPES[cache_dtype], 0
        shape = (model.n_layers, model.Hkv, capacity, model.D)
        self.k, self.v = np.empty(shape, model.compute), np.empty(shape, model.compute)

    def rounded(self, x):
        x = safetensors_io.decode(safetensors_io.encode(x, self.dtype), self.dtype)
        if not np.isfinite(x).all():
            raise ValueError(f"a query, key or value does not fit {self.dtype}")
        return x.astype(self.model.compute)

    def forward(self, ids, observe=None):
        """Append `ids` to the sequence; returns their final hidden states [n, hidden].

        `observe`, if given, is a Recorder (trace_recorder.py).
        """
        model, n = self.model, len(ids)
        begin, end = self.length, self.length + n
        positions = np.arange(begin, end)
        full, local = (
            rope_tables(positions, rope.inverse_frequencies(model.D))
            for rope in (model.rope, model.rope_local)
        )
        x = model.weight("embed_tokens")[ids] * model.embed_scale
        for layer in range(model.n_layers):
            slides = model.slides[layer]
            h = rms_norm(x, model.weight("input_layernorm", layer), model.eps)
            q, k, v = self.project(h, layer, *(local if slides else full))
            self.k[layer, :, begin:end], self.v[layer, :, begin:end] = k, v
            received = observe.received(layer, end) if observe else None
            keys, values = self.k[layer, :, :end], self.v[layer, :, :end]
            window = model.window if slides else 0
            o, lse = attend(q, keys, values, model.scale, received, window)
            if observe:
                observe.layer(layer, begin, q, o, lse)
            o = self.attended(layer, q, keys, values, o)
            o = o.transpose(1, 0, 2).reshape(n, model.Hq * model.D)
            x = self.add_mlp(x, o @ model.weight("self_attn.o_proj", layer).T, layer)
        self.length = end
        return rms_norm(x, model.weight("norm"), model.eps)

    def attended(self, layer, q, keys, values, o):
        """What the layer goes on with: full attention, unless a subclass decodes otherwise."""
        return o

    def add_mlp(self, x, o, layer):
        """The second half of a layer: x plus attention's share, plus that of the MLP.

        Gemma norms both shares before they are added; its post_attention_layernorm is the first of
        these. Elsewhere that is the name of the norm before the MLP.
        """
        model = self.model
        norm = lambda y, name: rms_norm(y, model.weight(name, layer), model.eps)
        if model.post_norms:
            x = x + norm(o, "post_attention_layernorm")
            h = norm(x, "pre_feedforward_layernorm")
        else:
            x = x + o
            h = norm(x, "post_attention_layernorm")
        gate = ACTIVATIONS[model.act](h @ model.weight("mlp.gate_proj", layer).T)
        up = h @ model.weight("mlp.up_proj", layer).T
        share = (gate * up) @ model.weight("mlp.down_proj", layer).T
        return x + (norm(share, "post_feedforward_layernorm") if model.post_norms else share)

    def project(self, h, layer, cos, sin):
        """q [Hq, n, D], k, v [Hkv, n, D] as attention sees them: rotated, then rounded.

        Rounding comes before attention, not when the trace is written: the file then holds exactly
        what this attention saw, and o, lse, acc and logprob can be recomputed from it.
        """
        model = self.model

        def heads(name, count):
            y = h @ model.weight(f"self_attn.{name}_proj", layer).T
            if model.qkv_bias:
                y = y + model.bias(f"self_attn.{name}_proj", layer)
            y = y.reshape(len(h), count, model.D).transpose(1, 0, 2)
            if model.qk_norm and name != "v":
                y = rms_norm(y, model.weight(f"self_attn.{name}_norm", layer), model.eps)
            return y

        q = self.rounded(rotate_half(heads("q", model.Hq), cos, sin))
        k = self.rounded(rotate_half(heads("k", model.Hkv), cos, sin))
        return q, k, self.rounded(heads("v", model.Hkv))

    def logits(self, hidden):
        return hidden @ self.model.head_weight().T

    def prefill(self, ids, observe=None):
        """The prompt, CHUNK tokens at a time; returns the last token's logits."""
        for i in range(0, len(ids), CHUNK):
            hidden = self.forward(ids[i : i + CHUNK], observe)
            progress("prefill", min(i + CHUNK, len(ids)), len(ids))
        return self.logits(hidden[-1:])[0]


def log_softmax(logits):
    z = logits.astype(np.float64)
    return z - (z.max() + np.log(np.exp(z - z.max()).sum()))


def progress(what, done, total):
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total} ", end="\n" * (done == total), file=sys.stderr, flush=True)


def decode_run(decoder, ids, P, N, mode, recorder):
    """Prefill ids[:P], then N steps. Step t processes position P+t and scores position P+t+1.

    Returns tokens [P+N+1] (the last one is only a target) and logprob [N].
    """
    tokens, logprob = np.empty(P + N + 1, np.int32), np.empty(N, np.float32)
    tokens[:P] = ids[:P]
    if mode == "teacher_forced":
        tokens[:] = ids[: P + N + 1]
    last = decoder.prefill(tokens[:P], recorder)
    if mode == "greedy":
        tokens[P] = last.argmax()
    for t in range(N):
        logits = decoder.logits(decoder.forward(tokens[P + t : P + t + 1], recorder))[0]
        if mode == "greedy":
            tokens[P + t + 1] = logits.argmax()
        logprobs = log_softmax(logits)
        logprob[t] = logprobs[tokens[P + t + 1]]
        if recorder:
            recorder.scored(t, logprobs)
        progress("decode", t + 1, N)
    return tokens, logprob


def make_parser():
    parser = argparse.ArgumentParser(description="decode under full attention and write a trace")
    add = parser.add_argument
    add("model", help="prepared model directory (prepare_model.py)")
    add("--tokens", required=True, help="ids file (tokenize.py)")
    add("-o", "--output", required=True, help="trace to write")
    add("-P", "--prompt-len", type=int, required=True, help="prompt tokens P")
    add("-n", "--decode-len", type=int, required=True, help="decode steps N")
    add("--q-tail", type=int, default=64, help="prompt queries kept, W (%(default)s)")
    add("--layers", default="all", help="layers to record: all, or a list like 0,9 (%(default)s)")
    add("--check-steps", default="16", help="count of check rows, or list of steps (%(default)s)")
    add("--mode", choices=("teacher_forced", "greedy"), default="teacher_forced")
    add("--top-k", type=int, default=0, help="likeliest ids kept per step (%(default)s: none)")
    add("--dtype", choices=tuple(STORED_TYPES), default="f16", help="type q, k, v are stored in")
    add("--compute", choices=("f64", "f32"), default="f64", help="type of the arithmetic")
    return parser


def read_provenance(directory):
    """What prepare_model.py noted; a directory from elsewhere has at most its tokenizer to show."""
    path = os.path.join(directory, "provenance.json")
    tokenizer = os.path.join(directory, "tokenizer.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    if os.path.exists(tokenizer):
        return {"tokenizer.sha256": safetensors_io.file_sha256(tokenizer)}
    return {}


def run(args):
    P, N, W = args.prompt_len, args.decode_len, args.q_tail
    ids_file = safetensors_io.Reader(args.tokens)
    ids = ids_file.raw("tokens")
    need = P + N + 1 if args.mode == "teacher_forced" else P
    if P < 1 or N < 1 or not 1 <= W <= P:
        raise ValueError(f"P={P}, N={N}, W={W}: expected P, N >= 1 and 1 <= W <= P")
    if len(ids) < need:
        raise ValueError(f"{args.tokens}: {len(ids)} tokens, {need} needed")
    provenance = read_provenance(args.model)
    tokenizer = provenance.get("tokenizer.sha256")
    if tokenizer and ids_file.metadata.get("tokenizer.sha256") != tokenizer:
        raise ValueError(f"{args.tokens}: made with another tokenizer than that of {args.model}")
    model = Model.load(args.model, {"f64": np.float64, "f32": np.float32}[args.compute])
    if P + N > model.config.get("max_position_embeddings", P + N):
        raise ValueError(f"P + N = {P + N}: more positions than the model knows")
    if not 0 <= args.top_k <= model.vocab:
        raise ValueError(f"--top-k {args.top_k}: the model has {model.vocab} tokens")
    layers = trace_recorder.parse_layers(args.layers, model.n_layers)
    if all(model.slides[layer] for layer in layers):
        raise ValueError(f"--layers {args.layers}: a trace needs a full-attention layer")
    check_steps = trace_recorder.parse_check_steps(args.check_steps, N)
    recorder = trace_recorder.Recorder(model, layers, (P, N, W), check_steps, args.top_k)
    decoder = Decoder(model, P + N, args.dtype)
    tokens, logprob = decode_run(decoder, ids, P, N, args.mode, recorder)
    tensors = recorder.tensors(decoder, tokens, logprob)
    safetensors_io.write(
        args.output, tensors, recorder.metadata(args, provenance, ids_file.metadata)
    )
    perplexity = np.exp(-logprob.astype(np.float64).mean())
    size = os.path.getsize(args.output) / 2**20
    print(f"{args.output}: P={P}, N={N}, {len(layers)} layers, {size:.1f} MiB")
    print(f"perplexity of the {N} decoded tokens: {perplexity:.3f}")


def main():
    try:
        run(make_parser().parse_args())
    except (ValueError, OSError) as error:
        raise SystemExit(f"reference_forward: {error}")


if __name__ == "__main__":
    main()
