# SPDX-License-Identifier: Apache-2.0
"""The references against examples worked by hand: each comment is the working.

Traces are made so that softmax gives round numbers: scale 1, one-hot queries, keys that hold
logarithms of small weights. A query that is zero gives every position the same probability.
"""

import sys
import tempfile

from worked import equal, sets, trace

EXAMPLES = []


def example(function):
    EXAMPLES.append(function)
    return function


# h2o: P=4, K=2, recent=0.5, so the newest one and the best of the rest.
#   acc           .9 .4 .5 .2 of 0..3: 3 stays as newest, of 0 1 2 position 0 has most. Kept {0, 3}
#   step 0, self 4: weights of 0, 3, 4 are 1 : 3 : 4, so 1/8 3/8 4/8 are added:
#                 0: 1.025, 3: .575, 4: .5. Newest 4; of 0 and 3, 0 has more. Kept {0, 4}
#   step 1, self 5: weights of 0, 4, 5 are 1 : 18 : 1, so .05 .9 .05:
#                 0: 1.075, 4: 1.4, 5: .05. Newest 5; of 0 and 4, 4 has more. Kept {4, 5}
#   step 2, self 6 attends to {4, 5}
@example
def h2o(folder):
    import h2o

    weights = [[1, 9, 9, 3, 4, 1, 1], [1, 9, 9, 9, 18, 1, 1], [1] * 7]
    t = trace(folder, [None, 0, 1, 2], weights, 4, acc=[0.9, 0.4, 0.5, 0.2])
    got = h2o.run(t, 0, {"k": "2"})
    equal("h2o", [[0, 3], [0, 4], [4, 5]], sets(got))
    out, mass, error = got[0].quality()
    # step 0: kept and self have 1 + 3 + 4 of 1 + 9 + 9 + 3 + 4
    assert abs(mass[0, 0] - 8 / 26) < 1e-6, mass[0, 0]
    assert abs(out[0, 0, 3] - 3 / 8) < 1e-6, out[0, 0]


# tova: P=4, K=2.
#   prefill: weights of 0..3 are 5 : 2 : 5 : 1, kept {0, 2}
#   step 0, self 4: weights of 0, 2, 4 are 2 : 3 : 1: self has least and goes. Kept {0, 2}
#   step 1, self 5: weights of 0, 2, 5 are 1 : 2 : 2. Kept {2, 5}
#   step 2, self 6: weights of 2, 5, 6 are 1 : 1 : 1, a tie, the lower ones stay. Kept {2, 5}
#   step 3, self 7 attends to {2, 5}
@example
def tova(folder):
    import tova

    weights = [[5, 2, 5, 1, 9, 9, 9, 9], [2, 9, 3, 9, 1, 9, 9, 9], [1, 9, 2, 9, 9, 2, 9, 9]]
    weights.append([1] * 8)
    t = trace(folder, [0, 1, 2, 3, None], weights, 4)
    equal("tova", [[0, 2], [0, 2], [2, 5], [2, 5]], sets(tova.run(t, 0, {"k": "2"})))


# snapkv: P=6, window=2, k=4, so two of the prefix 0..3.
#   position 4 sees weights 1 6 1 1 1 of 0..4: .1 .6 .1 .1 (and .1 for itself)
#   position 5 sees weights 1 1 1 4 1 2 of 0..5: .1 .1 .1 .4
#   votes .2 .7 .2 .5
#   pool=1: best 1 and 3. Kept {1, 3, 4, 5}
#   pool=3, max: .7 .7 .7 .5: a plateau, the lower ones first: 0 and 1. Kept {0, 1, 4, 5}
#   pool=3, avg: .9/3 1.1/3 1.4/3 .7/3: best 2 and 1. Kept {1, 2, 4, 5}
#   evict=none: the cache grows by 6, then by 7; fifo: 1 goes for 6, then 3 goes for 7
@example
def snapkv(folder):
    import snapkv

    weights = [[1, 6, 1, 1, 1, 9, 9, 9, 9], [1, 1, 1, 4, 1, 2, 9, 9, 9]]
    t = trace(folder, [0, 1, None, None, None], weights, 6, W=2)
    one = {"k": "4", "window": "2", "pool": "1"}
    grown = [[1, 3, 4, 5], [1, 3, 4, 5, 6], [1, 3, 4, 5, 6, 7]]
    equal("snapkv", grown, sets(snapkv.run(t, 0, one)))
    fifo = [[1, 3, 4, 5], [3, 4, 5, 6], [4, 5, 6, 7]]
    equal("snapkv fifo", fifo, sets(snapkv.run(t, 0, {**one, "evict": "fifo"})))
    got = sets(snapkv.run(t, 0, {**one, "pool": "3"}))
    equal("snapkv max", [0, 1, 4, 5], got[0])
    got = sets(snapkv.run(t, 0, {**one, "pool": "3", "pooling": "avg"}))
    equal("snapkv avg", [1, 2, 4, 5], got[0])


