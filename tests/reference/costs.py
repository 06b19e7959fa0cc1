# SPDX-License-Identifier: Apache-2.0
"""What a policy costs, from the references' sets and the words of the contract, against the program.

Random small traces and options as in compare.py, in both modes of the cache and of scores. Counts
are whole numbers, so they agree to the last byte: rows read and written, entries that a refresh
moved, and what choosing took:

  logits or probabilities   4 bytes for each key (page) and query head, written and read
  ranking keys              4 bytes for each key (page) and whoever chooses, written and read
  digests of pages          2 vectors of D (bounds) or 1 (mean) for each page and KV head, read where
                            pages are scored; the newest page's read and written with each row
  scores of entries         h2o, tova: for each entry attended G weights and a score, written and read
  index lists               4 bytes for each row gathered; with a rebuilt cache its list, both ways

`costs.py [SEEDS [POLICY...]]`; ends with `N passed, N failed`.
"""

import random
import sys
import tempfile

import common
import audit_replay
import compare
import triforce
from audit_replay import counts, equal

REDUCED = ("h2o", "tova", "snapkv", "pyramidkv", "adakv")
NAMES = REDUCED + ("quest", "unlimiformer", "longformer", "sparse-transformer", "triforce", "tidal")
MODES = [(cache, scores) for cache in ("compact", "gather") for scores in ("fused", "recompute")]
KEYS = ("keys_read", "kv_read_bytes", "kv_write_bytes", "selection_bytes", "refresh_entries",
        "refresh_bytes", "full_layer_steps")  # fmt: skip
SEEDS = 24


