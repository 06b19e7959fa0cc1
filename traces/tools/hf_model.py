# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face causal LM whose attention goes through a hook of ours: transformers 4.48 to 5.x.

transformers looks the attention function up by name. Under the name NAME stands a function that
hands query, key and value (after norm, rotation and the cache, before heads are repeated) to a
listener and leaves the arithmetic to sdpa. The mask is looked up by name too, since 4.53: without
an entry of that name no mask is made, and the prompt's tokens would see each other's future without
a word of warning. So both are registered, always.

A listener has `attend(call)`, which returns what attention gives, and may ask `call.dense()` for
it. One model at a time; batch 1, no padding, no static cache, no compilation.
"""

import hashlib
import inspect
import json
import os
import sys

import torch
import transformers

import hf_config
import safetensors_io

NAME = "rattn_hook"
TORCH_TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
LISTENER = [None]


class Call:
    """One attention call of one layer: query [Hq, Tq, D], key, value [Hkv, Tk, D], batch taken off.

    Tk is Tq and what the cache holds: all positions so far, or in window layers as many as their
    cache kept. In either case the last Tq rows are new, whichever class the cache has.
    """

    def __init__(self, module, query, key, value, mask, options):
        self.module, self.mask, self.options = module, mask, options
        self.layer = module.layer_idx
        self.whole = query, key, value
        self.query, self.key, self.value = query[0], key[0], value[0]
        self.new = query.shape[2]

    def round(self, dtype):
        """From here on attention sees what `dtype` can hold."""
        self.whole = tuple(x.to(dtype).to(x.dtype) for x in self.whole)
        self.query, self.key, self.value = (x[0] for x in self.whole)

    def dense(self):
        """(output [1, Tq, Hq, Dv], weights or None) as the model would have had it."""
        return sdpa()(self.module, *self.whole, self.mask, **self.options)

    def sparse(self, key, value, mask=None):
        """The same for one query and other rows: key, value [Hkv, n, ·], mask [Hq, n] or None."""
        mask = None if mask is None else mask[None, :, None, :]
        return sdpa()(self.module, self.whole[0], key[None], value[None], mask, **self.options)

    def scale(self):
        given = self.options.get("scaling")
        return float(given if given is not None else self.query.shape[2] ** -0.5)


def sdpa():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward


def is_text_layer(module, text):
    """Vision towers share the attention name; their layers are none of the language model's."""
    config = getattr(module, "config", text)
    return getattr(module, "layer_idx", None) is not None and (
        config is text or getattr(config, "model_type", None) == getattr(text, "model_type", None)
    )


def hook(module, query, key, value, attention_mask=None, **options):
    listener = LISTENER[0]
    if listener is None or not is_text_layer(module, listener.text):
        return sdpa()(module, query, key, value, attention_mask, **options)
    if query.shape[0] != 1:
        raise ValueError(f"layer {module.layer_idx}: expected batch 1, got {query.shape[0]}")
    return listener.attend(Call(module, query, key, value, attention_mask, options))


def install():
    """Both hooks, as this transformers wants them. Returns how, for the record."""
    from transformers import modeling_utils

    how = "attention"
    try:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, hook)
    except ImportError:  # 4.48 to 4.50: a plain dict
        if not hasattr(modeling_utils, "ALL_ATTENTION_FUNCTIONS"):
            raise ValueError(
                f"transformers {transformers.__version__}: expected 4.48 or newer, whose attention "
                "functions can be registered"
            ) from None
        modeling_utils.ALL_ATTENTION_FUNCTIONS[NAME] = hook
        how = "attention (dict)"
    try:
        from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    except ImportError:  # before 4.53 a model makes its own mask, for any name
        return how
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return how + ", mask"


def dtype_name(dtype):
    for name, known in TORCH_TYPES.items():
        if dtype == known:
            return name
    raise ValueError(f"the model computes in {dtype}: expected bfloat16, float16 or float32")


