# SPDX-License-Identifier: Apache-2.0
"""decode_hf.py: a tiny model decodes under every policy, and must do what the references say.

On real torch and a real tiny Llama where there are these, else on tests/capture/fake. What a run
did is recorded from inside: its own queries, keys and values, given to the numpy references, must
lead to the sets it attended to and to the outputs it went on with.
"""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

import support
from support import check, refuses, safetensors_io

import attention
import compare_eval
import decode_hf
import hf_model
import hf_policies
import test_policies

P, N = 23, 14
IDS = np.random.default_rng(5).integers(0, 61, 50)
SINCE = {"qwen2": (4, 48), "qwen3": (4, 51), "gemma3_text": (4, 53)}
WINDOWS = {"layer_types": ["full_attention", "sliding_attention", "full_attention"],
           "sliding_window": 6}  # fmt: skip


@contextlib.contextmanager
def folder(family="llama", **config):
    with tempfile.TemporaryDirectory() as path:
        values, weights = support.tiny(family, **config)
        support.write_model(os.path.join(path, "model"), values, weights)
        support.write_ids(os.path.join(path, "ids"), IDS)
        yield path


def decode(path, task, *options, file="ids", more=()):
    argv = [os.path.join(path, "model"), task, os.path.join(path, file), "--dtype", "f32", *options]
    args = decode_hf.make_parser().parse_args(argv + list(more))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        results = decode_hf.run(args, argv)
    return results, out.getvalue()


def policies(*spellings):
    return [word for spelling in spellings for word in ("-p", spelling)]


def plain_logits(path, ids):
    """[len(ids), vocab] of the model as it is: no hook of ours, one pass for each prefix."""
    hf_model.LISTENER[0] = None
    model = hf_model.Model(os.path.join(path, "model"), "f32")
    model.model.config._attn_implementation = "sdpa"
    rows = []
    for n in range(1, len(ids) + 1):
        model.reset()
        rows.append(np.asarray(hf_model.log_softmax(model.forward(ids[:n]))))
    return np.array(rows)


def test_full(what, layers, **model):
    """layers: those with full attention."""
    with folder(**model) as path:
        logprob = plain_logits(path, IDS[: P + N + 1])
        truth = np.array([-logprob[P + t, IDS[P + t + 1]] for t in range(N)])
        same = ("full", f"recycled:k={P + N - 1},stride=5", "recycled:k=3,stride=1",
                f"streaming:k={P + N}", f"snapkv:k={P},window=4", f"h2o:k={P + N}",
                f"tova:k={P + N}", f"recycled:k={P + N},stride=3,attend=after",
                f"recycled:k={P + N},stride=3,share={layers[0]}")
        chunk = ["-P", str(P), "-n", str(N), "--chunk", "9"]
        results, _ = decode(path, "ppl", *chunk, *policies(*same, "recycled:k=3,stride=5"))
        for row in results[:-1]:
            worst = np.abs(np.array(row["nll"]) - truth).max()
            check(f"{what}: {row['policy']} is the model itself", worst < 1e-5, worst)
        worst = np.abs(np.array(results[-1]["nll"]) - truth).max()
        check(f"{what}: a small K is not", worst > 1e-2, worst)
        ratio = results[0]["ppl"] / math.exp(truth.mean())
        check("ppl", abs(ratio - 1) < 1e-5, results[0]["ppl"])
        row = results[2]
        check("full steps are counted", row["full_layer_steps"] == N * len(layers))
        keys = sum(2 * (P + t + 1) for t in range(N)) * len(layers)
        check("keys are counted", row["keys_read"] == keys == results[7]["keys_read"], keys)
        check("effective stride", row["effective_stride"] == 1 and row["layers"] == layers)
        check("window layers keep their attention", results[-1]["layers"] == layers)


class Watch:
    """Wraps the listener: what went in and came out of each layer with full attention."""

    def __init__(self, listener):
        self.listener, self.inner = listener, listener.attend
        self.q, self.k, self.v, self.out, self.sets = {}, {}, {}, {}, {}
        listener.attend = self.attend

    def attend(self, call):
        sparse, kept = self.listener.sparse, []

        def note(call, positions):
            kept.append([sorted({*row, self.listener.position}) for row in positions.tolist()])
            return sparse(call, positions)

        self.listener.sparse = note
        output = self.inner(call)
        self.listener.sparse = sparse
        l, n = call.layer, call.new
        if self.listener.step >= 0:
            self.sets.setdefault(l, []).append(kept[0] if kept else None)
            self.out.setdefault(l, []).append(np.asarray(output[0][0, -1]))
        for store, rows in ((self.q, call.query), (self.k, call.key[:, -n:]),
                            (self.v, call.value[:, -n:])):  # fmt: skip
            store.setdefault(l, []).append(np.asarray(rows))
        return output


