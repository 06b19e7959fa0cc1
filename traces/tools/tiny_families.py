# SPDX-License-Identifier: Apache-2.0
"""A second forward pass for the families beside Llama, for selftest.py.

As tiny_llama.py it goes token by token, head by head, key by key, and knows nothing of
model_families.py. It does not read config.json either: FACTS says by hand what each model of
tiny_models.py is, so that a key that is read wrongly shows as well.
"""

import math

import numpy as np


def facts(Hq, Hkv, D, thetas, **others):
    """thetas: one per layer. windows: one per layer, 0 for none. stretch: of the rotation."""
    n = len(thetas)
    out = {"Hq": Hq, "Hkv": Hkv, "D": D, "thetas": thetas, "windows": [0] * n, "scale": D**-0.5}
    out |= {"stretch": [None] * n, "eps": 1e-5, "tied": False, "bias": False, "qk_norm": False}
    return out | {"gemma": False} | others


GEMMA = {"eps": 1e-6, "tied": True, "qk_norm": True, "gemma": True, "scale": 20**-0.5}
LINEAR_4 = ("linear", 4.0)
V5 = {**GEMMA, "stretch": [None, LINEAR_4, None, LINEAR_4]}
V5_THETAS = [500.0, 5e4, 500.0, 5e4]

FACTS = {
    "llama": facts(6, 2, 8, [500.0] * 2),
    "llama-linear": facts(3, 3, 16, [1e4] * 3, tied=True, stretch=[("linear", 2.5)] * 3),
    "llama-llama3": facts(4, 1, 32, [5e5] * 2, stretch=[("llama3", 8.0, 1.0, 4.0, 64.0)] * 2),
    "llama-v5": facts(4, 2, 16, [1e4] * 2, stretch=[("llama3", 8.0, 1.0, 4.0, 64.0)] * 2),
    "mistral": facts(3, 1, 32, [1e6] * 2),
    "mistral-window": facts(6, 2, 16, [1e4] * 2, windows=[20, 20]),
    "qwen2": facts(6, 2, 8, [1e6] * 2, eps=1e-6, tied=True, bias=True),
    "qwen2-shards": facts(6, 3, 8, [1e6] * 3, eps=1e-6, bias=True),
    "qwen3": facts(3, 3, 32, [1e6] * 2, eps=1e-6, qk_norm=True),
    "gemma3": facts(4, 1, 32, [100.0, 100.0, 1e5, 100.0], windows=[20, 20, 0, 20], **GEMMA),
    "gemma3-v5": facts(6, 2, 8, V5_THETAS, windows=[24, 0, 24, 0], **V5),
    "gemma3-nested": facts(6, 2, 8, V5_THETAS, windows=[40, 0, 40, 0], **V5),
}


def frequency(theta, i, D, stretch):
    """How far pair i turns per position, in f32 steps."""
    f = np.float32
    turn = f(1) / f(theta ** float(f(2 * i) / f(D)))
    if stretch is None:
        return turn
    if stretch[0] == "linear":
        return turn / f(stretch[1])
    _, factor, low, high, original = stretch
    period = f(2 * math.pi) / turn  # positions per full turn
    if period < f(original / high):
        return turn
    if period > f(original / low):
        return turn / f(factor)
    share = (f(original) / period - f(low)) / f(high - low)
    return (f(1) - share) * turn / f(factor) + share * turn


def gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def silu(x):
    return x / (1 + math.exp(-x))


