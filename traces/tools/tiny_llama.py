# SPDX-License-Identifier: Apache-2.0
"""A second forward pass, for selftest.py: slow, and unlike reference_forward.py in every loop.

It takes one token, one head and one key at a time, and turns pairs of elements as complex numbers.
tiny_model() draws random models small enough for it.
"""

import math

import numpy as np


def tiny_model(Hq, Hkv, D, hidden, tied, seed):
    """Configuration and weights of a two-layer model, large enough to give peaked attention."""
    rng = np.random.default_rng(seed)
    ffn, vocab = hidden + 9, 37
    config = {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": Hq,
        "num_key_value_heads": Hkv,
        "head_dim": D,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-3,
        "rope_theta": 500.0,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 64,
    }
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(2):
        for name, shape in (
            ("input_layernorm", (hidden,)),
            ("self_attn.q_proj", (Hq * D, hidden)),
            ("self_attn.k_proj", (Hkv * D, hidden)),
            ("self_attn.v_proj", (Hkv * D, hidden)),
            ("self_attn.o_proj", (hidden, Hq * D)),
            ("post_attention_layernorm", (hidden,)),
            ("mlp.gate_proj", (ffn, hidden)),
            ("mlp.up_proj", (ffn, hidden)),
            ("mlp.down_proj", (hidden, ffn)),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        values = 1 + 0.2 * values if len(shape) == 1 else values * 1.7 / math.sqrt(shape[1])
        weights[name] = values.astype(np.float32)
    return config, weights


class Naive:
    """The forward pass in f64, q, k, v rounded to `round_to`; keeps all, by (layer, head, pos)."""

    def __init__(self, config, weights, round_to):
        self.c, self.round_to = config, round_to
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.q, self.k, self.v, self.o, self.lse, self.p = {}, {}, {}, {}, {}, {}

    def norm(self, x, name):
        square = sum(float(value) ** 2 for value in x) / len(x)
        return x / math.sqrt(square + self.c["rms_norm_eps"]) * self.w[name]

    def turn(self, x, pos):
        half, out = len(x) // 2, np.empty(len(x))
        for i in range(half):
            power = np.float32(
                self.c["rope_theta"] ** float(np.float32(2 * i) / np.float32(2 * half))
            )
            angle = float(np.float32(pos) * (np.float32(1) / power))
            z = complex(x[i], x[i + half]) * complex(
                np.float32(math.cos(angle)), np.float32(math.sin(angle))
            )
            out[i], out[i + half] = z.real, z.imag
        return out

    def keep(self, x):
        return x.astype(np.float32).astype(self.round_to).astype(np.float64)

    def attention(self, layer, pos, h):
        c, D = self.c, self.c["head_dim"]
        w = lambda name: self.w[f"model.layers.{layer}.self_attn.{name}_proj.weight"]
        for head in range(c["num_key_value_heads"]):
            rows = slice(head * D, head * D + D)
            self.k[layer, head, pos] = self.keep(self.turn(w("k")[rows] @ h, pos))
            self.v[layer, head, pos] = self.keep(w("v")[rows] @ h)
        parts = []
        for head in range(c["num_attention_heads"]):
            kv = head * c["num_key_value_heads"] // c["num_attention_heads"]
            q = self.keep(self.turn(w("q")[head * D : head * D + D] @ h, pos))
            scale = float("%.9g" % (1 / math.sqrt(D)))  # the nine digits a trace states
            e = [math.exp(q @ self.k[layer, kv, j] * scale) for j in range(pos + 1)]
            p = [value / math.fsum(e) for value in e]
            o = sum(p[j] * self.v[layer, kv, j] for j in range(pos + 1))
            key = layer, head, pos
            self.q[key], self.p[key], self.o[key], self.lse[key] = q, p, o, math.log(math.fsum(e))
            parts.append(o)
        return w("o") @ np.concatenate(parts)

    def logits(self, token, pos):
        w, x = self.w, self.w["model.embed_tokens.weight"][token]
        for layer in range(self.c["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = x + self.attention(layer, pos, self.norm(x, name + "input_layernorm.weight"))
            h = self.norm(x, name + "post_attention_layernorm.weight")
            gate, up = w[name + "mlp.gate_proj.weight"] @ h, w[name + "mlp.up_proj.weight"] @ h
            gate = np.array([value / (1 + math.exp(-value)) for value in gate])
            x = x + w[name + "mlp.down_proj.weight"] @ (gate * up)
        head = "model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"
        return w[head] @ self.norm(x, "model.norm.weight")