def as_trace(watch, model):
    """What was recorded, as the file the references read."""
    layers = sorted(watch.q)
    q = {l: np.concatenate(rows, 1) for l, rows in watch.q.items()}
    scale = q[0].shape[2] ** -0.5
    meta = {"format": "rattn-trace", "version": "1.0", "n_layers": "3", "n_q_heads": "4",
            "layers": ",".join(map(str, layers)), "n_kv_heads": "2", "head_dim": "8",
            "attn_scale": "%.9g" % scale, "n_seq": "1", "s0.prompt_len": str(P),
            "s0.decode_len": str(N), "s0.q_tail": str(P), **model.rope}  # fmt: skip
    tensors = []
    for l in layers:
        k, v = (np.concatenate(rows[l], 1) for rows in (watch.k, watch.v))
        logits = scale * np.einsum("hnd,hld->hnl", q[l][:, :P].astype("f8"),
                                   np.repeat(k[:, :P].astype("f8"), 2, 0))  # fmt: skip
        acc = attention.softmax(logits + np.where(np.tri(P), 0, -np.inf)).sum(1)
        for name, rows in (("q", q[l]), ("k", k), ("v", v), ("acc", acc)):
            tensors.append((f"s0.l{l}.{name}", "F32", np.ascontiguousarray(rows, "<f4")))
    with tempfile.TemporaryDirectory() as folder_of_it:
        file = os.path.join(folder_of_it, "t")
        safetensors_io.write(file, tensors, meta)
        return attention.Trace(file)


CLOSED = (
    "recycled:k=5,stride=4", "recycled:k=5,stride=4,attend=after", "streaming:k=6,sinks=2",
    "recycled:k=5,stride=3,share=0", "recycled:k=4,stride=2,sim=0.6", "h2o:k=6", "tova:k=5",
    "recycled:k=4,stride=2,sim=0.7,scope=model-prev,current=snapkv", "snapkv:k=9,window=4",
    "snapkv:k=9,window=4,evict=fifo", "streaming:k=6,stride=3", "recycled:k=6,stride=5,evict=raw",
)  # fmt: skip


