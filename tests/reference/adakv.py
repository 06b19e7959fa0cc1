# SPDX-License-Identifier: Apache-2.0
"""Ada-KV: SnapKV with the room of a layer split by need. Feng et al., arXiv 2407.11550, 4.1 to 4.3.

The pooled votes of all KV heads of a layer compete for the layer's Hkv*(k - window) prefix places,
so that a head with spread attention gets more than one that looks at few positions. Of equal votes
the lower head's go first, then lower positions. The window stays in every head. A safeguard keeps
heads from starving.

safeguard=guard (as in NVIDIA's kvpress): the floor(alpha*(k - window)) best of each head are safe;
the rest of the places goes to the best of what remains of all heads. The sum is exact.
safeguard=mix (the authors' code, snapkv_utils.py): count what each head wins in a free competition,
then a head gets round(won*(1 - alpha) + floor(alpha*(k - window))), half to even, of its own best.
Rounding can make the sum miss Hkv*(k - window) by a few, on either side.
alpha=0 is the free competition in both. The paper's algorithm 2 writes alpha*won + (1 - alpha)*B/h,
with alpha as the weight of the competition; the code's alpha, as here, is the weight of the floor,
so the paper's 0.2 would be alpha=0.8 of safeguard=mix, without its rounding.

evict=fifo: the cap of a head is its number + window. If the whole prefix fits (P <= k), every head
has k - window and keeps the prefix; the code does not compress such a prompt either.

The authors' code averages the votes over the window where SnapKV sums them, which changes no rank,
and takes the mean over a group's query heads where the contract has agg=max. The paper's algorithm
2 pools each query's probabilities before it averages them, its code afterwards (proposed: early=1
for the paper; early=0 here, as in SnapKV).
"""

from common import best, full_layers, part, with_defaults
from snapkv import DEFAULTS as SNAPKV
from snapkv import check, decode, votes

DEFAULTS = {**SNAPKV, "alpha": "0.2", "safeguard": "guard", "early": "0"}


def split(scores, b, o):
    """[chosen prefix positions] per head."""
    n, safe, exact = len(scores[0]), part(o["alpha"], b), o["pooling"] == "max"
    heads = range(len(scores))
    every = {(h, j): scores[h][j] for h in heads for j in range(n)}  # lower head, lower position
    if o["safeguard"] == "guard":
        kept = [(h, j) for h in heads for j in best(range(n), scores[h], safe, exact)]
        rest = [key for key in every if key not in kept]
        kept += best(rest, every, len(scores) * b - len(kept), exact)
        return [[j for head, j in kept if head == h] for h in heads]
    won = best(list(every), every, len(scores) * b, exact)
    chosen = []
    for h in heads:
        count = sum(1 for head, _ in won if head == h)
        places = round(count * (1 - float(o["alpha"])) + safe)
        chosen.append(best(range(n), scores[h], places, exact))
    return chosen


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        w, k = check(view, o)
        window, b = list(range(view.P - w, view.P)), k - w
        if view.P <= k:
            caches = [list(range(view.P)) for _ in range(view.Hkv)]
            caps = [k] * view.Hkv
        else:
            chosen = split([votes(view, kv, o) for kv in range(view.Hkv)], b, o)
            caches = [sorted(one) + window for one in chosen]
            caps = [len(cache) for cache in caches]
        decode(layer, caches, caps, o["evict"])
    return result
