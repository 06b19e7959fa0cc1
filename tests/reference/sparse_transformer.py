# SPDX-License-Identifier: Apache-2.0
"""Sparse Transformer: factorised patterns. Child et al., arXiv 1904.10509, sections 4.2 and 4.3.

With l = stride, position i attends to j <= i where
strided: j is one of i-l..i, or i - j is a multiple of l (a row and a column of a grid);
fixed:   j lies in i's own block of l, or is among the last c positions of its block.

The paper gives each pattern as two heads and names three ways to combine them: layers in turn, one
merged head, or different heads. Merged here: both sets together. Proposed: combine=turn, where even
layers of the model take the first set and odd ones the second; the contract's rule is merged.
"""

from common import full_layers, with_defaults

DEFAULTS = {"pattern": "strided", "stride": None, "c": "1", "combine": "merged"}


def near(me, j, o):
    l = int(o["stride"])
    return j >= me - l if o["pattern"] == "strided" else j // l == me // l


def far(me, j, o):
    l = int(o["stride"])
    return (me - j) % l == 0 if o["pattern"] == "strided" else j % l >= l - int(o["c"])


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        rules = [near, far] if o["combine"] == "merged" else [(near, far)[layer.layer % 2]]
        for t in range(view.N):
            me = view.P + t
            chosen = [j for j in range(me) if any(rule(me, j, o) for rule in rules)]
            layer.attend([chosen] * view.Hkv)
    return result
