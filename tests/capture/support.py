# SPDX-License-Identifier: Apache-2.0
"""What the tests of the torch tools share: where things are, counting, tiny models.

With real torch in this Python, tests run on it; otherwise on the stand-ins of tests/capture/fake.
"""

import importlib.util
import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(TOP, "traces", "tools")
RATTN_SIM = os.environ.get("RATTN_SIM", os.path.join(TOP, "build", "rattn-sim"))
FAKE = os.path.join(HERE, "fake")
IS_REAL = importlib.util.find_spec("torch") is not None and "FAKE_TRANSFORMERS" not in os.environ
sys.path[:0] = [TOOLS, os.path.join(TOP, "tests", "reference"), os.path.join(TOP, "tests", "audit")]
if not IS_REAL:
    sys.path.insert(0, FAKE)

import safetensors_io  # noqa: E402

results, skipped = [], []


def check(what, holds, figures=""):
    results.append(bool(holds))
    print(("ok    " if holds else "FAIL  ") + what + (f": {figures}" if str(figures) else ""))


def skip(what, why):
    skipped.append(what)
    print(f"skip  {what}: {why}")


def refuses(what, call, *expected):
    """`call` must raise and say all of `expected`."""
    try:
        call()
    except (ValueError, SystemExit) as error:
        check(f"refuses {what}", all(part in str(error) for part in expected), error)
    else:
        check(f"refuses {what}", False, "it did not")


def finish():
    more = f", {len(skipped)} skipped" if skipped else ""
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed{more}")
    return 0 if all(results) and results else 1


def write_model(folder, config, weights):
    os.makedirs(folder, exist_ok=True)
    tensors = [(name, "F32", np.ascontiguousarray(value, "<f4")) for name, value in weights.items()]
    safetensors_io.write(os.path.join(folder, "model.safetensors"), tensors, {"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out)


def write_ids(path, ids, **metadata):
    tensors = [("tokens", "I32", np.asarray(ids, np.int32))]
    safetensors_io.write(path, tensors, {"format": "rattn-tokens", "version": "1.0",
                         "source": "dice", "license": "none", **metadata})  # fmt: skip


FAMILIES = {
    "llama": ("LlamaForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False, "sliding_window": 200,
                                   "max_window_layers": 1}),
    "qwen3": ("Qwen3ForCausalLM", {"use_sliding_window": False, "sliding_window": None,
                                   "attention_bias": False, "max_window_layers": 1}),
    "gemma3_text": ("Gemma3ForCausalLM", {
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 12,
        "sliding_window": 6, "sliding_window_pattern": 3, "rope_local_base_freq": 1000.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": True}),
}  # fmt: skip


def tiny_llama(seed=1, layers=3, **more):
    return tiny("llama", seed, layers, **more)


def tiny(family, seed=1, layers=3, **more):
    """Configuration and weights; group of 2, H*D unlike the width, peaked attention."""
    rng = np.random.default_rng(seed)
    Hq, Hkv, D, width, ffn, vocab = 4, 2, 8, 24, 33, 61
    name, own = FAMILIES[family]
    config = {
        "architectures": [name], "model_type": family, "hidden_act": "silu",
        "hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": Hq, "num_key_value_heads": Hkv, "head_dim": D, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 256, "torch_dtype": "float32", **own, **more,
    }  # fmt: skip
    if family == "qwen2":  # whose head dimension is no key of its own
        config["hidden_size"] = width = Hq * D
    if family == "gemma3_text":
        del config["hidden_act"]
    parts = [
        ("input_layernorm", (width,)), ("self_attn.q_proj", (Hq * D, width)),
        ("self_attn.k_proj", (Hkv * D, width)), ("self_attn.v_proj", (Hkv * D, width)),
        ("self_attn.o_proj", (width, Hq * D)), ("post_attention_layernorm", (width,)),
        ("mlp.gate_proj", (ffn, width)), ("mlp.up_proj", (ffn, width)),
        ("mlp.down_proj", (width, ffn)),
    ]  # fmt: skip
    if family in ("qwen3", "gemma3_text"):
        parts += [("self_attn.q_norm", (D,)), ("self_attn.k_norm", (D,))]
    if family == "gemma3_text":
        parts += [(f"{at}_feedforward_layernorm", (width,)) for at in ("pre", "post")]
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    for l in range(layers):
        shapes |= {f"model.layers.{l}.{part}.weight": shape for part, shape in parts}
        if family == "qwen2":
            shapes |= {f"model.layers.{l}.self_attn.{n}_proj.bias": (rows * D,)
                       for n, rows in (("q", Hq), ("k", Hkv), ("v", Hkv))}  # fmt: skip
    weights = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape)
        one = 0 if family == "gemma3_text" or name.endswith("bias") else 1  # gemma stores w - 1
        x = one + 0.2 * x if len(shape) == 1 else x * 1.7 / np.sqrt(shape[1])
        weights[name] = x.astype("f4")
    return config, weights
