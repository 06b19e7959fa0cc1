#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tiny random models of every family in Hugging Face's format, and ids to feed them.

OUT_DIR/NAME/ gets config.json and the weights, OUT_DIR/NAME.ids.safetensors random token ids. Sizes
are odd on purpose: one KV head, as many as query heads, groups of three, a head_dim that is not
hidden / heads. The weights are scaled so that attention is peaked and logits differ by several
units. The same name gives the same bytes.
"""

import argparse
import hashlib
import json
import os

import numpy as np

import safetensors_io

HIDDEN, FFN, VOCAB, N_IDS = 48, 80, 97, 1000
GAIN = 1.7  # rows of a matrix turn a vector of unit elements into elements of this size

LLAMA = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5}
LLAMA |= {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "mlp_bias": False}
MISTRAL = {"model_type": "mistral", "hidden_act": "silu", "rms_norm_eps": 1e-5}
QWEN2 = {"model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6}
QWEN2 |= {"use_sliding_window": False, "sliding_window": 32, "max_window_layers": 1}
QWEN3 = {"model_type": "qwen3", "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6}
QWEN3 |= {"attention_bias": False, "use_sliding_window": False, "sliding_window": None}
GEMMA3 = {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh"}
GEMMA3 |= {"rms_norm_eps": 1e-6, "query_pre_attn_scalar": 20, "attention_bias": False}
GEMMA3 |= {"attn_logit_softcapping": None, "final_logit_softcapping": None}


def sizes(n_layers, Hq, Hkv, D=None):
    out = {"num_hidden_layers": n_layers, "num_attention_heads": Hq, "num_key_value_heads": Hkv}
    out |= {"hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": VOCAB}
    out |= {"max_position_embeddings": 2048, "eos_token_id": 2, "bos_token_id": 1}
    return out if D is None else {**out, "head_dim": D}


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SLIDING_OF_FOUR = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
GEMMA3_V5 = {
    **GEMMA3,
    **sizes(4, 6, 2, 8),
    "dtype": "float32",
    "tie_word_embeddings": True,
    "sliding_window": 24,
    "layer_types": SLIDING_OF_FOUR,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
}

# name: config, stored type of the weights, files
MODELS = {
    "llama": (
        {**LLAMA, **sizes(2, 6, 2, 8), "rope_theta": 500.0, "torch_dtype": "float32"},
        "F32",
        1,
    ),
    "llama-linear": (
        {
            **LLAMA,
            **sizes(3, 3, 3),  # head_dim is hidden / heads = 16
            "tie_word_embeddings": True,
            "rope_theta": 1e4,
            "rope_scaling": {"type": "linear", "factor": 2.5},
            "eos_token_id": [2, 3],
        },
        "F32",
        1,
    ),
    "llama-llama3": (
        {**LLAMA, **sizes(2, 4, 1, 32), "rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE},
        "F32",
        1,
    ),
    "llama-v5": (
        {
            **LLAMA,
            **sizes(2, 4, 2, 16),
            "dtype": "float32",
            "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 1e4},
        },
        "F32",
        1,
    ),
    "mistral": (
        {**MISTRAL, **sizes(2, 3, 1, 32), "rope_theta": 1e6, "sliding_window": None},
        "F16",
        1,
    ),
    "mistral-window": (
        {**MISTRAL, **sizes(2, 6, 2, 16), "rope_theta": 1e4, "sliding_window": 20},
        "F32",
        1,
    ),
    "qwen2": ({**QWEN2, **sizes(2, 6, 2), "tie_word_embeddings": True}, "F32", 1),
    "qwen2-shards": (
        {**QWEN2, **sizes(3, 6, 3), "tie_word_embeddings": False, "torch_dtype": "bfloat16"},
        "BF16",
        3,
    ),
    "qwen3": ({**QWEN3, **sizes(2, 3, 3, 32), "tie_word_embeddings": False}, "F32", 1),
    "gemma3": (
        {
            **GEMMA3,
            **sizes(4, 4, 1, 32),
            "rope_theta": 1e5,
            "rope_local_base_freq": 100.0,
            "sliding_window": 20,
            "sliding_window_pattern": 3,  # layer 2 is full, 0, 1, 3 slide
        },
        "F32",
        1,
    ),
    "gemma3-v5": (GEMMA3_V5, "F32", 1),
    "gemma3-nested": (
        {"model_type": "gemma3", "text_config": {**GEMMA3_V5, "sliding_window": 40}},
        "F32",
        1,
    ),
}


def weight_shapes(config):
    """{name: shape} of a model's tensors, written out; nothing here is shared with the decoder."""
    kind, D = config["model_type"], config.get("head_dim")
    Hq, Hkv = config["num_attention_heads"], config["num_key_value_heads"]
    D = D or HIDDEN // Hq
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not config.get("tie_word_embeddings", kind == "gemma3_text"):
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    inner = {
        "input_layernorm.weight": (HIDDEN,),
        "self_attn.q_proj.weight": (Hq * D, HIDDEN),
        "self_attn.k_proj.weight": (Hkv * D, HIDDEN),
        "self_attn.v_proj.weight": (Hkv * D, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, Hq * D),
        "post_attention_layernorm.weight": (HIDDEN,),
        "mlp.gate_proj.weight": (FFN, HIDDEN),
        "mlp.up_proj.weight": (FFN, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, FFN),
    }
    if kind == "qwen2":
        for name, heads in (("q", Hq), ("k", Hkv), ("v", Hkv)):
            inner[f"self_attn.{name}_proj.bias"] = (heads * D,)
    if kind in ("qwen3", "gemma3_text"):
        inner |= {"self_attn.q_norm.weight": (D,), "self_attn.k_norm.weight": (D,)}
    if kind == "gemma3_text":
        inner["pre_feedforward_layernorm.weight"] = (HIDDEN,)
        inner["post_feedforward_layernorm.weight"] = (HIDDEN,)
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in inner.items()}
    return shapes


