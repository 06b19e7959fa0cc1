# SPDX-License-Identifier: Apache-2.0
"""StreamingLLM: attention sinks and the newest positions. Xiao et al., arXiv 2309.17453, 3.2.

The first `sinks` positions and the k - sinks newest before self. With stride (StreamingLLM++ of
arXiv 2411.05787 v1) every stride-th step attends to everything. Positions are the original ones;
the paper numbers them by their place in the cache, which a recorded trace cannot.
"""

from common import budget, full_layers, with_defaults

DEFAULTS = {"k": None, "sinks": "4", "stride": "none"}


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        k, sinks = budget(o["k"], view.P), int(o["sinks"])
        for t in range(view.N):
            me = view.P + t
            if o["stride"] != "none" and (t + 1) % int(o["stride"]) == 0:
                layer.attend_all()
            else:
                kept = [j for j in range(me) if j < sinks or j >= me - (k - sinks)]
                layer.attend([kept] * view.Hkv)
    return result
