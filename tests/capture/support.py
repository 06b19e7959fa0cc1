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
    safetensors_io.write(path, tensors, {"source": "dice", "license": "none", **metadata})


def tiny_llama(seed=1, layers=3, **more):
    """Configuration and weights; group of 2, H*D unlike the width, peaked attention."""
    rng = np.random.default_rng(seed)
    Hq, Hkv, D, width, ffn, vocab = 4, 2, 8, 24, 33, 61
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": Hq, "num_key_value_heads": Hkv, "head_dim": D, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 256, "torch_dtype": "float32", **more,
    }  # fmt: skip
    shapes = {"model.embed_tokens": (vocab, width), "model.norm": (width,), "lm_head": (vocab, width)}
    for l in range(layers):
        shapes |= {
            f"model.layers.{l}.{name}": shape
            for name, shape in (
                ("input_layernorm", (width,)), ("self_attn.q_proj", (Hq * D, width)),
                ("self_attn.k_proj", (Hkv * D, width)), ("self_attn.v_proj", (Hkv * D, width)),
                ("self_attn.o_proj", (width, Hq * D)), ("post_attention_layernorm", (width,)),
                ("mlp.gate_proj", (ffn, width)), ("mlp.up_proj", (ffn, width)),
                ("mlp.down_proj", (width, ffn)),
            )
        }  # fmt: skip
    weights = {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape)
        x = 1 + 0.2 * x if len(shape) == 1 else x * 1.7 / np.sqrt(shape[1])
        weights[name + ".weight"] = x.astype("f4")
    return config, weights