def draw(rng, name, shape, plus_one):
    values = rng.standard_normal(shape)
    if name.endswith(".bias"):
        return 0.5 * values
    if len(shape) == 1:
        # Attention of models that norm q and k is as peaked as that norm's weights make it.
        middle = 1.6 if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
        return middle - plus_one + 0.2 * values
    gain = 3.0 if name in ("model.embed_tokens.weight", "lm_head.weight") else GAIN
    return values * gain / np.sqrt(shape[1])


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def weights_of(name):
    """(config, {tensor: f32 array}): exactly what the files hold, rounded to their type."""
    config, dtype, _ = MODELS[name]
    text, rng, weights = config.get("text_config", config), np.random.default_rng(seed_of(name)), {}
    plus_one = text["model_type"] == "gemma3_text"
    for tensor, shape in weight_shapes(text).items():
        values = draw(rng, tensor, shape, plus_one)
        weights[tensor] = safetensors_io.decode(safetensors_io.encode(values, dtype), dtype)
    return config, weights


def ids_of(name):
    return np.random.default_rng(seed_of(name) + 1).integers(0, VOCAB, N_IDS).astype(np.int32)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.write("\n")


def write_weights(directory, weights, dtype, n_files):
    files = ["model.safetensors"]
    if n_files > 1:
        files = [f"model-{i + 1:05}-of-{n_files:05}.safetensors" for i in range(n_files)]
    stored = [(name, dtype, safetensors_io.encode(w, dtype)) for name, w in weights.items()]
    for i, file in enumerate(files):  # dealt like cards, so that each layer lies in all files
        path = os.path.join(directory, file)
        safetensors_io.write(path, stored[i::n_files], {"format": "pt"})
    if n_files > 1:
        total = sum(array.nbytes for _, _, array in stored)
        weight_map = {name: files[i % n_files] for i, (name, _, _) in enumerate(stored)}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(os.path.join(directory, "model.safetensors.index.json"), index)


def make(out_dir, name):
    directory = os.path.join(out_dir, name)
    os.makedirs(directory, exist_ok=True)
    config, weights = weights_of(name)
    _, dtype, n_files = MODELS[name]
    write_json(os.path.join(directory, "config.json"), config)
    write_weights(directory, weights, dtype, n_files)
    ids, metadata = ids_of(name), {"format": "rattn-tokens", "version": "1.0"}
    metadata |= {"source": f"tiny_models.py {name}", "license": "none needed: random"}
    metadata["source_sha256"] = hashlib.sha256(ids.tobytes()).hexdigest()
    if name == "llama":  # as prepare_model.py leaves a directory; the others are as downloaded
        metadata["tokenizer.sha256"] = hashlib.sha256(b"tiny").hexdigest()
        provenance = {"model.id": "tiny-llama", "model.revision": "1", "model.quant": "none"}
        provenance |= {"license": "none needed: random", "model.sha256": "0" * 64}
        provenance["tokenizer.sha256"] = metadata["tokenizer.sha256"]
        write_json(os.path.join(directory, "provenance.json"), provenance)
    path = os.path.join(out_dir, name + ".ids.safetensors")
    safetensors_io.write(path, [("tokens", "I32", ids)], metadata)


def main():
    parser = argparse.ArgumentParser(description="make tiny random models of every family")
    parser.add_argument("out_dir", help="folder that gets NAME/ and NAME.ids.safetensors")
    parser.add_argument("names", nargs="*", default=[], help=f"of {', '.join(MODELS)}; all if none")
    args = parser.parse_args()
    for name in args.names or MODELS:
        if name not in MODELS:
            parser.error(f"{name}: expected one of {', '.join(MODELS)}")
        make(args.out_dir, name)
    print(f"{args.out_dir}: {len(args.names or MODELS)} models")


if __name__ == "__main__":
    main()
