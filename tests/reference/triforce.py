# SPDX-License-Identifier: Apache-2.0
"""TriForce: a retrieval cache between verifications. Sun et al., arXiv 2404.11912, section 4.1.

Every (gamma + 1)-th step verifies the draft: it attends to everything, then rebuilds the cache. The
prompt counts as a verification. To rebuild, the positions so far are cut into chunks; a chunk's
score is the attention of the query to the mean of its keys; the best chunks that fit K are cached
whole. The steps between attend to the cache and append themselves to it.

With i = t + 1, step t verifies when i is a multiple of gamma + 1; its own query chooses, the last
prompt query after the prompt. The mean is of the keys as stored, after RoPE. Softmax runs over
chunks, per query head; agg makes one score of a group's. n = max(1, floor(K/chunk)) chunks: the
newest, perhaps partial, and the n-1 best others; with first=1 chunk 0 too, where the newest, if it
is forced, leaves room.

Evicted is what the public code overwrites (cache.py writes new tokens over the tail of the cache):
the lowest-ranked chunk first, within a chunk the highest position first; the newest chunk ranks
best, chunk 0 of first=1 after it; once all are gone, appended positions, oldest first.

draft=streaming: between verifications the first `sinks` positions and the K - sinks newest, as the
smaller draft model of the paper has it.

Paper and public code: the code always keeps chunk 0 (first=1), does not force the newest chunk, and
chooses among chunks of the prompt only, all later positions being cached besides. Proposed:
over=prompt for the latter two; the contract's rule is over=all. It compares q.mean without softmax,
which is the same where no KV head is shared.
"""

from common import aggregate, best, budget, full_layers, group, softmax, with_defaults

DEFAULTS = {
    "k": None, "chunk": "8", "gamma": None, "agg": "max", "first": "0", "draft": "retrieval",
    "sinks": "4", "over": "all",
}  # fmt: skip


def rebuild(view, row, kv, k, o):
    """The cache of one KV head, next to be evicted first, from the query of `row`."""
    length = view.P if o["over"] == "prompt" else view.P + row  # row 0: the prompt alone
    size = int(o["chunk"])
    chunks = [list(range(a, min(a + size, length))) for a in range(0, length, size)]
    n, rows = max(1, k // size), []
    for h in group(view, kv):
        logits = [view.scale * (view.q[h, row] @ view.K[kv, one].mean(axis=0)) for one in chunks]
        rows.append(softmax(logits))
    score = aggregate(rows, o["agg"])
    ranked = [] if o["over"] == "prompt" else [len(chunks) - 1]
    if o["first"] == "1" and n > len(ranked) and 0 not in ranked:
        ranked.append(0)
    others = [i for i in range(len(chunks)) if i not in ranked]
    ranked += best(others, score, n - len(ranked)) if n > len(ranked) else []
    order = [j for i in reversed(ranked) for j in reversed(chunks[i])]
    if o["over"] == "prompt":
        order += range(view.P, view.P + row)
        del order[: max(0, len(order) - k)]
    return order


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        k, sinks, heads = budget(o["k"], view.P), int(o["sinks"]), range(view.Hkv)
        caches = [rebuild(view, 0, kv, k, o) for kv in heads]
        for t in range(view.N):
            me = view.P + t
            if (t + 1) % (int(o["gamma"]) + 1) == 0:
                layer.attend_all()
                caches = [rebuild(view, t + 1, kv, k, o) for kv in heads]
            elif o["draft"] == "streaming":
                kept = set(range(min(sinks, me))) | set(range(max(0, me - (k - sinks)), me))
                layer.attend([kept] * view.Hkv)
            else:
                layer.attend(caches)
                for cache in caches:
                    cache.append(me)
                    del cache[: max(0, len(cache) - k)]
            if o["draft"] == "retrieval":
                layer.order.append([list(map(int, cache)) for cache in caches])
    return result