class Model:
    """A loaded model and its cache. tokens go in, the last one's logits come out."""

    def __init__(self, name, dtype="auto", device="cpu", revision=None):
        self.name, self.hooks = name, install()
        kind = "auto" if dtype == "auto" else TORCH_TYPES[dtype]
        newer = version() >= (4, 56)
        options = {"dtype" if newer else "torch_dtype": kind, "attn_implementation": NAME}
        if device == "auto":
            options["device_map"] = "auto"
        if revision:
            options["revision"] = revision
        self.model = transformers.AutoModelForCausalLM.from_pretrained(name, **options)
        if device != "auto":
            self.model = self.model.to(device)
        self.model.eval()
        self.adopt()

    def adopt(self):
        """What is asked of the configuration and of the signature of forward()."""
        whole = self.model.config
        self.text = whole.get_text_config() if hasattr(whole, "get_text_config") else whole
        used = getattr(self.text, "_attn_implementation", NAME)
        if used != NAME:
            raise ValueError(
                f"{self.name}: this model's attention cannot be hooked: it goes on with {used!r}"
            )
        self.whole_config, self.config = whole.to_dict(), self.text.to_dict()
        hf_config.check(self.config)
        self.n_layers = self.config["num_hidden_layers"]
        self.layer_types = hf_config.layer_types(self.config, self.n_layers)
        self.rope = hf_config.rope_metadata(self.config)
        self.dtype = dtype_name(self.model.dtype)
        known = inspect.signature(self.model.forward).parameters
        self.cache_key = "cache" if "cache" in known else "past_key_values"
        self.keep_key = next(
            (k for k in ("logits_to_keep", "num_logits_to_keep") if k in known), None
        )
        self.cache, self.length = None, 0

    @property
    def device(self):
        return self.model.device

    def device_name(self):
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return str(self.device)

    def listen(self, listener):
        LISTENER[0] = listener
        if listener is not None:
            listener.text = self.text

    def reset(self):
        self.cache, self.length = None, 0

    @torch.no_grad()
    def forward(self, ids, **inputs):
        """[vocab] logits after the last of `ids`, which follow what was there before."""
        options = {**inputs, self.cache_key: self.cache, "use_cache": True}
        if self.keep_key:
            options[self.keep_key] = 1
        rows = torch.tensor([[int(i) for i in ids]], device=self.device)
        out = self.model(input_ids=rows, **options)
        self.cache = getattr(out, "cache", None)
        if self.cache is None:
            self.cache = out.past_key_values
        self.length += len(ids)
        return out.logits[0, -1]

    def prefill(self, ids, chunk, progress=lambda done: None):
        """Logits of the last token; `chunk` tokens at a time (0: all at once)."""
        self.reset()
        chunk = chunk or len(ids)
        for begin in range(0, len(ids), chunk):
            logits = self.forward(ids[begin : begin + chunk])
            progress(min(begin + chunk, len(ids)))
        return logits

    def file(self, name):
        """Path of a file of the model, where it is a local folder; None elsewhere."""
        path = os.path.join(self.name, name)
        return path if os.path.isfile(path) else None

    def provenance(self):
        """What identifies the model, as far as it can be told."""
        about = {}
        if self.file("provenance.json"):
            with open(self.file("provenance.json"), encoding="utf-8") as file:
                about = json.load(file)
        canonical = json.dumps(self.whole_config, sort_keys=True, default=str).encode()
        path = self.file("config.json")
        revision = getattr(self.model.config, "_commit_hash", None)
        tokenizer = self.file("tokenizer.json")
        return {
            "model.id": about.get("model.id", self.name),
            "model.revision": about.get("model.revision", revision or ""),
            "model.sha256": about.get("model.sha256", ""),
            "model.quant": about.get("model.quant", quantization(self.whole_config)),
            "config.sha256": safetensors_io.file_sha256(path) if path
            else hashlib.sha256(canonical).hexdigest(),
            "tokenizer.sha256": safetensors_io.file_sha256(tokenizer) if tokenizer else "",
            "license": about.get("license", "unknown"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }  # fmt: skip


def quantization(config):
    method = (config.get("quantization_config") or {}).get("quant_method", "none")
    return str(getattr(method, "value", method))


def version():
    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


def log_softmax(logits):
    """In f64: what is stored and compared is not the last digit of the model's own type."""
    return torch.log_softmax(logits.to(torch.float64), -1)


def read_ids(path, model):
    """(ids, metadata) of an ids file; refuses those of another tokenizer."""
    reader = safetensors_io.Reader(path)
    kind = reader.metadata.get("format")
    if kind != "rattn-tokens":
        raise ValueError(f"{path}: format: expected rattn-tokens, got {kind}")
    expected = model.provenance()["tokenizer.sha256"]
    given = reader.metadata.get("tokenizer.sha256", "")
    if expected and given and expected != given:
        raise ValueError(f"{path}: made with another tokenizer than that of {model.name}")
    return check_ids(path, reader.raw("tokens"), model), reader.metadata


def check_ids(path, ids, model):
    vocab = model.config["vocab_size"]
    for at, value in enumerate(ids):
        if not 0 <= value < vocab:
            raise ValueError(f"{path}: tokens[{at}] = {value}: expected 0..{vocab - 1}")
    return ids


class Progress:
    """One line on a terminal, nothing in a pipe."""

    def __init__(self, what, total):
        self.what, self.total = what, total

    def __call__(self, done):
        if sys.stderr.isatty():
            end = "\n" * (done == self.total)
            print(f"\r{self.what} {done}/{self.total} ", end=end, file=sys.stderr, flush=True)
