# SPDX-License-Identifier: Apache-2.0
"""SnapKV: what the end of the prompt looks at. Li et al., arXiv 2404.14469, sections 4.1 and 4.2.

The last `window` prompt queries vote: a position of the prefix gets the sum of the probabilities
they give it (each softmax causal, over 0..its own position). The votes are pooled along the prefix,
so that neighbours of a hit stay with it. Kept are the k - window best of the prefix and the window.
Chosen once, after the prompt.

Order of operations: sum over queries, per query head; one score of the group (agg); pool; rank.

Paper and public code (snapkv_utils.py): the code pools by average with kernel 5 and evicts nothing
while decoding, so the cache grows (evict=none); the paper of this project's main policy evicts to
hold K (evict=fifo: the lowest position goes). Average pooling counts zeros beyond both ends, in the
divisor too, as torch does. The code repeats the keys of a shared head and votes per query head;
here agg makes one vote of a group's. The code leaves a prompt shorter than k alone: so it is here,
as then everything fits.
"""

from common import aggregate, best, budget, full_layers, group, pool, softmax, with_defaults

DEFAULTS = {
    "k": None, "window": "32", "pool": "7", "pooling": "max", "agg": "max", "evict": "none",
}  # fmt: skip


def votes(view, kv, o):
    """Pooled score of each position of the prefix. early: an option of adakv, pools per query."""
    early = o.get("early") == "1"
    w, P, W = int(o["window"]), view.P, view.tail.shape[1]
    heads = []
    for h in group(view, kv):
        received = [0.0] * (P - w)
        for position in range(P - w, P):
            query = view.tail[h, position - (P - W)]
            p = list(softmax(view.scale * (view.K[kv, : position + 1] @ query)))[: P - w]
            if early:
                p = pool(p, int(o["pool"]), o["pooling"])
            received = [a + b for a, b in zip(received, p)]
        heads.append(received)
    score = list(aggregate(heads, o["agg"]))
    return score if early else pool(score, int(o["pool"]), o["pooling"])


def check(view, o):
    w, k = int(o["window"]), budget(o["k"], view.P)
    if not (w < k and w <= view.tail.shape[1]):
        raise ValueError("window=%d needs k > window and as many tail queries" % w)
    return w, k


def decode(layer, caches, caps, evict):
    """The steps after the selection; what a cap is worth is the caller's business."""
    for t in range(layer.view.N):
        layer.attend(caches)
        for kv, cache in enumerate(caches):
            cache.append(layer.view.P + t)
            while evict == "fifo" and len(cache) > caps[kv]:
                cache.remove(min(cache))


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        w, k = check(view, o)
        caches = []
        for kv in range(view.Hkv):
            score = votes(view, kv, o)
            chosen = best(range(view.P - w), score, k - w, exact=o["pooling"] == "max")
            caches.append(sorted(chosen) + list(range(view.P - w, view.P)))
        decode(layer, caches, [k] * view.Hkv, o["evict"])
    return result
