# SPDX-License-Identifier: Apache-2.0
"""TOVA: token omission via attention. Oren et al., arXiv 2401.06104, section 3.2.

The cache is a state of K rows. After each step the row with the least attention from that step's
query is dropped, be it old or new: the step's own position competes like any other. Nothing is
accumulated; only the last query counts.

Prefill: the K positions with the most attention from the last prompt query. A cache of up to K rows
is left alone.

Paper and public code (TOVACache.reduce): both average over all heads of a layer and keep one set
per layer. The contract keeps a set per KV head by the mean of its group (heads=group). Proposed:
heads=layer, the published rule. agg=mean is the paper's average.
"""

from common import aggregate, attention, best, budget, full_layers, group, with_defaults

DEFAULTS = {"k": None, "agg": "mean", "heads": "group"}


def scores(view, row, kv, positions, o):
    heads = range(view.Hq) if o["heads"] == "layer" else group(view, kv)
    rows = [attention(view, row, h, positions) for h in heads]
    return dict(zip(positions, aggregate(rows, o["agg"])))


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        k, prompt = budget(o["k"], view.P), list(range(view.P))
        caches = [sorted(best(prompt, scores(view, 0, kv, prompt, o), k)) for kv in range(view.Hkv)]
        for t in range(view.N):
            layer.attend(caches)
            for kv in range(view.Hkv):
                here = caches[kv] + [view.P + t]
                caches[kv] = sorted(best(here, scores(view, t + 1, kv, here, o), k))
    return result