def test_closed_loop():
    test_policies.P, test_policies.N, test_policies.LAYERS = P, N, (0, 1, 2)
    with folder() as path:
        model = hf_model.Model(os.path.join(path, "model"), "f32")
        for spelling in CLOSED:
            decoder = decode_hf.Decoder(model, 10)
            watch = Watch(decoder.listener)
            policy = decoder.policies([hf_policies.parse(spelling)], P, N)[0]
            decoder.prefill(IDS[:P], [policy])
            decoder.run(policy, N, lambda t: IDS[P + t], lambda t, logits: None)
            trace = as_trace(watch, model)
            expected, full = test_policies.sets_there(trace, spelling)
            wrong, worst = [], 0.0
            for t in range(N):
                for l in range(3):
                    a, b = (test_policies.as_sets(s, t)
                            for s in (watch.sets[l][t], expected[t][l]))  # fmt: skip
                    if a != b:
                        wrong.append((t, l, a, b))
                        continue
                    view = trace.view(0, l)
                    for h in range(4):
                        keys, here = view.K[h // 2][b[h // 2]], view.V[h // 2][b[h // 2]]
                        o = attention.softmax(trace.scale * keys @ view.q[h, t + 1]) @ here
                        worst = max(worst, float(np.abs(watch.out[l][t][h] - o).max()))
            check(f"{spelling}: sets of the run are those of its own q, k, v", not wrong, wrong[:1])
            check(f"{spelling}: and its outputs theirs", worst < 1e-5, worst)
            check(f"{spelling}: full layer-steps", policy.full_layer_steps == full, full)
        model.listen(None)


def write_prompts(path, **changes):
    tokens = np.concatenate([IDS[:20], IDS[20:45]]).astype("<i4")
    candidates = np.array([[1, 2, 3], [4, 5, -1], [6, -1, -1], [-1, -1, -1]], "<i4")
    probe = np.array([[0, 12], [0, 17], [1, 15], [1, 20]], "<i4")
    values = {"lengths": [20, 25], "prompt_len": [12, 15], **changes}
    support.safetensors_io.write(
        path,
        [("tokens", "I32", tokens), ("lengths", "I32", np.array(values["lengths"], "<i4")),
         ("prompt_len", "I32", np.array(values["prompt_len"], "<i4")),
         ("seed", "I64", np.array([7, 8], "<i8")), ("depth", "F32", np.array([0.5, np.nan], "<f4")),
         ("probe", "I32", values.get("probe", probe)), ("candidates", "I32", candidates)],
        {"format": "rattn-prompts", "version": "1.0", "task": "dice", "family": "dice",
         **values.get("about", {})},
    )  # fmt: skip
    return probe, candidates


def test_prompts():
    with folder() as path:
        probe, candidates = write_prompts(os.path.join(path, "prompts"))
        results, _ = decode(path, "prompts", *policies("full", "tova:k=2"), file="prompts")
        texts, rights = (IDS[:20], IDS[20:45]), {0: [], 1: []}
        for (prompt, at), row in zip(probe.tolist(), candidates.tolist()):
            logprob = plain_logits(path, texts[prompt][:at])[-1]
            token = int(texts[prompt][at])
            rest = [c for c in row if c >= 0] or [c for c in range(61) if c != token]
            rank = 1 + sum(logprob[c] >= logprob[token] for c in rest)
            rights[prompt].append(rank == 1)
            got = results[0]["documents"][prompt]["probes"][len(rights[prompt]) - 1]
            same = got["at"] == at and got["rank"] == rank
            same &= abs(got["margin"] - (logprob[token] - max(logprob[c] for c in rest))) < 1e-4
            check(f"prompt {prompt}, token {at}: rank {rank}", same, got)
        found = [row["right"] for row in results[0]["documents"]]
        check("right when all are", found == [all(r) for r in rights.values()], found)
        check("accuracy", results[0]["accuracy"] == sum(found) / 2)
        hits = sum(sum(r) for r in rights.values()) / 4
        check("hits", results[0]["hits"] == hits, hits)
        depth = [row["depth"] for row in results[0]["documents"]]
        check("seed and depth", depth == [0.5, None] and results[0]["documents"][1]["seed"] == 8)
        check("another policy, other figures", results[1]["margin"] != results[0]["margin"])
        first = results[0]["documents"][0]["nll"]
        truth = [-plain_logits(path, IDS[: 13 + t])[-1][IDS[13 + t]] for t in range(7)]
        check("nll of all that follows", np.abs(np.array(first) - truth).max() < 1e-5, len(first))
        for changes, words in (
            ({"lengths": [20, 24]}, ("tokens: expected 44", "45")),
            ({"prompt_len": [13, 15]}, ("probe", "0, 12")),
            ({"about": {"format": "x"}}, ("rattn-prompts", "got x")),
        ):
            write_prompts(os.path.join(path, "bad"), **changes)
            refuses(f"prompts with {changes}",
                    lambda: decode(path, "prompts", "-p", "full", file="bad"), *words)  # fmt: skip


def test_generate_and_json():
    with folder() as path:
        ids = list(IDS[:P])
        for _ in range(5):
            ids.append(int(plain_logits(path, ids)[-1].argmax()))
        out = os.path.join(path, "out.json")
        results, _ = decode(path, "generate", "-P", str(P), "-n", "4", *policies("full"), "-o", out)
        check("generate: the best token each time", results[0]["tokens"] == ids[P:], ids[P:])
        check("without a tokenizer no text", results[0]["text"] is None)
        with open(out, encoding="utf-8") as file:
            saved = json.load(file)
        about = saved["provenance"]
        wanted = ("command", "config.sha256", "torch", "transformers", "device", "dtype", "files")
        check("provenance", all(about[key] for key in wanted), sorted(about))
        config = os.path.join(path, "model", "config.json")
        check("SHA-256 of config.json",
              about["config.sha256"] == safetensors_io.file_sha256(config))  # fmt: skip
        wall = saved["results"][0]["documents"][0]["hf_wall"]
        check("times say how", wall["method"] == "hf-wall" and wall["decode_s"] > 0, wall)
        text = decode(path, "ppl", "-P", "5", "-n", "3", *policies("full"))[1]
        rows = json.loads(text)["results"][0]["documents"]
        check("standard output is the JSON", len(rows) == 1 and len(rows[0]["nll"]) == 3)
        check("no listener is left", hf_model.LISTENER == [None])
        for what, options, words in (
            ("no -n", ("ppl", "-P", "3", "-p", "full"), ("-n must be given",)),
            ("no -P", ("ppl", "-n", "3", "-p", "full"), ("-P must be given",)),
            ("too few tokens", ("ppl", "-P", "40", "-n", "10", "-p", "full"), ("expected 51",)),
            ("a policy that is none", ("ppl", "-P", "3", "-n", "1", "-p", "ful"), ("'full'",)),
        ):
            refuses(what, lambda: decode(path, *options), *words)


def test_compare_eval():
    def write(path, value):
        with open(path, "w", encoding="utf-8") as out:
            json.dump(value, out)

    with tempfile.TemporaryDirectory() as path:
        a, b = os.path.join(path, "a"), os.path.join(path, "b")
        row = {"policy": "full", "document": "x/ids", "prompt_len": 3, "nll": [1.0, 2.0]}
        write(a, {"results": [row]})
        for what, value, expected in (
            ("the same", [{**row, "document": "ids"}], 0),
            ("close by", {"documents": [{**row, "nll": [1.0009, 2.0]}]}, 0),
            ("too far", [{**row, "nll": [1.0, 2.0011]}], 4),
            ("one more", [row, {**row, "policy": "tova:k=2"}], 4),
            ("another prompt", [{**row, "prompt_len": 4}], 1),
            ("a missing token", [{**row, "nll": [1.0, None]}], 1),
            ("nothing", {"results": []}, 1),
        ):
            write(b, value)
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                got = compare_eval.main([a, b])
            check(f"compare_eval: {what}", got == expected, got)


def both(what, path, model, task, name, file, options, asked):
    """The program decodes the same in C. ([results here], {policy: its}); None: no answer."""
    command = [support.RATTN_SIM, "eval", model, "--task", task, "--dtype", "f32", "--per-token",
               "--format", "json", *policies(*asked[1:])]  # fmt: skip
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        check(f"{what}: eval", False, child.stderr)
        return None
    out = io.StringIO()
    argv = [model, name, file, "--dtype", "f32", *options, *policies(*asked)]
    with contextlib.redirect_stdout(out):
        results = decode_hf.run(decode_hf.make_parser().parse_args(argv), argv)
    for where, content in (("here", out.getvalue()), ("there", child.stdout)):
        with open(os.path.join(path, where), "w", encoding="utf-8") as saved:
            saved.write(content)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        status = compare_eval.main([os.path.join(path, w) for w in ("here", "there")])
    worst = max((float(x) for x in re.findall(r"worst (\S+)", shown.getvalue())), default=math.nan)
    check(f"{what}: eval says the same of every token under {len(asked)} policies", status == 0,
          f"{worst:.1e}" if status == 0 else shown.getvalue())  # fmt: skip
    store = [os.path.join(path, "here"), "--db", os.path.join(path, "db")]
    child_of = subprocess.run([support.RATTN_SIM, "import", *store], capture_output=True, text=True,
                              check=False)  # fmt: skip
    check(f"{what}: import takes it", child_of.returncode == 0, child_of.stderr)
    return results, {row["policy"]: row for row in json.loads(child.stdout)}


def has_eval():
    if not os.path.exists(support.RATTN_SIM):
        support.skip("against eval", "no build/rattn-sim")
        return False
    return True


def test_against_eval(family="llama"):
    """The full policy is first here; the program always adds it."""
    spellings = ["full"] + [s.replace("share=0", "share=2") for s in CLOSED]
    with folder(family) as path:
        model, ids, file = (os.path.join(path, name) for name in ("model", "ids", "prompts"))
        write_prompts(file)
        both(f"{family}, ppl", path, model, f"ppl:file={ids},prompt={P},steps={N}", "ppl", ids,
             ["-P", str(P), "-n", str(N)], spellings)  # fmt: skip
        got = both(f"{family}, prompts", path, model, f"prompts:file={file}", "prompts", file, [],
                   ["full", "tova:k=3", "recycled:k=3,stride=2"])  # fmt: skip
        for row in got[0] if got else ():
            there = got[1][row["policy"]]
            same = all(row[k] == there[k] for k in ("prompts", "accuracy", "hits"))
            off = abs(row["margin"] - there["margin"])
            check(f"{family}, {row['policy']}: accuracy, hits, margin", same and off < 1e-4, off)


def test_smollm2():
    model = os.path.join(support.TOP, "build", "models", "smollm2-135m-instruct")
    ids = os.path.join(support.TOP, "build", "text", "jargon-saga.ids.safetensors")
    if not (os.path.exists(model) and os.path.exists(ids)):
        support.skip("SmolLM2", "not prepared: traces/tools/make_traces.sh prepare")
        return
    with tempfile.TemporaryDirectory() as path:
        both("SmolLM2, ppl", path, model, f"ppl:file={ids},prompt=240,steps=24", "ppl", ids,
             ["-P", "240", "-n", "24"],
             ["full", "recycled:k=40,stride=8", "recycled:k=40,stride=4,sim=0.8", "h2o:k=40",
              "tova:k=40", "snapkv:k=40", "streaming:k=40"])  # fmt: skip


if __name__ == "__main__":
    test_full("all layers full", [0, 1, 2])
    if not support.IS_REAL:  # a Llama of transformers has no windows
        test_full("with window layers", [0, 2], **WINDOWS)
    elif hf_model.version() >= SINCE["gemma3_text"]:
        test_full("gemma3", [2], family="gemma3_text")
    test_closed_loop()
    test_prompts()
    test_generate_and_json()
    test_compare_eval()
    if has_eval():
        test_against_eval()
        for other, since in SINCE.items():
            if support.IS_REAL and hf_model.version() >= since:
                test_against_eval(other)
        if support.IS_REAL and "--no-smollm2" not in sys.argv:
            test_smollm2()
    raise SystemExit(support.finish())
