# SPDX-License-Identifier: Apache-2.0
"""As much of transformers as traces/tools uses, and a tiny Llama in numpy behind its interfaces.

FAKE_TRANSFORMERS is the version that is played: 4.48 (attention functions in a plain dict, models
make their masks), 4.51 (AttentionInterface), 5.0 (masks by name too: without an entry there is
none, and nothing says so; the cache argument is `cache`). A model looks only at what its version has.
"""

import json
import os

import numpy as np
import torch

__version__ = os.environ.get("FAKE_TRANSFORMERS", "5.0") + ".0"
VERSION = tuple(int(part) for part in __version__.split("."))

from . import modeling_utils  # noqa: E402

if VERSION >= (4, 50):
    from .modeling_utils import AttentionInterface  # noqa: F401


class Config:
    def __init__(self, values):
        self.__dict__.update(values)
        self.values = values

    def to_dict(self):
        return dict(self.values)

    def get_text_config(self):
        return self


class Cache:
    """Rows of each layer. Of a window layer it keeps width - 1 and gives these and the new ones."""

    def __init__(self):
        self.rows, self.length = {}, 0

    def update(self, layer, width, *new):
        old = self.rows.get(layer)
        both = [np.concatenate([o, x], 2) for o, x in zip(old, new)] if old else list(new)
        keep = both if not width else [x[:, :, max(0, x.shape[2] - width + 1) :] for x in both]
        self.rows[layer] = keep
        return both


class Attention:
    """What an attention function is told about its layer."""

    is_causal = True

    def __init__(self, config, layer):
        self.config, self.layer_idx = config, layer


class Output:
    pass


class Model:
    """Llama, in f32; window layers by layer_types."""

    def __init__(self, config, weights, name, dtype):
        self.config, self.weights, self.dtype = Config(config), weights, dtype
        self.config._attn_implementation = name
        self.device = torch.Device("cpu")
        self.layers = [Attention(self.config, l) for l in range(config["num_hidden_layers"])]

    def eval(self):
        return self

    def to(self, device):
        return self

    def w(self, name, layer=None):
        prefix = "model." if layer is None else f"model.layers.{layer}."
        return self.weights[prefix + name + ".weight"]

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.rms_norm_eps) * weight

    def mask(self, name, q_length, cache, width):
        """True where a key may be seen, [1, 1, Tq, Tk]; None: the attention function decides."""
        begin, seen = cache.length, cache.length
        offset = max(0, seen - width + 1) if width else 0
        if VERSION >= (4, 53):
            from .masking_utils import MASKS

            if name not in MASKS:
                return None
            return MASKS[name](1, q_length, begin + q_length - offset, begin, offset, width)
        from .masks import causal

        return causal(1, q_length, begin + q_length - offset, begin, offset, width)

    def rotate(self, x, begin):
        half = x.shape[-1] // 2
        inverse = 1 / self.config.rope_theta ** (np.arange(half, dtype=np.float32) / half)
        angle = np.arange(begin, begin + x.shape[2], dtype=np.float32)[:, None] * inverse
        cos, sin = np.cos(angle).astype("f4"), np.sin(angle).astype("f4")
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, layer, h, cache):
        c, begin = self.config, cache.length
        D = c.head_dim

        def heads(name, count):
            y = h @ self.w(f"self_attn.{name}_proj", layer).T
            return y.reshape(1, len(h), count, D).transpose(0, 2, 1, 3)

        kinds = getattr(c, "layer_types", None)
        width = c.sliding_window if kinds and kinds[layer] == "sliding_attention" else None
        q = self.rotate(heads("q", c.num_attention_heads), begin)
        k = self.rotate(heads("k", c.num_key_value_heads), begin)
        mask = self.mask(c._attn_implementation, len(h), cache, width)
        k, v = cache.update(layer, width, k, heads("v", c.num_key_value_heads))
        attend = modeling_utils.ALL_ATTENTION_FUNCTIONS[c._attn_implementation]
        q, k, v = (torch.wrap(x) for x in (q, k, v))
        options = {"dropout": 0.0, "scaling": D**-0.5}
        if kinds:
            options["sliding_window"] = width
        out, _ = attend(self.layers[layer], q, k, v, mask, **options)
        return np.asarray(out).reshape(len(h), -1) @ self.w("self_attn.o_proj", layer).T

    def run(self, input_ids, cache):
        cache = cache or Cache()
        x = self.w("embed_tokens")[np.asarray(input_ids)[0]]
        for layer in range(len(self.layers)):
            x = x + self.attention(layer, self.norm(x, self.w("input_layernorm", layer)), cache)
            h = self.norm(x, self.w("post_attention_layernorm", layer))
            gate, up = (h @ self.w(f"mlp.{n}_proj", layer).T for n in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w("mlp.down_proj", layer).T
        cache.length += x.shape[0]
        out = Output()
        last = self.norm(x, self.w("norm"))[-1:]  # logits_to_keep=1
        out.logits = torch.wrap((last @ self.weights["lm_head.weight"].T)[None])
        return out, cache


class ModelOf4(Model):
    def forward(self, input_ids, past_key_values=None, use_cache=True, num_logits_to_keep=0):
        out, out.past_key_values = self.run(input_ids, past_key_values)
        return out

    __call__ = forward


class ModelOf5(Model):
    def forward(self, input_ids, cache=None, use_cache=True, logits_to_keep=0):
        out, out.cache = self.run(input_ids, cache)
        return out

    __call__ = forward


class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(name, attn_implementation, **options):
        import safetensors_io

        assert ("dtype" in options) == (VERSION >= (4, 56)), options
        assert attn_implementation in modeling_utils.ALL_ATTENTION_FUNCTIONS.keys()
        with open(os.path.join(name, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        reader = safetensors_io.Reader(os.path.join(name, "model.safetensors"))
        weights = {key: reader.f32(key) for key in reader.names()}
        kind = ModelOf5 if VERSION >= (5,) else ModelOf4
        return kind(config, weights, attn_implementation, torch.float32)