class Bill:
    """Of one layer; `step` -1 is the prefill, which no total includes."""

    def __init__(self, name, options, layer, cache, scores):
        view = self.view = layer.view
        self.name, self.o, self.layer = name, options, layer
        self.cache, self.scores = cache, scores
        self.key = view.D * view.element
        self.row = self.key + view.Dv * view.element
        self.heads = view.Hq + view.Hkv
        self.steps = [self.step(t) for t in range(-1, view.N)]

    def keys(self, t):
        """Rows read: what a group's heads share is read once. Without self: all that is listed."""
        view, me = self.view, self.view.P + t
        sets = self.layer.sets[t]
        if sets[0] is None:
            return view.Hkv * (me + 1), 0
        each = len(sets) // view.Hkv
        rows = [set().union(*sets[h * each : (h + 1) * each]) | {me} for h in range(view.Hkv)]
        return sum(map(len, rows)), sum(map(len, sets))

    def step(self, t):
        view, bill = self.view, dict.fromkeys(KEYS, 0)
        if t < 0:
            kept = view.Hkv * view.P
            if self.name in REDUCED:
                kept = sum(len(one) for one in self.layer.sets[0])
            bill["kv_write_bytes"] = kept * self.row
        else:
            bill["full_layer_steps"] = self.layer.is_full[t]
            bill["keys_read"], listed = self.keys(t)
            bill["kv_read_bytes"] = bill["keys_read"] * self.row
            bill["kv_write_bytes"] = view.Hkv * self.row
            copies = self.retrieves() and self.cache == "compact"
            if copies and not self.layer.is_full[t]:
                bill["kv_write_bytes"] += view.Hkv * self.row
            if self.name not in REDUCED and not copies:
                bill["selection_bytes"] += 4 * listed
        getattr(self, self.name.replace("-", "_"))(t, view.P + t + 1, bill)
        return bill

    def score(self, n, bill, choosers=None):
        """n keys or pages are scored by all query heads, and ranked by those who choose."""
        bill["selection_bytes"] += 8 * n * (self.view.Hq + (choosers or self.view.Hkv))

    def pages(self, t, n, vectors, is_scored, bill):
        digest = self.view.Hkv * vectors * self.key
        bill["selection_bytes"] += n * digest if t < 0 else 2 * digest
        if is_scored:
            bill["selection_bytes"] += n * digest
            self.score(n, bill)

    # --- what each policy pays for choosing ---
    def entries(self, t, L, bill):
        if t < 0:
            self.score(L, bill)
        else:
            bill["selection_bytes"] += 8 * bill["keys_read"] * (self.view.G + 1)

    h2o = entries

    def tova(self, t, L, bill):
        self.entries(t, L, bill)
        if t < 0 and self.scores == "recompute":
            bill["kv_read_bytes"] += self.view.Hkv * L * self.key

    def snapkv(self, t, L, bill):
        if t < 0:
            self.score(L, bill)
            bill["kv_read_bytes"] += self.view.Hkv * L * self.key

    pyramidkv = adakv = snapkv

    def quest(self, t, L, bill):
        if self.layer.layer >= int(self.o["dense"]):
            self.pages(t, -(-L // int(self.o["page"])), 2, t >= 0, bill)

    def unlimiformer(self, t, L, bill):
        if t >= 0:
            self.score(L, bill, self.view.Hq)
            bill["kv_read_bytes"] += self.view.Hkv * L * self.key

    def longformer(self, t, L, bill):
        pass

    sparse_transformer = longformer

    def tidal(self, t, L, bill):
        listed = [self.view.layers_of_model // 2 if one == "mid" else int(one)
                  for one in self.o["select"].split("/")]  # fmt: skip
        if t >= 0 and self.layer.layer in listed:
            self.score(L, bill)
            if self.scores == "recompute":
                bill["kv_read_bytes"] += self.view.Hkv * L * self.key

    def retrieves(self):
        return self.name == "triforce" and self.o["draft"] == "retrieval"

    def retained(self, t):
        """The retrieval cache of each KV head after a step."""
        if t >= 0:
            return self.layer.order[t]
        k = common.budget(self.o["k"], self.view.P)
        return [triforce.rebuild(self.view, 0, kv, k, self.o) for kv in range(self.view.Hkv)]

    def triforce(self, t, L, bill):
        if not self.retrieves():
            return
        verifies, over_prompt = t < 0 or self.layer.is_full[t], self.o["over"] == "prompt"
        n = -(-(self.view.P if over_prompt else L) // int(self.o["chunk"]))
        before = bill["selection_bytes"]
        self.pages(t, n, 1, verifies, bill)
        if over_prompt and t >= 0:  # no row enters a chunk: no upkeep
            bill["selection_bytes"] -= 2 * self.view.Hkv * self.key
        assert bill["selection_bytes"] >= before
        if not verifies:
            return
        new = self.retained(t)
        old = self.retained(t - 1) if t >= 0 else [[]] * self.view.Hkv
        bill["refresh_entries"] = sum(len(set(a) - set(b)) for a, b in zip(new, old))
        bill["selection_bytes"] += 8 * sum(map(len, new))
        if self.cache == "compact":
            bill["refresh_bytes"] = bill["refresh_entries"] * self.row
            bill["kv_read_bytes"] += bill["refresh_bytes"]
            bill["kv_write_bytes"] += bill["refresh_bytes"]


def window_bills(trace):
    """Layers with a window cost the same under every policy."""
    for l in trace.layer_ids:
        if not trace.window[l]:
            continue
        view = trace.view(0, l)
        row, bills = view.element * (view.D + view.Dv), []
        for t in range(-1, view.N):
            bill, seen = dict.fromkeys(KEYS, 0), min(view.P + t + 1, trace.window[l])
            bill["kv_write_bytes"] = view.Hkv * row * (seen if t < 0 else 1)
            if t >= 0:
                bill["keys_read"] = view.Hkv * seen
                bill["kv_read_bytes"] = bill["keys_read"] * row
            bills.append(bill)
        yield bills


def compare_bills(place, bills, theirs):
    for key in KEYS:
        equal(place + key, sum(b[key] for one in bills for b in one[1:]), theirs[key])
    for key in ("kv_read_bytes", "kv_write_bytes", "selection_bytes"):
        equal(place + "prefill." + key, sum(one[0][key] for one in bills), theirs["prefill"][key])


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    names, program, undecided = sys.argv[2:] or NAMES, compare.known(), 0
    for seed in range(seeds):
        draw = random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="rattn-costs-") as folder:
            kind, trace, P, W = compare.make(folder, seed, draw)
            for number, name in enumerate(names):
                draw = random.Random("%d %s costs" % (seed, name))
                n_layers = int(trace.meta["n_layers"])
                options = compare.random_options(name, draw, P, W, kind, n_layers)
                spelling, used = compare.spell(name, options, program[name], draw)
                cache, scores = MODES[(seed + number) % len(MODES)]
                place = "seed %d, %s, %s, %s: " % (seed, spelling, cache, scores)
                common.margins.clear()
                module = compare.module(name)
                layers = module.run(trace, 0, used)
                if min(common.margins, default=1) < compare.NEAR:
                    undecided += 1
                    continue
                whole = {**module.DEFAULTS, **used}
                bills = [Bill(name, whole, layer, cache, scores).steps for layer in layers]
                bills += window_bills(trace)
                modes = ("-j", "1", "--cache", cache, "--scores", scores)
                for theirs in audit_replay.replay(folder, trace.path, [spelling], *modes):
                    compare_bills(place, bills, theirs.json)
    if undecided:
        print("skipped: %d replays whose choice hangs on the last bits of a score" % undecided)
    print("%d passed, %d failed" % (counts[True], counts[False]))
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
