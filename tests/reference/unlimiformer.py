# SPDX-License-Identifier: Apache-2.0
"""Unlimiformer: nearest neighbours per query head. Bertsch et al., arXiv 2305.01625, section 2.3.

Each query head looks up, at each step, the K positions before self with the largest inner product
q.k, and attends to them and to self. No state. The set belongs to the query head: heads of a group
choose separately, and what they share is read once.

The paper does this for the cross-attention of an encoder-decoder, through an index over encoder
states that takes the key projection into the query; on stored keys the inner product is the same.
Its public code asks the index for the nearest neighbours, exactly or approximately: exactly here.
"""

from common import best, budget, full_layers, with_defaults

DEFAULTS = {"k": None}


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers, heads="query")
    for layer in result:
        view = layer.view
        k = budget(o["k"], view.P)
        for t in range(view.N):
            me, chosen = view.P + t, []
            for h in range(view.Hq):
                product = view.K[h // view.G, :me] @ view.q[h, t + 1]
                chosen.append(best(range(me), product, k))
            layer.attend(chosen)
    return result
