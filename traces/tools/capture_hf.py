# SPDX-License-Identifier: Apache-2.0
"""Record an `rattn-trace` from a Hugging Face causal LM while it decodes under full attention.

For whoever has a GPU and a model: torch and transformers 4.48 to 5.x (docs/capturing.md). The model
runs as it is; hooks (hf_model.py) see the queries, keys and values of every layer. Of each call the
last Tq rows are new, whichever cache the model has and however the prompt is cut into chunks.

Rows go to disk as they come, one raw file per tensor beside the output, and are put together at the
end: memory does not grow with layers and tokens. A run that is interrupted leaves no trace, and no
spool, behind.
"""

import argparse
import os
import shutil
import signal
import sys
import time

import numpy as np
import torch

import hf_config
import hf_model
import hf_policies
import safetensors_io
import trace_recorder
from safetensors_io import NUMPY_TYPES, STORED_TYPES

TOOL_VERSION = "1.0"


class Spool:
    """Raw files of rows [n, H, D] as they come; gives them back head by head, [H, n, D]."""

    def __init__(self, folder):
        self.folder, self.files, self.known = folder, {}, {}
        os.makedirs(folder)

    def append(self, name, dtype, rows):
        """rows: [n, H, D], of the numpy type of `dtype`."""
        if name not in self.files:
            self.known[name] = dtype, rows.shape[1:]
            self.files[name] = open(os.path.join(self.folder, name), "wb", buffering=1 << 16)
        self.files[name].write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))

    def tensor(self, name):
        """(name, dtype, shape, blocks), for safetensors_io.write_blocks()."""
        self.files[name].close()
        dtype, (H, D) = self.known[name]
        rows = np.memmap(os.path.join(self.folder, name), NUMPY_TYPES[dtype], "r")
        rows = rows.reshape(-1, H, D)
        heads = (np.ascontiguousarray(rows[:, h]) for h in range(H))
        return name, dtype, (H, len(rows), D), heads

    def remove(self):
        for file in self.files.values():
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def host(tensor, dtype):
    """[H, n, D] on the device -> [n, H, D] bits of `dtype` in numpy."""
    rows = tensor.detach().permute(1, 0, 2).to(hf_model.TORCH_TYPES[dtype]).cpu().contiguous()
    return rows.view(torch.int16).numpy().view("<u2") if dtype == "bf16" else rows.numpy()


def check_finite(name, position, bits, dtype):
    values = safetensors_io.decode(bits, STORED_TYPES[dtype])
    if not np.isfinite(values).all():
        row = position + int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"{name}: position {row}: expected finite values in {dtype}")


