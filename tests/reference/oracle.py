# SPDX-License-Identifier: Apache-2.0
"""The oracle: the K positions before self with the largest sum over the group of true probability.

Not from a paper: the bound on the mass any policy of K positions can recover at a step.
"""

from common import best, budget, full_layers, group_attention, with_defaults

DEFAULTS = {"k": None}


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        k = budget(o["k"], view.P)
        for t in range(view.N):
            everything, chosen = list(range(view.P + t + 1)), []
            for kv in range(view.Hkv):
                score = group_attention(view, t + 1, kv, everything, "sum")
                chosen.append(best(everything[:-1], score, k))
            layer.attend(chosen)
    return result
