# SPDX-License-Identifier: Apache-2.0
"""The part of selftest.py about families: tiny_models.py through reference_forward.py and, by
itself, through tiny_families.py; what a trace says of windows and the likeliest ids; refusals; the
schedules of reference_policies.py."""

import contextlib
import copy
import io
import json
import os

import numpy as np

import model_families
import reference_forward as forward
import reference_policies
import safetensors_io
import tiny_models
from tiny_families import FACTS, NaiveFamily

N_TOKENS, P = 60, 44  # longer than the windows of all but gemma3-nested by a lot


def naive_logits(name, weights, ids, round_to):
    naive = NaiveFamily(name, weights, round_to)
    return naive, np.array([naive.logits(token, pos) for pos, token in enumerate(ids)])


def test_logits(check):
    """Would catch a wrong switch, norm, bias, scale, window edge, theta, or a key read wrongly."""
    for name in tiny_models.MODELS:
        config, weights = tiny_models.weights_of(name)
        ids = tiny_models.ids_of(name)[:N_TOKENS]
        for cache, round_to in (("f32", np.float32), ("f16", np.float16)):
            _, expected = naive_logits(name, weights, ids, round_to)
            for compute, bound in ((np.float64, 1e-10), (np.float32, 1e-4)):
                if (cache, compute) == ("f16", np.float32):
                    continue  # a value on a rounding boundary may go either way
                model = forward.Model(config, weights, compute)
                decoder = forward.Decoder(model, N_TOKENS, cache)
                got = [decoder.prefill(ids[:P])]
                for i in range(P, N_TOKENS):
                    got.append(decoder.logits(decoder.forward(ids[i : i + 1]))[0])
                worst = np.abs(np.array(got) - expected[P - 1 :]).max()
                what = f"{name}, cache {cache}, {np.dtype(compute)}: logits against the naive loop"
                check(what, worst <= bound, f"{worst:.1e} <= {bound:.0e}")
        spread = float(expected.std(axis=1).mean())
        check(f"{name}: logits vary by several units", spread > 2, f"{spread:.1f}")


def record(folder, name, *options):
    path = os.path.join(folder, name + ".trace")
    argv = [os.path.join(folder, name), "--tokens", os.path.join(folder, name + ".ids.safetensors")]
    with contextlib.redirect_stdout(io.StringIO()):
        forward.run(forward.make_parser().parse_args([*argv, "-o", path, *options]))
    return safetensors_io.Reader(path)


def test_window_trace(check, folder):
    """Would catch window layers recorded as full, their theta or acc, ids in another order."""
    name, W, K = "gemma3", 5, 7
    trace = record(folder, name, "-P", str(P), "-n", "9", "--q-tail", str(W), "--top-k", str(K))
    _, weights = tiny_models.weights_of(name)
    ids = tiny_models.ids_of(name)
    naive, logits = naive_logits(name, weights, ids[: P + 9], np.float16)
    wanted = {
        "model.arch": "gemma3",
        "layer_types": "sliding,sliding,full,sliding",
        "sliding_window": "20",
        "rope.type": "default",
        "rope.theta": "100000",
        "rope.theta_local": "100",
        "attn_scale": "%.9g" % 20**-0.5,
        "head_dim": "32",
    }
    got = {key: trace.metadata.get(key) for key in wanted}
    check("gemma3 trace: metadata", got == wanted, got if got != wanted else "")
    exact, worst = True, 0.0
    for layer in range(4):
        for what, values, first in (("q", naive.q, P - W), ("k", naive.k, 0), ("v", naive.v, 0)):
            stored = trace.raw(f"s0.l{layer}.{what}")
            rows = range(first, P + 9)
            want = [[values[layer, h, r] for r in rows] for h in range(len(stored))]
            exact &= stored.shape[1] == len(rows) and (stored == np.array(want)).all()
        o = np.array([[naive.o[layer, h, P + t] for t in range(9)] for h in range(4)])
        worst = max(worst, np.abs(trace.raw(f"s0.l{layer}.o") - o).max())
    check("gemma3 trace: q, k, v of all layers, bit for bit", exact)
    check("gemma3 trace: o of full and window layers", worst <= 1e-6, f"{worst:.1e}")
    acc = [name for name in trace.names() if name.endswith(".acc")]
    check("gemma3 trace: acc of the full layer alone", acc == ["s0.l2.acc"], acc)
    sums = np.array(
        [[sum(naive.p[2, h, r][j] for r in range(j, P)) for j in range(P)] for h in range(4)]
    )
    worst = np.abs(trace.raw("s0.l2.acc") - sums).max()
    check("gemma3 trace: acc", worst <= 1e-5, f"{worst:.1e}")
    right, worst = trace.shape("s0.topk_id") == (9, K) == trace.shape("s0.topk_logprob"), 0.0
    for t in range(9):
        row = logits[P + t]
        ranked = sorted(range(len(row)), key=lambda i: -row[i])[:K]
        right &= trace.raw("s0.topk_id")[t].tolist() == ranked
        total = np.log(sum(np.exp(value) for value in row.tolist()))
        worst = max(worst, np.abs(trace.raw("s0.topk_logprob")[t] - (row[ranked] - total)).max())
    check("top-k ids, best first", right)
    check("top-k log-probabilities", worst <= 1e-6, f"{worst:.1e}")


