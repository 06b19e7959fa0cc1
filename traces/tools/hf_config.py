# SPDX-License-Identifier: Apache-2.0
"""What a trace says about a Hugging Face model, read from its configuration alone: no torch here.

Spellings changed between transformers 4 and 5 (rope_theta and rope_scaling became rope_parameters,
sliding_window_pattern became layer_types): both are read. What `rattn-trace` 1.0 cannot express is
refused by the name of the key.
"""

import model_families

# Models that turn neighbouring elements; in a trace an element turns with the one D/2 further on.
INTERLEAVED = ("cohere", "cohere2", "glm", "glm4", "gptj", "codegen", "llama4_text", "ernie4_5")
LAYER_TYPES = {"full_attention": "full", "sliding_attention": "sliding"}
IMAGE_KEYS = ("image_token_id", "image_token_index", "image_token")


def text_config(config):
    """The part of a configuration (a dict) that describes the language model."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), dict):
            return config[key]
    return config


def check(config):
    """Refuse what a trace cannot hold. `config` is that of the language model."""
    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise ValueError("config.json: is_encoder_decoder: expected a decoder-only model")
    if config.get("attn_logit_softcapping"):
        raise ValueError(
            "config.json: attn_logit_softcapping: %r; a trace has no logit softcap"
            % config["attn_logit_softcapping"]
        )
    if kind in INTERLEAVED:
        raise ValueError(f"config.json: model_type: {kind} has the interleaved rotary layout")
    if kind in ("gpt_oss",):
        raise ValueError(f"config.json: model_type: {kind} has learned attention sinks")


def layer_types(config, n_layers):
    """full or sliding, for each layer of the model."""
    listed = config.get("layer_types")
    if listed:
        unknown = sorted(set(listed) - set(LAYER_TYPES))
        if unknown or len(listed) != n_layers:
            raise ValueError(
                "config.json: layer_types: expected %d of full_attention and sliding_attention, "
                "got %d, among them %s" % (n_layers, len(listed), unknown or sorted(set(listed)))
            )
        return [LAYER_TYPES[kind] for kind in listed]
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full"] * n_layers
    if isinstance(pattern, int):  # gemma3: every pattern-th layer sees everything
        return ["sliding" if (i + 1) % pattern else "full" for i in range(n_layers)]
    if config.get("use_sliding_window"):  # qwen2, qwen3: the upper layers slide
        first = config.get("max_window_layers", 0)
        return ["full" if i < first else "sliding" for i in range(n_layers)]
    return ["sliding"] * n_layers  # mistral


def rope_metadata(config):
    """rope.* of a trace: of the layers with full attention, as those follow schedules."""
    rope = dict(config.get("rope_parameters") or {})
    local = config.get("rope_local_base_freq")
    if "full_attention" in rope or "sliding_attention" in rope:
        nested = rope
        rope = dict(nested.get("full_attention") or {})
        local = (nested.get("sliding_attention") or {}).get("rope_theta", local)
    rope.update(config.get("rope_scaling") or {})
    theta = rope.get("rope_theta", config.get("rope_theta"))
    kind = rope.get("rope_type", rope.get("type", "default" if theta else "none"))
    if config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1)) not in (None, 1):
        kind = "partial"  # queries that cannot be turned back: a reader takes it as unknown
    if config.get("no_rope_layers") and not all(config["no_rope_layers"]):
        kind = "some-layers"
    values = {"rope.type": kind}
    if kind != "none" and theta:
        values.update({"rope.theta": "%.9g" % theta, "rope.layout": "half"})
    if local:
        values["rope.theta_local"] = "%.9g" % local
    for key, name in (
        ("factor", "factor"),
        ("low_freq_factor", "low_freq_factor"),
        ("high_freq_factor", "high_freq_factor"),
        ("original_max_position_embeddings", "original_max_position"),
    ):
        if kind not in ("default", "none") and rope.get(key):
            values["rope." + name] = "%.9g" % rope[key]
    return values


def can_turn_back(rope):
    return rope["rope.type"] in ("none", "default", "linear", "llama3")


def inverse_frequencies(D, rope):
    """[D/2] f32, as the models form them; `rope` is what rope_metadata() gave."""
    kind = rope["rope.type"]
    names = model_families.Rope.NUMBERS[kind]
    numbers = {name: float(rope["rope." + name.removesuffix("_embeddings")]) for name in names}
    parameters = {"rope_type": kind, **numbers}
    return model_families.Rope("rope", parameters, rope["rope.theta"]).inverse_frequencies(D)


def image_tokens(config):
    """Ids that stand for a piece of an image, as the whole configuration names them."""
    found = [config.get(key) for key in IMAGE_KEYS]
    return sorted({int(value) for value in found if isinstance(value, int)})