# quest: pages of 2, k=4, so two pages, the newest and one other. P=5, keys of two channels:
#   page 0: (1,0) (0,3)   page 1: (-2,1) (2,0)   page 2: (0,0) self...
#   step 0, self 5, query (1,0): bounds: page 0 max(0,1)=1, page 1 max(-2,2)=2; newest page 2 is
#     {4, 5}. Read pages 1, 2: {2, 3, 4} without self
#   step 1, self 6, query (0,1): page 0: 3, page 1: 1, page 2: keys 4, 5 are (0,0) (0,5): 5;
#     newest page 3 = {6}. Read pages 2, 3: {4, 5}
#   step 2, self 7, query 0: all bounds 0, the lowest page wins. Read pages 0, 3: {0, 1, 6}
#   k=3: floor(3/2) = 1 page, the newest: {4}, {}, {6}
@example
def quest(folder):
    import quest

    keys = [[1, 0], [0, 3], [-2, 1], [2, 0], [0, 0], [0, 5], [0, 0], [0, 0]]
    t = trace(folder, [None, 0, 1, None], None, 5, keys=keys)
    equal("quest", [[2, 3, 4], [4, 5], [0, 1, 6]], sets(quest.run(t, 0, {"k": "4", "page": "2"})))
    equal("quest", [[4], [], [6]], sets(quest.run(t, 0, {"k": "3", "page": "2"})))
    # The public code: three pages at least, and the newest has to earn its place.
    got = quest.run(t, 0, {"k": "4", "page": "2", "least": "3", "newest": "0"})
    equal("quest", [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]], sets(got))
    got = quest.run(t, 0, {"k": "4", "page": "2", "dense": "1"})
    equal("quest dense", [1, 1, 1], got[0].is_full)


# unlimiformer: two query heads on one KV head, k=2.
#   step 0, self 4: head 0 sees products 1 3 2 3 of 0..3: 1 and 3. Head 1 sees 5 0 0 5: 0 and 3
#   step 1, self 5: head 0 looks along axis 1: 5 0 0 5 1: 0 and 3. Head 1 has a zero query: 0 and 1
@example
def unlimiformer(folder):
    import unlimiformer

    keys = [[1, 5], [3, 0], [2, 0], [3, 5], [0, 1], [9, 9]]
    t = trace(folder, [[None, 0, 1], [None, 1, None]], None, 4, group=2, keys=keys)
    got = unlimiformer.run(t, 0, {"k": "2"})
    equal("unlimiformer", [[[1, 3], [0, 3]], [[0, 3], [0, 1]]], got[0].sets)


# longformer: window=3 with self, dilation=2: self-2 and self-4.
#   P=5: self 5: {1, 3}; self 6: {2, 4}; globals=2 adds 0 and 1; globals=0/5 adds 0, and 5 once it
#   lies before self. window=1 is self alone.
@example
def longformer(folder):
    import longformer

    t = trace(folder, [None] * 3, [[1] * 7], 5)
    o = {"window": "3", "dilation": "2"}
    equal("longformer", [[1, 3], [2, 4]], sets(longformer.run(t, 0, o)))
    equal("globals", [[0, 1, 3], [0, 1, 2, 4]], sets(longformer.run(t, 0, {**o, "globals": "2"})))
    equal("globals", [[0, 1, 3], [0, 2, 4, 5]], sets(longformer.run(t, 0, {**o, "globals": "0/5"})))
    equal("window=1", [[], []], sets(longformer.run(t, 0, {"window": "1"})))
    got = longformer.run(t, 0, {**o, "globals": "0/5", "symmetric": "1"})
    equal("symmetric", [1, 0], got[0].is_full)


# sparse-transformer, stride 3. P=7.
#   strided, self 7: 4 5 6 (self-3 on), and 1 4 (7-j a multiple of 3): {1, 4, 5, 6}
#            self 8: 5 6 7, and 2 5: {2, 5, 6, 7}
#   fixed, c=1: blocks 012 345 678, each ends in 2, 5, 8.
#            self 7: own block 6; ends 2 5: {2, 5, 6}. self 8: 6 7, 2 5: {2, 5, 6, 7}
#   fixed, c=2: ends 1 2, 4 5, 7 8. self 7: 6, 1 2 4 5. self 8: 6 7, 1 2 4 5
@example
def sparse_transformer(folder):
    import sparse_transformer

    t = trace(folder, [None] * 3, [[1] * 9], 7)
    run = sparse_transformer.run
    equal("strided", [[1, 4, 5, 6], [2, 5, 6, 7]], sets(run(t, 0, {"stride": "3"})))
    o = {"pattern": "fixed", "stride": "3"}
    equal("fixed", [[2, 5, 6], [2, 5, 6, 7]], sets(run(t, 0, o)))
    expected = [[1, 2, 4, 5, 6], [1, 2, 4, 5, 6, 7]]
    equal("fixed", expected, sets(run(t, 0, {**o, "c": "2"})))
    equal("in turn", [[4, 5, 6], [5, 6, 7]], sets(run(t, 0, {"stride": "3", "combine": "turn"})))


