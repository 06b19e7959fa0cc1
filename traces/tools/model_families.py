# SPDX-License-Identifier: Apache-2.0
"""What a config.json says of a model, reduced to what one forward pass needs.

Llama, Mistral, Qwen2, Qwen3 and the text part of Gemma 3 are one pass with a few switches; the
table FAMILIES and the class Architecture hold them. A key that would change the arithmetic and is
not understood is refused by name: a decoder that ignored it would be that of another model.
"""

import json
import math
import os

import numpy as np

import safetensors_io

GEMMA = {"arch": "gemma3", "act": "gelu_pytorch_tanh", "act_key": "hidden_activation"}
GEMMA |= {"qk_norm": True, "plus_one": True, "post_norms": True}

# By model_type. act_key: where the activation is named. slides: how sliding layers are told apart.
FAMILIES = {
    "llama": {"arch": "llama"},
    "mistral": {"arch": "mistral", "slides": "all"},
    "qwen2": {"arch": "qwen2", "qkv_bias": True, "slides": "use_sliding_window"},
    "qwen3": {"arch": "qwen3", "qk_norm": True, "slides": "use_sliding_window"},
    "gemma3_text": {**GEMMA, "slides": "pattern"},
}
# A model that shows images too: its text part counts, in text_config.
WRAPPERS = {"gemma3": "gemma3_text"}

# What the models' own code assumes where config.json is silent.
DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False}
GEMMA_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rope_theta": 1e6,
    "rope_local_base_freq": 10000.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "vocab_size": 262208,
}
FAMILY_DEFAULTS = {
    "qwen2": {"max_window_layers": 28, "sliding_window": 4096},
    "qwen3": {"max_window_layers": 28, "sliding_window": 4096, "head_dim": 128},
    "gemma3_text": GEMMA_DEFAULTS,
}

# Keys that change the arithmetic, and the values that leave it as it is here.
NEUTRAL = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "partial_rotary_factor": (None, 1),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (None, False),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "no_rope_layers": (None, []),
    "q_lora_rank": (None,),
    "kv_lora_rank": (None,),
    "quantization_config": (None,),
}


def refuse(key, value):
    raise ValueError(f"config.json: {key}: {value!r} is not supported")


def text_config(config):
    """The part of config.json that is about text, with the family's defaults filled in."""
    kind = config.get("model_type")
    if kind in WRAPPERS:
        kind, config = WRAPPERS[kind], config.get("text_config") or {}
        if config.get("model_type", kind) != kind:
            refuse("text_config.model_type", config["model_type"])
    if kind not in FAMILIES:
        refuse("model_type", kind)
    defaults = {**DEFAULTS, **FAMILY_DEFAULTS.get(kind, {}), "model_type": kind}
    # null means: not said, except for a window, where it means none.
    stated = {k: v for k, v in config.items() if v is not None or k == "sliding_window"}
    return {**defaults, **stated}


class Rope:
    """One rotary embedding. `parameters`: as rope_scaling (v4) or rope_parameters (v5) has them."""

    NUMBERS = {
        "default": (),
        "linear": ("factor",),
        "llama3": (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        ),
    }

    def __init__(self, key, parameters, theta):
        parameters = parameters or {"rope_type": "default"}
        self.type = parameters.get("rope_type", parameters.get("type"))
        if self.type not in self.NUMBERS or parameters.get("partial_rotary_factor", 1) != 1:
            refuse(key, parameters)
        missing = [name for name in self.NUMBERS[self.type] if name not in parameters]
        if missing:
            raise ValueError(f"config.json: {key}: {missing[0]} is missing")
        self.theta = float(parameters.get("rope_theta", theta))
        self.numbers = {name: float(parameters[name]) for name in self.NUMBERS[self.type]}

    def inverse_frequencies(self, D):
        """f32 [D/2], theta^(-2i/D), slowed as the type says; f32 operations as HF orders them."""
        exponent = np.arange(0, D, 2, dtype=np.float32) / np.float32(D)
        power = np.float64(self.theta) ** exponent.astype(np.float64)
        frequency = np.float32(1) / power.astype(np.float32)
        if self.type == "default":
            return frequency
        factor, *rest = (np.float32(value) for value in self.numbers.values())
        if self.type == "linear":
            return frequency / factor
        # llama3: what turns less than `low` times within the trained context is slowed, what turns
        # more than `high` times is kept, and between the two it is blended.
        low, high, original = rest
        wavelength = np.float32(2 * math.pi) / frequency
        smooth = (original / wavelength - low) / (high - low)
        blended = (1 - smooth) * frequency / factor + smooth * frequency
        blended = np.where(wavelength > original / low, frequency / factor, blended)
        return np.where(wavelength < original / high, frequency, blended)