class NaiveFamily:
    """The forward pass in f64; q, k, v rounded to `round_to`. Tokens go in one by one, from 0 on.

    After each, q, k, v, o, lse hold that position's under (layer, head, position), and p the
    probabilities of all positions up to it.
    """

    def __init__(self, name, weights, round_to):
        self.f, self.round_to = FACTS[name], round_to
        self.w = {key: value.astype(np.float64) for key, value in weights.items()}
        self.q, self.k, self.v, self.o, self.lse, self.p = {}, {}, {}, {}, {}, {}

    def norm(self, x, name):
        weight = self.w[name + ".weight"]
        root = math.sqrt(math.fsum(float(e) * float(e) for e in x) / len(x) + self.f["eps"])
        return np.array([x[i] / root * (weight[i] + self.f["gemma"]) for i in range(len(x))])

    def turned(self, x, layer, pos):
        D, out = self.f["D"], np.empty(self.f["D"])
        for i in range(D // 2):
            step = frequency(self.f["thetas"][layer], i, D, self.f["stretch"][layer])
            angle = float(np.float32(pos) * step)
            c, s = float(np.float32(math.cos(angle))), float(np.float32(math.sin(angle)))
            out[i] = x[i] * c - x[i + D // 2] * s
            out[i + D // 2] = x[i + D // 2] * c + x[i] * s
        return out

    def head(self, what, layer, head, pos, h):
        """One head's q, k or v of one position, as attention sees it."""
        D, prefix = self.f["D"], f"model.layers.{layer}.self_attn.{what}"
        rows = slice(head * D, (head + 1) * D)
        x = self.w[prefix + "_proj.weight"][rows] @ h
        if self.f["bias"]:
            x = x + self.w[prefix + "_proj.bias"][rows]
        if what != "v":
            if self.f["qk_norm"]:
                x = self.norm(x, prefix + "_norm")
            x = self.turned(x, layer, pos)
        return x.astype(np.float32).astype(self.round_to).astype(np.float64)

    def attention(self, layer, pos, h):
        f, outputs = self.f, []
        for kv in range(f["Hkv"]):
            self.k[layer, kv, pos] = self.head("k", layer, kv, pos, h)
            self.v[layer, kv, pos] = self.head("v", layer, kv, pos, h)
        window = f["windows"][layer]
        seen = [j for j in range(pos + 1) if not window or pos - j < window]
        for head in range(f["Hq"]):
            key, kv = (layer, head, pos), head // (f["Hq"] // f["Hkv"])
            q = self.head("q", layer, head, pos, h)
            scale = float("%.9g" % f["scale"])
            e = {j: math.exp(float(q @ self.k[layer, kv, j]) * scale) for j in seen}
            total = math.fsum(e.values())
            self.p[key] = [e.get(j, 0.0) / total for j in range(pos + 1)]
            self.q[key], self.lse[key] = q, math.log(total)
            self.o[key] = sum(e[j] / total * self.v[layer, kv, j] for j in seen)
            outputs.append(self.o[key])
        return self.w[f"model.layers.{layer}.self_attn.o_proj.weight"] @ np.concatenate(outputs)

    def mlp(self, layer, h):
        w = lambda name: self.w[f"model.layers.{layer}.mlp.{name}_proj.weight"]
        act = gelu if self.f["gemma"] else silu
        inner = [act(a) * b for a, b in zip((w("gate") @ h).tolist(), (w("up") @ h).tolist())]
        return w("down") @ np.array(inner)

    def logits(self, token, pos):
        x = self.w["model.embed_tokens.weight"][token]
        if self.f["gemma"]:
            x = x * math.sqrt(len(x))
        for layer in range(len(self.f["thetas"])):
            at = f"model.layers.{layer}."
            share = self.attention(layer, pos, self.norm(x, at + "input_layernorm"))
            if self.f["gemma"]:
                x = x + self.norm(share, at + "post_attention_layernorm")
                share = self.mlp(layer, self.norm(x, at + "pre_feedforward_layernorm"))
                x = x + self.norm(share, at + "post_feedforward_layernorm")
            else:
                x = x + share
                x = x + self.mlp(layer, self.norm(x, at + "post_attention_layernorm"))
        out = self.w["model.embed_tokens.weight" if self.f["tied"] else "lm_head.weight"]
        return out @ self.norm(x, "model.norm")
