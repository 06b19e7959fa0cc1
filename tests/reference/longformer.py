# SPDX-License-Identifier: Apache-2.0
"""Longformer: a sliding window and a few global positions. Beltagy et al., arXiv 2004.05150, 3.1.

Attended are self, every `dilation`-th position behind it up to `window` of them with self counted,
and the global positions before self. Nothing depends on the values.

globals=3 are the positions 0, 1, 2; globals=0/5/9 those three. The paper's window lies on both
sides, w/2 each; a decoder has the left side only, and all of it is `window`.

The paper's global attention is symmetric: a global token also attends to everything. That matters
only for a global position that is decoded (a list may name one). Proposed: symmetric=1 makes such a
step full; the contract's rule is symmetric=0.
"""

from common import full_layers, with_defaults

DEFAULTS = {"window": None, "dilation": "1", "globals": "0", "symmetric": "0"}


def global_positions(text):
    return [int(x) for x in text.split("/")] if "/" in text else list(range(int(text)))


def positions(me, o):
    behind = [me - i * int(o["dilation"]) for i in range(1, int(o["window"]))]
    listed = global_positions(o["globals"])
    return sorted({j for j in behind if j >= 0} | {j for j in listed if j < me})


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        for t in range(view.N):
            me = view.P + t
            if o["symmetric"] == "1" and me in global_positions(o["globals"]):
                layer.attend_all()
            else:
                layer.attend([positions(me, o)] * view.Hkv)
    return result