class Architecture:
    """The switches of one model. Hq, Hkv, D: query heads, KV heads, head dimension."""

    def __init__(self, config):
        self.config = config = text_config(config)
        family = FAMILIES[config["model_type"]]
        for key, neutral in NEUTRAL.items():
            if config.get(key) not in neutral:
                refuse(key, config[key])
        self.arch = family["arch"]
        act_key, self.act = family.get("act_key", "hidden_act"), family.get("act", "silu")
        if config.get(act_key, self.act) != self.act:
            refuse(act_key, config[act_key])
        self.n_layers, self.hidden = self.number("num_hidden_layers"), self.number("hidden_size")
        self.vocab, self.Hq = self.number("vocab_size"), self.number("num_attention_heads")
        self.Hkv = config.get("num_key_value_heads") or self.Hq
        self.D = config.get("head_dim") or self.hidden // self.Hq
        if self.Hq % self.Hkv or self.D % 2:
            raise ValueError(
                f"config.json: {self.Hq} query heads, {self.Hkv} KV heads, head_dim {self.D}"
            )
        self.eps, self.tied = config["rms_norm_eps"], config["tie_word_embeddings"]
        self.qkv_bias, self.qk_norm = family.get("qkv_bias", False), family.get("qk_norm", False)
        self.plus_one = family.get("plus_one", False)  # norms multiply by 1 + weight
        self.post_norms = family.get("post_norms", False)  # norms before the residual is added too
        is_gemma = self.arch == "gemma3"
        self.embed_scale = math.sqrt(self.hidden) if is_gemma else 1.0
        # The number a trace states, so that its readers scale by the very same one.
        dot = config["query_pre_attn_scalar"] if is_gemma else self.D
        self.scale = float("%.9g" % dot**-0.5)
        self.read_windows(family.get("slides"))
        self.read_ropes(is_gemma)

    def number(self, key):
        if key not in self.config:
            raise ValueError(f"config.json: {key} is missing")
        return self.config[key]

    def read_windows(self, rule):
        """slides [n_layers]: which layers see the last `window` positions only."""
        config, window = self.config, self.config.get("sliding_window")
        if rule is None and window is not None:
            refuse("sliding_window", window)
        if rule == "use_sliding_window" and not config.get("use_sliding_window"):
            window = None
        layers = range(self.n_layers)
        if rule == "all":
            slides = [window is not None] * self.n_layers
        elif rule == "pattern":  # each n-th layer is full
            every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
            slides = [(layer + 1) % every != 0 for layer in layers]
        elif window is not None:
            slides = [layer >= config["max_window_layers"] for layer in layers]
        else:
            slides = [False] * self.n_layers
        words = config.get("layer_types")
        if words is not None:
            known = {"full_attention": False, "sliding_attention": True}
            if len(words) != self.n_layers or not set(words) <= set(known):
                refuse("layer_types", words)
            stated = [known[word] for word in words]
            # Llama and Mistral do not read the key: where it differs it is another model.
            if rule in (None, "all") and stated != slides:
                refuse("layer_types", words)
            slides = stated
        if any(slides) and not (isinstance(window, int) and window >= 1):
            refuse("sliding_window", window)
        self.slides, self.window = slides, window if any(slides) else 0

    def read_ropes(self, is_gemma):
        """rope of the full layers, rope_local of those that slide; Gemma's differ."""
        config = self.config
        parameters, key = config.get("rope_parameters"), "rope_parameters"
        if parameters is None:
            parameters, key = config.get("rope_scaling"), "rope_scaling"
        if not is_gemma:
            self.rope = self.rope_local = Rope(key, parameters, config["rope_theta"])
            return
        local = None
        if key == "rope_parameters":
            if not {"full_attention", "sliding_attention"} <= set(parameters):
                refuse(key, parameters)
            local, parameters = parameters["sliding_attention"], parameters["full_attention"]
        self.rope = Rope(key, parameters, config["rope_theta"])
        self.rope_local = Rope(key, local, config["rope_local_base_freq"])

    def weight_names(self):
        """All that the forward pass reads."""
        inner = ["input_layernorm", "post_attention_layernorm"]
        inner += ["self_attn." + name for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        inner += ["mlp." + name for name in ("gate_proj", "up_proj", "down_proj")]
        if self.qk_norm:
            inner += ["self_attn.q_norm", "self_attn.k_norm"]
        if self.post_norms:
            inner += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        inner = [name + ".weight" for name in inner]
        if self.qkv_bias:
            inner += [f"self_attn.{name}_proj.bias" for name in "qkv"]
        names = [f"model.layers.{layer}.{name}" for layer in range(self.n_layers) for name in inner]
        names += ["model.embed_tokens.weight", "model.norm.weight"]
        return names if self.tied else [*names, "lm_head.weight"]

    def check_weights(self, names):
        """Nothing missing, nothing over: a bias that is there and not added is a wrong model."""
        expected, names = set(self.weight_names()), set(names)
        if expected - names:
            raise ValueError(f"weights: {min(expected - names)} is missing")
        over = {name for name in names - expected if not name.endswith("rotary_emb.inv_freq")}
        over -= {"lm_head.weight"}  # some files hold the embedding twice
        if over:
            raise ValueError(f"weights: {min(over)} is not part of a {self.arch} model")


def load_weights(directory):
    """{name: f32 array} of model.safetensors, or of the shards that its index names."""
    index = os.path.join(directory, "model.safetensors.index.json")
    names_by_file = {"model.safetensors": None}
    if not os.path.exists(os.path.join(directory, "model.safetensors")) and os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            weight_map = json.load(file)["weight_map"]
        names_by_file = {file: [] for file in sorted(set(weight_map.values()))}
        for name, file in weight_map.items():
            names_by_file[file].append(name)
    weights = {}
    for file, names in names_by_file.items():
        reader = safetensors_io.Reader(os.path.join(directory, file))
        for name in reader.names() if names is None else names:
            if name in reader.names() and reader.dtype(name) not in ("F32", "F16", "BF16"):
                raise ValueError(f"{reader.path}: {name}: {reader.dtype(name)}")
            weights[name] = reader.f32(name) if name in reader.names() else reader.raw(name)
    return weights
