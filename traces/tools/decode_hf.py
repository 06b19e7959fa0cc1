# SPDX-License-Identifier: Apache-2.0
"""Let a Hugging Face causal LM decode under attention schedules, and say what it costs in quality.

Closed loop: the prompt is read with full attention, then every token is computed from hidden states
that the schedule has already changed, as in deployment. The model's own cache stays complete; what
a schedule leaves out, attention is not given: of each layer and KV head the rows of its set are
gathered, and the model's attention runs on these. Layers with a sliding window go on as they are.

  ppl       perplexity of the tokens that follow a prompt, teacher-forced, one by one
  prompts   are judged tokens ranked above others of their form (rattn-prompts, traces/model/ids.h)
  generate  greedy decoding

The answer is JSON. Times in it are what this process took (hf-wall), Python, gathers and choosing
included: they say how long to wait, nothing about the speed of a schedule.
"""

import argparse
import copy
import json
import math
import os
import signal
import sys
import time

import numpy as np
import torch

import hf_model
import hf_policies
import safetensors_io

TOOL_VERSION = "1.0"


class Decoding:
    """The listener: gives each layer with full attention what its policy leaves of the context.

    During the prompt all `policies` look on; then one at a time decides.
    """

    def __init__(self, layer_ids):
        self.index = {layer: i for i, layer in enumerate(layer_ids)}
        self.policies, self.step, self.position, self.keys_read = [], -1, 0, 0

    def prompt(self, policies):
        self.policies, self.step = policies, -1

    def decide(self, policy):
        self.policies, self.step, self.keys_read = [policy], -1, 0

    def attend(self, call):
        i = self.index.get(call.layer)
        if i is None:
            return call.dense()
        if call.key.shape[1] != self.position + call.new:
            raise ValueError(
                f"layer {call.layer}: full by config.json, but its cache gave {call.key.shape[1]} "
                f"rows where {self.position + call.new} were expected"
            )
        if self.step < 0:
            output = call.dense()
            for policy in self.policies:
                policy.shape.scale = call.scale()
                policy.prompt(i, call.query, call.key)
            return output
        policy = self.policies[0]
        kept = policy.attended(i, self.step, call.query, call.key)
        output = call.dense() if kept is None else self.sparse(call, kept)
        self.keys_read += call.key.shape[0] * call.key.shape[1] if kept is None else 0
        policy.learn(i, self.step, call.query, call.key)
        return output

    def sparse(self, call, kept):
        """Attention to `kept` [Hkv, n] and self; self counts once, listed or not."""
        me, Hkv, Hq = self.position, call.key.shape[0], call.query.shape[0]
        mask, twice = None, kept == me
        here = hf_policies.append(kept, me)
        self.keys_read += Hkv * here.shape[1]
        if self.policies[0].lists_self and bool(twice.any()):
            self.keys_read -= int(twice.sum())
            seen = hf_policies.append(~twice, True)
            mask = seen[torch.arange(Hq, device=seen.device) // (Hq // Hkv)]
        key, value = (hf_policies.rows_of(rows, here) for rows in (call.key, call.value))
        return call.sparse(key, value, mask)


class Decoder:
    """A model, and what one prompt left of it: the cache, from which every policy starts."""

    def __init__(self, model, chunk):
        self.model, self.chunk = model, chunk
        self.layer_ids = [l for l, kind in enumerate(model.layer_types) if kind == "full"]
        if not self.layer_ids:
            raise ValueError(f"{model.name}: expected layers with full attention, got windows only")
        self.listener = Decoding(self.layer_ids)
        model.listen(self.listener)

    def policies(self, spellings, P, N):
        shape = [P, N, self.layer_ids, self.model.rope, None]
        return [hf_policies.make(name, o, hf_policies.Shape(*shape)) for name, o, _ in spellings]

    def wait(self):
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    def forward(self, ids):
        self.listener.position = self.model.length
        return self.model.forward(ids)

    def prefill(self, ids, policies):
        """Read the prompt once for all policies; seconds."""
        self.model.reset()
        self.listener.prompt(policies)
        began, chunk = time.perf_counter(), self.chunk or len(ids)
        progress = hf_model.Progress("prefill", len(ids))
        for begin in range(0, len(ids), chunk):
            self.first = self.forward(ids[begin : begin + chunk])
            progress(min(begin + chunk, len(ids)))
        self.wait()
        self.saved = self.model.cache, self.model.length
        return time.perf_counter() - began

    def run(self, policy, n, token, see):
        """n steps from the saved prompt: token(t) goes in, see(t, logits) gets what comes out."""
        self.model.cache, self.model.length = copy.deepcopy(self.saved[0]), self.saved[1]
        self.listener.decide(policy)
        began, progress = time.perf_counter(), hf_model.Progress("decode", n)
        for t in range(n):
            self.listener.step = t
            see(t, self.forward([token(t)]))
            progress(t + 1)
        self.wait()
        return time.perf_counter() - began


def figures(decoder, policy, n, prefill_s, decode_s):
    layers, full = len(decoder.layer_ids), policy.full_layer_steps
    return {
        "steps": n,
        "layers": decoder.layer_ids,
        "full_layer_steps": full,
        "effective_stride": n * layers / full if full else None,
        "keys_read": decoder.listener.keys_read,
        "hf_wall": {"prefill_s": prefill_s, "decode_s": decode_s, "method": "hf-wall"},
    }


# --- tasks ---------------------------------------------------------------------------------------
def check_lengths(path, n_ids, P, N, need, model):
    if P < 1 or N < 1:
        raise ValueError(f"P={P}, N={N}: expected at least 1")
    if n_ids < need:
        raise ValueError(f"{path}: expected {need} tokens, got {n_ids}")
    most = model.config.get("max_position_embeddings") or P + N
    if P + N > most:
        raise ValueError(f"P + N = {P + N}: expected at most {most}, the model's positions")


def ppl(decoder, args, spellings):
    P, N, results = args.prompt_len, args.decode_len, []
    for path in args.files:
        ids, about = hf_model.read_ids(path, decoder.model)
        check_lengths(path, len(ids), P, N, P + N + 1, decoder.model)
        policies = decoder.policies(spellings, P, N)
        prefill_s = decoder.prefill(ids[:P], policies)
        for (_, _, canonical), policy in zip(spellings, policies):
            nll = []

            def see(t, logits):
                nll.append(-float(hf_model.log_softmax(logits)[int(ids[P + t + 1])]))

            decode_s = decoder.run(policy, N, lambda t: ids[P + t], see)
            mean = sum(nll) / N
            results.append({
                "policy": canonical, "document": path, "prompt_len": P,
                **figures(decoder, policy, N, prefill_s, decode_s),
                "source": about.get("source", ""), "nll_mean": mean, "ppl": math.exp(mean),
                "nll": nll,
            })  # fmt: skip
    return results


class Prompts:
    """A `rattn-prompts` file (traces/model/ids.h): prompts, and their tokens that are judged."""

    def __init__(self, path, model):
        reader = safetensors_io.Reader(path)
        self.about, kind = reader.metadata, reader.metadata.get("format")
        if kind != "rattn-prompts":
            raise ValueError(f"{path}: format: expected rattn-prompts, got {kind}")
        tokenizer = model.provenance()["tokenizer.sha256"]
        given = self.about.get("tokenizer.sha256", "")
        if tokenizer and given and tokenizer != given:
            raise ValueError(f"{path}: made with another tokenizer than that of {model.name}")
        lengths = reader.raw("lengths").tolist()
        ids = hf_model.check_ids(path, reader.raw("tokens"), model)
        if sum(lengths) != len(ids):
            raise ValueError(f"{path}: tokens: expected {sum(lengths)}, got {len(ids)}")
        self.tokens = np.split(ids, np.cumsum(lengths)[:-1])
        self.prompt_len = reader.raw("prompt_len").tolist()
        self.seed = reader.raw("seed").tolist()
        has = reader.names()
        self.depth = reader.raw("depth").tolist() if "depth" in has else [math.nan] * len(lengths)
        self.probes = [[] for _ in lengths]
        probes = reader.raw("probe").tolist()
        others = reader.raw("candidates").tolist() if "candidates" in has else [[]] * len(probes)
        for (prompt, at), row in zip(probes, others):
            if not (0 <= prompt < len(lengths) and self.prompt_len[prompt] <= at < lengths[prompt]):
                raise ValueError(
                    f"{path}: probe: expected a token behind its prompt, got {prompt}, {at}"
                )
            self.probes[prompt].append((at, [c for c in row if c >= 0]))


def judge(logprob, token, others):
    """A probe: rank of the true token among itself and the candidates (all tokens where there are
    none), 1 for the best, ties counting against it; margin to the best of the others.
    """
    true = float(logprob[token])
    if others:
        rest = logprob[torch.tensor(others, device=logprob.device)]
    else:
        rest = torch.cat([logprob[:token], logprob[token + 1 :]])
    return {
        "logprob": true,
        "rank": 1 + int((rest >= true).sum()),
        "margin": true - float(torch.amax(rest, 0)),
    }


def answer(decoder, policy, tokens, P, probes):
    """Decode what follows a prompt; {probes, right, margin, nll} and seconds."""
    seen, nll, N = {P: decoder.first}, [], len(tokens) - P - 1
    wanted = {at for at, _ in probes}

    def see(t, logits):
        nll.append(-float(hf_model.log_softmax(logits)[int(tokens[P + t + 1])]))
        if P + t + 1 in wanted:
            seen[P + t + 1] = logits

    decode_s = decoder.run(policy, N, lambda t: tokens[P + t], see)
    judged = [
        {"at": at, **judge(hf_model.log_softmax(seen[at]), int(tokens[at]), others)}
        for at, others in probes
    ]
    return {
        "right": all(probe["rank"] == 1 for probe in judged),
        "margin": sum(probe["margin"] for probe in judged) / len(judged),
        "probes": judged,
        "nll": nll,
    }, decode_s


def prompts(decoder, args, spellings):
    """Prompts that have no probe are left out. As `rattn-sim eval` names and counts things."""
    results = []
    for path in args.files:
        file = Prompts(path, decoder.model)
        rows = [[] for _ in spellings]
        for number, (tokens, P, probes) in enumerate(
            zip(file.tokens, file.prompt_len, file.probes)
        ):
            if not probes:
                continue
            N, depth = len(tokens) - P - 1, file.depth[number]
            check_lengths(path, len(tokens), P, max(N, 1), P + 1, decoder.model)
            policies = decoder.policies(spellings, P, N)
            prefill_s = decoder.prefill(tokens[:P], policies)
            for place, policy in enumerate(policies):
                found, decode_s = answer(decoder, policy, tokens, P, probes)
                rows[place].append({
                    "document": str(number), "seed": file.seed[number], "prompt_len": P,
                    "depth": None if math.isnan(depth) else depth, **found,
                    **figures(decoder, policy, N, prefill_s, decode_s),
                })  # fmt: skip
        for (_, _, canonical), found in zip(spellings, rows):
            hits = [probe["rank"] == 1 for row in found for probe in row["probes"]]
            n = len(found)
            results.append({
                "policy": canonical, "document": path, "task": file.about.get("task", ""),
                "prompts": n,
                "accuracy": sum(row["right"] for row in found) / n if n else None,
                "hits": sum(hits) / len(hits) if n else None,
                "margin": sum(row["margin"] for row in found) / n if n else None,
                "documents": found,
            })  # fmt: skip
    return results


def generate(decoder, args, spellings):
    P, N, results = args.prompt_len, args.decode_len, []
    for path in args.files:
        ids, _ = hf_model.read_ids(path, decoder.model)
        P = args.prompt_len or len(ids)
        check_lengths(path, len(ids), P, N, P, decoder.model)
        policies = decoder.policies(spellings, P, N)
        prefill_s = decoder.prefill(ids[:P], policies)
        for (_, _, canonical), policy in zip(spellings, policies):
            tokens = [int(decoder.first.argmax())]
            decode_s = decoder.run(
                policy, N, lambda t: tokens[t], lambda t, x: tokens.append(int(x.argmax()))
            )
            results.append({
                "policy": canonical, "document": path, "prompt_len": P,
                **figures(decoder, policy, N, prefill_s, decode_s),
                "tokens": tokens, "text": text_of(decoder.model, tokens),
            })  # fmt: skip
    return results


def text_of(model, tokens):
    """None where the model has no tokenizer."""
    try:
        tokenizer = hf_model.transformers.AutoTokenizer.from_pretrained(model.name)
    except (OSError, ValueError, ImportError, AttributeError):
        return None
    return tokenizer.decode(tokens)


TASKS = {"ppl": ppl, "prompts": prompts, "generate": generate}


# --- command -------------------------------------------------------------------------------------
def provenance(model, args, argv):
    return {
        "command": argv,
        **model.provenance(),
        "attention": "sdpa on gathered rows, hooked: " + model.hooks,
        "device": model.device_name(),
        "dtype": model.dtype,
        "files": {path: safetensors_io.file_sha256(path) for path in args.files},
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def by_policy(task, results):
    """As `rattn-sim import` reads them: a result per task and policy, with all its documents."""
    if task == "prompts":
        return results
    grouped = {}
    for row in results:
        own = {**row, "document": os.path.basename(row["document"])}
        own.pop("policy")
        grouped.setdefault(row["policy"], []).append(own)
    return [{"task": task, "policy": p, "documents": rows} for p, rows in grouped.items()]


def write_json(path, value):
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    aside = f"{path}.tmp{os.getpid()}"
    try:
        with open(aside, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)


def summary(results):
    """A line per result for people; differences to `full` where it is among the policies."""
    full = {row["document"]: row for row in results if row["policy"] == "full"}
    for row in results:
        base = full.get(row["document"], {})
        if "ppl" in row:
            said = f"ppl {row['ppl']:.4f}"
            if base:
                said += f", nll {row['nll_mean'] - base['nll_mean']:+.5f} against full"
        elif "accuracy" in row:
            right = sum(prompt["right"] for prompt in row["documents"])
            said = f"{right} of {row['prompts']} right"
        else:
            said = repr(row["text"] or row["tokens"])[:60]
        print(f"{row['policy']}  {os.path.basename(row['document'])}: {said}", file=sys.stderr)


def make_parser():
    parser = argparse.ArgumentParser(
        description="decode with a Hugging Face causal LM under attention schedules",
        epilog="policies: " + ", ".join(hf_policies.POLICIES) + ", spelled as for rattn-sim",
    )
    add = parser.add_argument
    add("model", help="folder or name of a model")
    add("task", choices=tuple(TASKS), help="what is asked of it")
    add("files", nargs="+", help="ids files (tokenize.py), or rattn-prompts files")
    add("-p", "--policy", action="append", required=True, help="NAME:key=value,…; repeat")
    add("-P", "--prompt-len", type=int, default=None, help="prompt tokens P (ppl; generate: all)")
    add("-n", "--decode-len", type=int, default=None, help="decode steps N (ppl, generate)")
    add("-o", "--output", default=None, help="JSON file (default: standard output)")
    add("--dtype", choices=("auto", "bf16", "f16", "f32"), default="auto",
        help="type the model computes in (%(default)s: its own)")  # fmt: skip
    add("--device", default=None, help="cpu, cuda, cuda:1, auto (default: cuda where there is one)")
    add("--revision", default=None, help="of the model, on the hub")
    add("--chunk", type=int, default=1024, help="prompt tokens per pass; 0: all (%(default)s)")
    return parser


def run(args, argv):
    spellings = [hf_policies.parse(text) for text in args.policy]
    if args.task != "prompts" and args.decode_len is None:
        raise ValueError(f"{args.task}: -n must be given: decode steps")
    if args.task == "ppl" and args.prompt_len is None:
        raise ValueError("ppl: -P must be given: prompt tokens")
    if args.chunk < 0:
        raise ValueError(f"--chunk {args.chunk}: expected 0 or more")
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    model = hf_model.Model(args.model, args.dtype, args.device, args.revision)
    decoder = Decoder(model, args.chunk)
    try:
        results = TASKS[args.task](decoder, args, spellings)
    finally:
        model.listen(None)
    about = provenance(model, args, argv)
    write_json(args.output, {
        "format": "rattn-eval", "version": "1.0", "tool": "decode_hf", "tool_version": TOOL_VERSION,
        "model": about["model.id"], "provenance": about, "results": by_policy(args.task, results),
    })  # fmt: skip
    return results


def main():
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        summary(run(make_parser().parse_args(), sys.argv))
    except (ValueError, OSError) as error:
        raise SystemExit(f"decode_hf: {error}")
    except KeyboardInterrupt:
        print("decode_hf: interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130)


if __name__ == "__main__":
    main()