def test_ropes(check, folder):
    """Would catch a trace whose queries its reader un-rotates with other frequencies."""
    for name, rope in (
        ("llama-linear", {"rope.type": "linear", "rope.factor": "2.5"}),
        ("llama-v5", {"rope.type": "llama3", "rope.original_max_position": "64"}),
    ):
        trace = record(folder, name, "-P", "8", "-n", "2", "--q-tail", "1")
        got = {key: value for key, value in trace.metadata.items() if key in rope}
        check(f"{name}: rotation in the trace", got == rope, got)
        check(f"{name}: no top-k unless asked for", "s0.topk_id" not in trace.names())


def test_shards(check, folder):
    """Would catch a shard left out, or bf16 widened wrongly."""
    name = "qwen2-shards"
    _, weights = tiny_models.weights_of(name)
    loaded = model_families.load_weights(os.path.join(folder, name))
    same = set(loaded) == set(weights) and all((loaded[n] == weights[n]).all() for n in weights)
    files = sorted(f for f in os.listdir(os.path.join(folder, name)) if f.endswith("tensors"))
    check("bf16 weights from three shards", same and len(files) == 3, files)


def test_refusals(check, refuses, folder):
    """Would catch a key that is ignored although it makes another model of it."""
    llama, weights = tiny_models.weights_of("llama")
    gemma, gemma_weights = tiny_models.weights_of("gemma3-v5")
    qwen, qwen_weights = tiny_models.weights_of("qwen2")
    model = lambda config, tensors: lambda: forward.Model(config, tensors)
    for base, tensors, changes in (
        (llama, weights, {"model_type": "smollm3"}),
        (llama, weights, {"hidden_act": "gelu"}),
        (llama, weights, {"attention_bias": True}),
        (llama, weights, {"mlp_bias": True}),
        (llama, weights, {"partial_rotary_factor": 0.5}),
        (llama, weights, {"num_local_experts": 8}),
        (llama, weights, {"sliding_window": 8}),
        (llama, weights, {"layer_types": ["full_attention", "sliding_attention"]}),
        (llama, weights, {"quantization_config": {"bits": 4}}),
        (llama, weights, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        (llama, weights, {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}),
        (llama, weights, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
        (gemma, gemma_weights, {"hidden_activation": "gelu"}),
        (gemma, gemma_weights, {"final_logit_softcapping": 30.0}),
        (gemma, gemma_weights, {"attn_logit_softcapping": 50.0}),
        (gemma, gemma_weights, {"use_bidirectional_attention": True}),
        (gemma, gemma_weights, {"layer_types": ["chunked_attention"] * 4}),
        (gemma, gemma_weights, {"layer_types": ["full_attention"] * 3}),
        (gemma, gemma_weights, {"sliding_window": None}),
        (gemma, gemma_weights, {"rope_parameters": {"rope_type": "default", "rope_theta": 1.0}}),
        (qwen, qwen_weights, {"layer_types": ["full_attention", "chunked_attention"]}),
    ):
        key = next(iter(changes))
        refuses(f"{base['model_type']} with {changes}", model({**base, **changes}, tensors), key)
    extra = {**weights, "model.layers.1.self_attn.q_proj.bias": np.zeros(48, np.float32)}
    refuses("a bias that Llama has not", model(llama, extra), "layers.1.self_attn.q_proj.bias")
    lacking = {name: w for name, w in qwen_weights.items() if not name.endswith("v_proj.bias")}
    refuses("a missing bias", model(qwen, lacking), "v_proj.bias is missing")
    options = ("-P", "8", "-n", "2", "--q-tail", "1")
    refuses(
        "a trace of window layers alone",
        lambda: record(folder, "mistral-window", *options),
        "full-attention",
    )
    refuses(
        "more top-k ids than there are",
        lambda: record(folder, "qwen2", *options, "--top-k", "98"),
        "98",
    )


def test_spellings(check):
    """Would catch a spelling that is taken for granted or for another one."""
    gemma, _ = tiny_models.weights_of("gemma3")
    respelled = copy.deepcopy(gemma)
    del respelled["sliding_window_pattern"], respelled["rope_theta"]
    del respelled["rope_local_base_freq"], respelled["query_pre_attn_scalar"]
    sliding = model_families.Architecture(respelled)
    check("gemma3: pattern 6 unless stated", sliding.slides == [True] * 4 and sliding.window == 20)
    stated = (sliding.rope.theta, sliding.rope_local.theta, sliding.scale)
    check("gemma3: thetas and scale unless stated", stated == (1e6, 1e4, 0.0625), stated)
    qwen, _ = tiny_models.weights_of("qwen2")
    on = model_families.Architecture({**qwen, "use_sliding_window": True})
    check("qwen2: layers from max_window_layers on", (on.slides, on.window) == ([False, True], 32))
    off = model_families.Architecture({**qwen, "layer_types": ["full_attention"] * 2})
    check("qwen2: no window unless switched on", off.window == 0)


def test_policies(check):
    """Would catch a kept set with another eviction, stride, pool or group rule. Worked by hand."""
    # q.k is the logarithm of a weight, so that probabilities are as the weights.
    weights = [4, 1, 3, 2, 9, 5, 7, 6]
    keys, q = np.log(np.array(weights, float)).reshape(1, -1, 1), np.ones((1, 1))

    def sets(spelling, P=4, q=q):
        policy = reference_policies.parse(spelling)
        policy.start(0, q, keys[:, :P], 1.0)
        steps = range(len(weights) - P)
        return [policy.positions(0, t, q, keys[:, : P + t + 1], 1.0)[0] for t in steps]

    got = sets("recycled:k=2,stride=3,pool=1")
    want = [[0, 2, 4], [0, 4, 5], [0, 1, 2, 3, 4, 5, 6], [4, 6, 7]]
    check("recycled: weakest of the chosen goes first, then the oldest", got == want, got)
    got = sets("recycled:k=2,stride=9,pool=3")  # pooled: 4 4 3 3, ties to the lower position
    check("recycled: pooled scores", got[:2] == [[0, 1, 4], [0, 4, 5]], got)
    got = sets("recycled:k=3,stride=9,pool=1", q=np.array([[1.0], [-2.0]]))
    check("recycled: the largest of the group", got[0] == [0, 1, 2, 4], got)
    got = sets("recycled:k=9,stride=9")
    check("recycled: room for all", got == [list(range(n)) for n in (5, 6, 7, 8)], got)
    got = sets("streaming:k=3,sinks=1")
    check("streaming", got == [[0, 2, 3, 4], [0, 3, 4, 5], [0, 4, 5, 6], [0, 5, 6, 7]], got)


def run(check, refuses, folder):
    for name in tiny_models.MODELS:
        tiny_models.make(folder, name)
    check("facts by hand for each tiny model", set(FACTS) == set(tiny_models.MODELS))
    with open(os.path.join(folder, "gemma3-nested", "config.json"), encoding="utf-8") as file:
        check("gemma3-nested is nested", "num_hidden_layers" not in json.load(file))
    test_logits(check)
    test_window_trace(check, folder)
    test_ropes(check, folder)
    test_shards(check, folder)
    test_refusals(check, refuses, folder)
    test_spellings(check)
    test_policies(check)