# pyramidkv, rooms by hand. k=22, window=2: b = 20; L = 4, beta = 20; P = 100:
#   min = 1, max = 39, step = floor(38/3) = 12: 39 27 15 3. linear: 39 26.3 13.7 1 -> 39 26 13 1
#   P = 32: prefix 30 < 39, so max = 30, min = 10, step = floor(20/3) = 6: 30 24 18 12
#     (the code: P < 2b = 40, so 20 everywhere)
#   P = 22: the prefix of 20 fits. L = 1: 20
#   counts=all: k itself: min = 1, max = 43, step 14: 43 29 15 1, less the window: 41 27 13 and none
# and on the trace of snapkv: k=4, window=2, b=2, L=2, beta=2: min = 1, max = 3, step 2: 3 and 1.
#   votes .2 .7 .2 .5: layer 0 keeps 1 3 0 (0 and 2 tie), layer 1 keeps 1. fifo: caps 5 and 3.
@example
def pyramidkv(folder):
    import pyramidkv

    def rooms(L, P, **other):
        o = {**pyramidkv.DEFAULTS, **other}
        return [pyramidkv.room(l, L, P, 22, 2, o) for l in range(L)]

    equal("long", [39, 27, 15, 3], rooms(4, 100))
    equal("linear", [39, 26, 13, 1], rooms(4, 100, shape="linear"))
    equal("short", [30, 24, 18, 12], rooms(4, 32))
    equal("uniform", [20] * 4, rooms(4, 32, short="uniform"))
    equal("fits", [20] * 4, rooms(4, 22))
    equal("counts", [41, 27, 13, 0], rooms(4, 100, counts="all"))
    equal("one layer", [20], rooms(1, 100))
    weights = [[1, 6, 1, 1, 1, 9, 9, 9], [1, 1, 1, 4, 1, 2, 9, 9]]
    t = trace(folder, [0, 1, None, None], weights, 6, W=2, n_layers=2, layers=(0, 1))
    got = pyramidkv.run(t, 0, {"k": "4", "window": "2", "pool": "1", "beta": "2", "evict": "fifo"})
    equal("pyramidkv", [[0, 1, 3, 4, 5], [1, 3, 4, 5, 6]], sets(got, 0))
    equal("pyramidkv", [[1, 4, 5], [4, 5, 6]], sets(got, 1))


# adakv: two heads, prefix of 6, b = 3, so 6 places.
#   head 0: 9 8 7 6 5 1    head 1: 4 2 2 1 1 1
#   alpha=0: 9 8 7 6 5 of head 0, 4 of head 1: five and one
#   guard, alpha=.67: floor(2.01) = 2 safe in each: 0 1 and 0 1 (2 and 2 tie); the other two places
#     go to 7 6: {0 1 2 3}, {0 1}
#   mix, alpha=.5: won 5 and 1, floor(1.5) = 1: round(2.5 + 1) = 4 (half to even), round(1.5) = 2
#   equal scores: all 1: lower head first, then lower position: six of head 0, none of head 1
@example
def adakv(folder):
    import adakv

    scores, one = [[9, 8, 7, 6, 5, 1], [4, 2, 2, 1, 1, 1]], [[1] * 6] * 2

    def split(votes, **other):
        return [sorted(x) for x in adakv.split(votes, 3, {**adakv.DEFAULTS, **other})]

    equal("free", [[0, 1, 2, 3, 4], [0]], split(scores, alpha="0"))
    equal("free", [[0, 1, 2, 3, 4], [0]], split(scores, alpha="0", safeguard="mix"))
    equal("guard", [[0, 1, 2, 3], [0, 1]], split(scores, alpha="0.67"))
    equal("mix", [[0, 1, 2, 3], [0, 1]], split(scores, alpha="0.5", safeguard="mix"))
    equal("ties", [[0, 1, 2, 3, 4, 5], []], split(one, alpha="0"))
    # With one head it is snapkv. early=1, pool=3: position 4's votes .1 .6 .1 .1 become
    # .6 .6 .6 .1, position 5's .1 .1 .1 .4 become .1 .1 .4 .4; sums .7 .7 1 .5: best 2 and 0.
    weights = [[1, 6, 1, 1, 1, 9, 9, 9], [1, 1, 1, 4, 1, 2, 9, 9]]
    t = trace(folder, [0, 1, None, None], weights, 6, W=2)
    got = adakv.run(t, 0, {"k": "4", "window": "2", "pool": "1", "evict": "fifo"})
    equal("adakv", [[1, 3, 4, 5], [3, 4, 5, 6]], sets(got))
    got = adakv.run(t, 0, {"k": "4", "window": "2", "pool": "3", "early": "1"})
    equal("early", [0, 2, 4, 5], sets(got)[0])