class Capture:
    """The listener: keeps what a trace holds of the layers asked for."""

    def __init__(self, model, spec, spool):
        self.model, self.spec, self.spool = model, spec, spool
        self.P, self.N, self.W = spec.prompt_len, spec.decode_len, spec.q_tail
        self.layers, self.check_steps = spec.layer_ids, spec.steps
        self.begin = 0  # position of the first token of the pass in progress
        self.seen, self.shape, self.acc = set(), None, {}
        self.stored = None

    def start(self, begin):
        """A forward pass begins whose first token has position `begin`."""
        if begin and self.seen != set(range(self.model.n_layers)):
            missing = sorted(set(range(self.model.n_layers)) - self.seen)
            raise ValueError(f"layers {missing[:8]} did not pass through the attention hook")
        self.begin, self.seen = begin, set()

    def attend(self, call):
        if self.stored is None:
            self.stored = self.spec.cache_dtype or hf_model.dtype_name(call.query.dtype)
        if self.spec.round:
            call.round(hf_model.TORCH_TYPES[self.stored])
        output = call.dense()
        self.note(call)
        if call.layer in self.layers:
            self.keep(call, output[0])
        return output

    def note(self, call):
        """Every layer: is it what the configuration says, and of the shape of the others?"""
        layer = call.layer
        if layer in self.seen:
            raise ValueError(f"layer {layer}: its attention was called twice in one pass")
        self.seen.add(layer)
        Hq, _, D = call.query.shape
        shape = Hq, call.key.shape[0], D, call.value.shape[2], call.scale(), call.query.dtype
        if self.shape not in (None, shape):
            raise ValueError(
                "layer %d: expected Hq, Hkv, D, Dv, scale, dtype as before, %s, got %s"
                % (layer, self.shape, shape)
            )
        self.shape = shape
        if Hq % shape[1]:
            raise ValueError(f"layer {layer}: {Hq} query heads over {shape[1]} KV heads")
        if call.options.get("s_aux") is not None:
            raise ValueError(f"layer {layer}: learned attention sinks; a trace has none")
        slides = self.model.layer_types[layer] == "sliding"
        width = call.options.get("sliding_window")
        if width and not slides:
            raise ValueError(f"layer {layer}: full by config.json, but attends within {width}")
        rows, n = call.key.shape[1], call.new
        linear = self.begin + n
        kept = min(self.begin, self.model.config["sliding_window"] - 1) + n if slides else linear
        if rows not in (linear, kept):  # which of a static cache's rows are new cannot be told
            raise ValueError(
                f"layer {layer}: expected {kept} rows of keys from a cache that grows, got {rows}"
            )

    def keep(self, call, output):
        n, begin, name = call.new, self.begin, f"s0.l{call.layer}."
        first = self.P - self.W
        parts = [("k", call.key[:, -n:], begin), ("v", call.value[:, -n:], begin)]
        if begin + n > first:
            skip = max(0, first - begin)
            parts.append(("q", call.query[:, skip:], begin + skip))
        for part, rows, position in parts:
            bits = host(rows, self.stored)
            check_finite(name + part, position, bits, self.stored)
            self.spool.append(name + part, STORED_TYPES[self.stored], bits)
        if begin - self.P in self.check_steps:
            row = output[0, -1].to(torch.float32).cpu().numpy()  # [Hq, Dv]
            self.spool.append(name + "o", "F32", row[None])
        if self.spec.acc and begin < self.P and self.model.layer_types[call.layer] == "full":
            gained = hf_policies.received(call.query, call.key, call.scale())
            if call.layer not in self.acc:
                shape = gained.shape[0], self.P
                self.acc[call.layer] = torch.zeros(shape, dtype=torch.float64, device=gained.device)
            self.acc[call.layer][:, : gained.shape[1]] += gained

    def tensors(self, sequence):
        """(name, dtype, shape, blocks) in file order: large ones first, bytes last."""
        out = [self.spool.tensor(f"s0.l{l}.{part}") for l in self.layers for part in "kvq"]
        arrays = [(f"s0.l{l}.acc", "F32", a.cpu().numpy().astype("<f4"))
                  for l, a in sorted(self.acc.items())]  # fmt: skip
        if self.check_steps:
            out += [self.spool.tensor(f"s0.l{l}.o") for l in self.layers]
            arrays.append(("s0.check_steps", "I32", np.array(self.check_steps, np.int32)))
        arrays += sequence.arrays()
        arrays.sort(key=lambda entry: entry[1] == "U8")
        return out + [(name, dtype, a.shape, (a,)) for name, dtype, a in arrays]

    def rounded(self):
        """1 where check rows hold to 1e-5: attention saw what is stored, and computed in f32."""
        computed = hf_model.dtype_name(self.shape[5])
        return int(computed == "f32" and (self.stored == "f32" or self.spec.round))

    def metadata(self, source):
        Hq, Hkv, D, Dv, scale, dtype = self.shape
        model, about, types = self.model, self.model.provenance(), self.model.layer_types
        values = {
            "format": "rattn-trace",
            "version": "1.0",
            **{key: about[key] for key in about if key.startswith("model.")},
            "model.arch": model.config["model_type"],
            "config.sha256": about["config.sha256"],
            "n_layers": model.n_layers,
            "layers": trace_recorder.comma_list(self.layers),
            "n_q_heads": Hq,
            "n_kv_heads": Hkv,
            "head_dim": D,
            "v_head_dim": Dv,
            "hidden_size": model.config["hidden_size"],
            "vocab_size": model.config["vocab_size"],
            "attn_scale": "%.9g" % scale,
            "attn_softcap": 0,
            "attn_sinks": "none",
            "layer_types": trace_recorder.comma_list(types),
            **model.rope,
            "k.stage": "post_rope",
            "dtype.compute": hf_model.dtype_name(dtype),
            "dtype.cache": self.stored,
            "n_seq": 1,
            "s0.prompt_len": self.P,
            "s0.decode_len": self.N,
            "s0.q_tail": self.W,
            "s0.first_pos": 0,
            "s0.mode": self.spec.mode,
            "s0.policy": "full",
            "s0.task": "lm",
            "s0.source": source["source"],
            "s0.source_sha256": source["source_sha256"],
            "tokenizer.sha256": about["tokenizer.sha256"],
            "license": "model: %s; text: %s" % (about["license"], source["license"]),
            "capture.tool": "capture_hf.py",
            "capture.tool_version": TOOL_VERSION,
            "capture.attn_impl": "sdpa, hooked: " + model.hooks,
            "capture.device": model.device_name(),
            "capture.torch": about["torch"],
            "capture.transformers": about["transformers"],
            "capture.rounded": self.rounded(),
            "content.sha256": "",
        }
        if "sliding" in types:
            values["sliding_window"] = model.config["sliding_window"]
        if source.get("token_types"):
            values["token_types"] = source["token_types"]
        if not self.spec.reproducible:
            values["capture.time_utc"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {key: str(value) for key, value in values.items()}


class Sequence:
    """Token ids and what the model said of them; step t scores position P+t+1."""

    def __init__(self, ids, spec, images):
        self.P, self.N, self.k, self.images = spec.prompt_len, spec.decode_len, spec.top_k, images
        self.tokens = np.empty(self.P + self.N + 1, np.int32)
        n = len(self.tokens) if spec.mode == "teacher_forced" else self.P
        self.tokens[:n] = ids[:n]
        self.logprob = np.empty(self.N, np.float32)
        self.topk_id = np.empty((self.N, self.k), np.int32)
        self.topk_logprob = np.empty((self.N, self.k), np.float32)

    def score(self, t, logits):
        logprob = hf_model.log_softmax(logits)
        self.logprob[t] = float(logprob[int(self.tokens[self.P + t + 1])])
        if self.k:
            values, ids = torch.topk(logprob, self.k)
            self.topk_id[t], self.topk_logprob[t] = ids.cpu().numpy(), values.cpu().numpy()

    def arrays(self):
        out = [("s0.tokens", "I32", self.tokens), ("s0.logprob", "F32", self.logprob)]
        if self.k:
            out.append(("s0.topk_id", "I32", self.topk_id))
            out.append(("s0.topk_logprob", "F32", self.topk_logprob))
        if self.images:
            types = np.isin(self.tokens[:-1], self.images).astype(np.uint8)
            out.append(("s0.token_type", "U8", types))
        return out


def decode(model, capture, sequence, chunk):
    """The run itself: prefill in chunks, then one token at a time."""
    P, N, tokens, greedy = capture.P, capture.N, sequence.tokens, capture.spec.mode == "greedy"
    progress = hf_model.Progress("prefill", P)
    model.reset()
    for begin in range(0, P, chunk or P):
        end = min(begin + (chunk or P), P)
        capture.start(begin)
        logits = model.forward(tokens[begin:end])
        progress(end)
    progress = hf_model.Progress("decode", N)
    for t in range(N):
        if greedy and t == 0:
            tokens[P] = int(logits.argmax())
        capture.start(P + t)
        logits = model.forward(tokens[P + t : P + t + 1])
        if greedy:
            tokens[P + t + 1] = int(logits.argmax())
        sequence.score(t, logits)
        progress(t + 1)
    capture.start(P + N)  # was the last pass whole?


def record(model, ids, source, spec):
    """Decode and write spec.output. source: source, source_sha256, license of the text."""
    images = hf_config.image_tokens(model.whole_config)
    images = images if np.isin(ids, images).any() else []
    source = {**source, "token_types": "text,image" if images else ""}
    spool = Spool(f"{spec.output}.spool{os.getpid()}")
    try:
        capture, sequence = Capture(model, spec, spool), Sequence(ids, spec, images)
        model.listen(capture)
        decode(model, capture, sequence, spec.chunk)
        tensors = capture.tensors(sequence)
        safetensors_io.write_blocks(spec.output, tensors, capture.metadata(source))
    finally:
        model.listen(None)
        model.reset()
        spool.remove()
    return sequence


def read_source(model, spec):
    """(ids, where they come from) of --tokens or --text."""
    if spec.tokens:
        ids, about = hf_model.read_ids(spec.tokens, model)
        keys = ("source", "source_sha256", "license")
        return ids, {key: about.get(key, "" if "sha" in key else "unknown") for key in keys}
    with open(spec.text, encoding="utf-8") as file:
        text = file.read()
    tokenizer = hf_model.transformers.AutoTokenizer.from_pretrained(model.name)
    ids = hf_model.check_ids(spec.text, tokenizer(text)["input_ids"], model)
    digest = safetensors_io.file_sha256(spec.text)
    about = {"source": os.path.basename(spec.text), "source_sha256": digest, "license": "unknown"}
    return np.array(ids, np.int32), about


def check_spec(spec, model, n_ids):
    """Lengths, layers and steps that fit each other; fills in what has a default."""
    P, N = spec.prompt_len, spec.decode_len
    spec.q_tail = min(64, P) if spec.q_tail is None else spec.q_tail
    if P < 1 or N < 1 or not 1 <= spec.q_tail <= P:
        raise ValueError(f"P={P}, N={N}, W={spec.q_tail}: expected P, N >= 1 and 1 <= W <= P")
    need = P + N + 1 if spec.mode == "teacher_forced" else P
    if n_ids < need:
        raise ValueError(f"{spec.tokens or spec.text}: expected {need} tokens, got {n_ids}")
    most = model.config.get("max_position_embeddings") or P + N
    if P + N > most:
        raise ValueError(f"P + N = {P + N}: expected at most {most}, the model's positions")
    if not 0 <= spec.top_k <= model.config["vocab_size"]:
        raise ValueError(f"--top-k {spec.top_k}: expected 0..{model.config['vocab_size']}")
    spec.layer_ids = trace_recorder.parse_layers(spec.layers, model.n_layers)
    spec.steps = trace_recorder.parse_check_steps(spec.check_steps, N)
    if all(model.layer_types[l] == "sliding" for l in spec.layer_ids):
        raise ValueError(
            f"--layers {spec.layers}: expected a layer with full attention, got window layers only"
        )


def make_parser():
    parser = argparse.ArgumentParser(
        description="record an rattn-trace from a Hugging Face causal LM",
        epilog="docs/capturing.md shows it on Llama-3.1-8B",
    )
    add = parser.add_argument
    add("model", help="folder or name of a model")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--tokens", help="ids file (tokenize.py)")
    text.add_argument("--text", help="UTF-8 text, for the model's own tokenizer")
    add("-P", "--prompt-len", type=int, required=True, help="prompt tokens P")
    add("-n", "--decode-len", type=int, required=True, help="decode steps N")
    add("-o", "--output", required=True, help="trace to write")
    add("--layers", default="all", help="layers to record: all, or a list like 0,9 (%(default)s)")
    add("--dtype", choices=("auto", "bf16", "f16", "f32"), default="auto",
        help="type the model computes in (%(default)s: its own)")  # fmt: skip
    add("--cache-dtype", choices=tuple(STORED_TYPES), default=None,
        help="type q, k, v are stored in (default: that of --dtype)")  # fmt: skip
    add("--round", action="store_true",
        help="round to --cache-dtype before attention, not after it: check rows fit")  # fmt: skip
    add("--device", default=None, help="cpu, cuda, cuda:1, auto (default: cuda where there is one)")
    add("--revision", default=None, help="of the model, on the hub")
    add("--q-tail", type=int, default=None, help="prompt queries kept, W (default: 64, or P)")
    add("--mode", choices=("teacher_forced", "greedy"), default="teacher_forced")
    add("--check-steps", default="16", help="count of check rows, or list of steps (%(default)s)")
    add("--top-k", type=int, default=16, help="best tokens kept of each step (%(default)s)")
    add("--chunk", type=int, default=1024, help="prompt tokens per pass; 0: all (%(default)s)")
    add("--acc", action="store_true",
        help="sum the prompt's attention too (h2o starts from it): a second prefill")  # fmt: skip
    add("--reproducible", action="store_true", help="no time stamp in the file")
    return parser


def run(spec):
    if spec.device is None:
        spec.device = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.chunk < 0:
        raise ValueError(f"--chunk {spec.chunk}: expected 0 or more")
    model = hf_model.Model(spec.model, spec.dtype, spec.device, spec.revision)
    ids, source = read_source(model, spec)
    check_spec(spec, model, len(ids))
    sequence = record(model, ids, source, spec)
    size = os.path.getsize(spec.output) / 2**20
    n = len(spec.layer_ids)
    print(f"{spec.output}: P={spec.prompt_len}, N={spec.decode_len}, {n} layers, {size:.1f} MiB")
    perplexity = np.exp(-sequence.logprob.astype(np.float64).mean())
    print(f"perplexity of the {spec.decode_len} decoded tokens: {perplexity:.3f}")


def terminate(number, _):
    raise SystemExit(128 + number)


def main():
    signal.signal(signal.SIGTERM, terminate)  # so that what was begun is removed
    try:
        run(make_parser().parse_args())
    except (ValueError, OSError) as error:
        raise SystemExit(f"capture_hf: {error}")
    except KeyboardInterrupt:
        print("capture_hf: interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130)


if __name__ == "__main__":
    main()
