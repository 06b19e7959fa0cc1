# SPDX-License-Identifier: Apache-2.0
"""PyramidKV: SnapKV with more room in lower layers. Cai et al., arXiv 2406.02069, section 4.2.

The choice within a layer is SnapKV's. The room of the prefix, b = k - window on average, falls
along the layers of the model as an arithmetic sequence, from 2b - b/beta in the first to b/beta in
the last: broad attention below, few important positions above. The window stays everywhere.

As the public code has it, in integers, over all L layers of the model (recorded or not):
    min = floor(b/beta), max = 2b - min; if the prefix is shorter than max: max = P - window,
    min = 2b - max; step = floor((max - min)/(L - 1)); layer l: max - l*step, at least 1; L = 1: b.
evict=fifo: the cap of a layer is that number + window.

If the whole prefix fits b (P <= k), every layer has b and keeps the prefix: the formula would give
a negative step, and the code does not compress such a prompt either.

Paper and public code (pyramidkv_utils.py):
- the paper's sequence is of real numbers: proposed shape=linear, which rounds each layer's number
  down and so ends at min exactly; the contract's shape=steps rounds the step, so the last layers
  have up to L - 2 more than min.
- the paper's numbers are of whole layers, window included, so that the prefix gets the layer's
  number less the window, and the last layer, with k/beta, may keep no prefix at all (proposed
  counts=all); the code, and the contract (counts=prefix), lay the sequence over the prefix alone.
- prompts of k to 2b positions: the code gives every layer b (proposed short=uniform); by the
  formula, which the contract follows (short=pyramid), such prompts have a pyramid of small slope.
"""

from common import best, budget, full_layers, with_defaults
from snapkv import DEFAULTS as SNAPKV
from snapkv import check, decode, votes

DEFAULTS = {**SNAPKV, "beta": "20", "shape": "steps", "short": "pyramid", "counts": "prefix"}


def room(l, L, P, k, w, o):
    """Prefix positions of layer l."""
    if L == 1 or P <= k or (o["short"] == "uniform" and P < 2 * (k - w)):
        return k - w
    inside = w if o["counts"] == "all" else 0  # the window's share of what the sequence gives
    b, most = k - w + inside, P - w + inside
    low = b // int(o["beta"])
    high = 2 * b - low
    if high > most:
        high, low = most, 2 * b - most
    if o["shape"] == "linear":
        n = high - -(-(high - low) * l // (L - 1))  # rounded down
    else:
        n = high - l * ((high - low) // (L - 1))
    return max(0, n - inside) if inside else max(1, n)


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        w, k = check(view, o)
        n, caches = room(layer.layer, view.layers_of_model, view.P, k, w, o), []
        for kv in range(view.Hkv):
            score = votes(view, kv, o)
            chosen = best(range(view.P - w), score, n, exact=o["pooling"] == "max")
            caches.append(sorted(chosen) + list(range(view.P - w, view.P)))
        decode(layer, caches, [n + w] * view.Hkv, o["evict"])
    return result
