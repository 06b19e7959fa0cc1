# SPDX-License-Identifier: Apache-2.0
"""Quest: query-aware choice of pages. Tang et al., arXiv 2406.10774, section 3.2, algorithm 1.

Keys lie in pages of `page` positions; each page knows, per channel, the smallest and the largest
value of its keys (after RoPE, as cached). A query's score of a page is the sum over channels of
max(q*min, q*max): no key of the page can exceed it. The best floor(K/page) pages are read whole.
No state: every step chooses anew, and nothing is ever evicted.

The step's own key is in its page before the choice. The newest page is always read, whatever its
score, and counts as one of the floor(K/page), of which there is at least one.

Paper and public code (quest_attention.py): the code reads at least three pages and does not force
the newest one (proposed: least=1, newest=1; the code is least=3,newest=0); both leave the first two
layers of the model dense (dense=2; here the default is 0). The code scores per query head over
repeated keys; here agg=max makes one bound of a group's.
"""

import numpy as np
from common import aggregate, best, budget, full_layers, group, with_defaults

DEFAULTS = {"k": None, "page": "16", "agg": "max", "dense": "0", "least": "1", "newest": "1"}


def bound(query, keys):
    """Of one page."""
    low, high = keys.min(axis=0), keys.max(axis=0)
    return float(sum(np.maximum(query * low, query * high)))


def choose(view, t, kv, o):
    """Positions of the pages read at step t, self included when its page is."""
    me, page = view.P + t, int(o["page"])
    pages = [range(a, min(a + page, me + 1)) for a in range(0, me + 1, page)]
    n = max(int(o["least"]), budget(o["k"], view.P) // page)
    rows = []
    for h in group(view, kv):
        rows.append([bound(view.q[h, t + 1], view.K[kv, list(one)]) for one in pages])
    score = aggregate(rows, o["agg"])
    forced = [len(pages) - 1] if o["newest"] == "1" else []
    others = [i for i in range(len(pages)) if i not in forced]
    chosen = forced + (best(others, score, n - len(forced)) if n > len(forced) else [])
    return [j for i in chosen for j in pages[i]]


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    for layer in result:
        view = layer.view
        for t in range(view.N):
            if layer.layer < int(o["dense"]):
                layer.attend_all()
                continue
            chosen = [choose(view, t, kv, o) for kv in range(view.Hkv)]
            layer.attend([[j for j in one if j != view.P + t] for one in chosen])
    return result