# triforce: chunks of 2, k=4 (two chunks), gamma=2: steps 2, 5, ... verify. P=5: chunks 01 23 4.
#   prefill, query along axis 0: means of log weights (1 1) (4 9) (1): chunk 1 best but the newest.
#     ranked: chunk 2 = {4}, chunk 1 = {2, 3}; evict-first 3 2 4
#   step 0, self 5: {2, 3, 4}; 5 joins: 3 2 4 5, four fit
#   step 1, self 6: {2, 3, 4, 5}; 6 joins, 3 goes: 2 4 5 6
#   step 2, self 7 verifies: chunks 01 23 45 67, zero query: all tie, newest 67 and lowest 01:
#     evict-first 1 0 7 6
#   step 3, self 8: {0, 1, 6, 7}; 8 joins, 1 goes. first=1 at prefill: chunk 0 instead of chunk 1:
#     step 0: {0, 1, 4}
#   streaming, sinks=1: step 0: 0 and the 3 newest: {0, 2, 3, 4}
@example
def triforce(folder):
    import triforce

    t = trace(folder, [0, None, None, None, None], [[1, 1, 4, 9, 1, 9, 9, 9, 9]], 5)
    o = {"k": "4", "chunk": "2", "gamma": "2"}
    got = triforce.run(t, 0, o)
    equal("triforce", [[2, 3, 4], [2, 3, 4, 5], None, [0, 1, 6, 7]], sets(got))
    equal("is_full", [0, 0, 1, 0], got[0].is_full)
    equal("order", [[3, 2, 4, 5], [2, 4, 5, 6], [1, 0, 7, 6], [0, 7, 6, 8]],
          [order[0] for order in got[0].order])  # fmt: skip
    equal("first", [0, 1, 4], sets(triforce.run(t, 0, {**o, "first": "1"}))[0])
    got = sets(triforce.run(t, 0, {**o, "draft": "streaming", "sinks": "1"}))
    equal("streaming", [[0, 2, 3, 4], [0, 3, 4, 5], None, [0, 5, 6, 7]], got)
    # over=prompt: chunk 1 first, then 0, as 0 and 2 tie: 1 0 3 2; 5 joins and 1 goes, 6 joins and 0
    # goes. Step 2: chunks 0 and 1 tie with 2: 3 2 1 0, then 5 6 7 join and 3 2 1 go.
    got = triforce.run(t, 0, {**o, "over": "prompt"})
    equal("over=prompt", [[0, 1, 2, 3], [0, 2, 3, 5], None, [0, 5, 6, 7]], sets(got))


# tidal: model of 6 layers, recorded 1 2 3 5, select=2/mid: 2 and 3. k=2, P=4.
#   every layer has the same queries and keys here: layer 1 is below the first selecting layer, 2
#   and 3 select: full. Layer 5 follows 3. Step 0, self 4, weights 1 3 2 3 and 9 for self: {1, 3}.
#   step 1, self 5, zero query: {0, 1}. correct=2: step 1 is full everywhere.
#   select=4: no selecting layer is recorded: everything is full.
@example
def tidal(folder):
    import tidal

    q, weights = [None, 0, None], [[1, 3, 2, 3, 9, 1]]
    t = trace(folder, q, weights, 4, n_layers=6, layers=(1, 2, 3, 5))
    got = tidal.run(t, 0, {"k": "2"})
    equal("tidal", [[1, 1]] * 3 + [[0, 0]], [layer.is_full for layer in got])
    equal("tidal", [[1, 3], [0, 1]], sets(got, 3))
    got = tidal.run(t, 0, {"k": "2", "correct": "2"})
    equal("correct", [[1, 3], None], sets(got, 3))
    got = tidal.run(t, 0, {"k": "2", "select": "4"})
    equal("none recorded", [[1, 1]] * 4, [layer.is_full for layer in got])
    equal("mid", [2, 3], tidal.selecting("2/mid", 7))


def main():
    for function in EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            function(folder)
    print("%d passed, 0 failed" % len(EXAMPLES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
