# SPDX-License-Identifier: Apache-2.0
"""TidalDecode: some layers choose, the others reuse. Yang et al., arXiv 2410.05076, section 3.

Within one step neighbouring layers look at much the same positions. Layers below the first
selecting layer attend to everything. A selecting layer attends to everything and chooses the K
positions with the most attention. The layers behind it, up to the next selecting layer, attend to
its choice only. No state between steps.

Chosen per KV head among the positions before self, by agg over the group of the probabilities of
the full softmax; the layers behind take over the choice of the same KV head, and add self.
select=2/mid: layers of the model; mid = floor(L/2). A layer follows the nearest recorded selecting
layer below it; if none is recorded, it attends to everything.

correct=T: at every T-th step all layers attend to everything. (The paper's cache correction
recomputes polluted keys and values there; a replay has none to recompute.)

Paper and public code (modify_llama.py): the code chooses per query head, and with self among the
candidates, so that K counts self; the contract's K does not.
"""

from common import best, budget, full_layers, group_attention, with_defaults

DEFAULTS = {"k": None, "select": "2/mid", "correct": "0", "agg": "max"}


def selecting(text, L):
    return sorted(L // 2 if x == "mid" else int(x) for x in text.split("/"))


def run(trace, seq, options, layers=None):
    o = with_defaults(DEFAULTS, options)
    result = full_layers(trace, seq, layers)
    if not result:
        return result
    first = result[0].view
    k, every = budget(o["k"], first.P), int(o["correct"])
    chosen_by = selecting(o["select"], first.layers_of_model)
    for t in range(first.N):
        before = list(range(first.P + t + 1))  # self among them: the softmax is the full one
        choice = None
        for layer in result:
            view = layer.view
            if layer.layer in chosen_by:
                choice = []
                for kv in range(view.Hkv):
                    score = group_attention(view, t + 1, kv, before, o["agg"])
                    choice.append(best(before[:-1], score, k))
            if layer.layer in chosen_by or choice is None or (every and (t + 1) % every == 0):
                layer.attend_all()
            else:
                layer.attend(choice)
    return result
