# SPDX-License-Identifier: Apache-2.0
"""Attention schedules in plain torch, for real decoding (decode_hf.py).

Spellings, defaults, refusals and rules are those of `rattn-sim` (`rattn-sim list policies -v`); of
its policies these are here: full, recycled, streaming, h2o, tova, snapkv. One object holds the
state of all layers with full attention of one sequence. Probabilities, scores and means are f64, ties go
to the lower position, so that the sets are those of the program wherever its queries and keys are.

Letters: P prompt tokens, N steps, K budget; step t processes position self = P + t. A set is a
tensor [Hkv, n] of positions: all KV heads keep equally many.
"""

import math
import re

import torch

import hf_config

F64 = torch.float64
LIST_MAX = 64
AGG = ("max", "mean", "first", "sum")
# name, kind, least, most or choices, fallback (None: must be given), help
POLICIES = {
    "full": (),
    "recycled": (
        ("k", "fraction", 1, None, None, "positions kept, self not counted"),
        ("stride", "int", 1, None, None, "steps per full step, or per check"),
        ("sim", "real", None, None, "none", ""),
        ("pool", "int", 1, 1023, "7", ""),
        ("agg", "choice", None, AGG, "max", ""),
        ("current", "choice", None, ("pseudo", "snapkv", "drop"), "pseudo", ""),
        ("evict", "choice", None, ("pooled", "raw"), "pooled", ""),
        ("attend", "choice", None, ("before", "after"), "before", ""),
        ("query", "choice", None, ("pre", "post"), "pre", ""),
        ("scope", "choice", None, ("layer", "model-prev"), "layer", ""),
        ("share", "list", 0, 4095, "none", ""),
        ("stagger", "int", 0, 1, "0", ""),
    ),
    "streaming": (
        ("k", "fraction", 1, None, None, "positions kept, sinks included, self not"),
        ("sinks", "int", 0, None, "4", ""),
        ("stride", "int", 1, None, "none", ""),
    ),
    "h2o": (
        ("k", "fraction", 1, None, None, "positions kept, self not counted"),
        ("recent", "real", 0, 1, "0.5", ""),
        ("agg", "choice", None, AGG, "sum", ""),
    ),
    "tova": (
        ("k", "fraction", 1, None, None, "positions kept, self not counted"),
        ("agg", "choice", None, AGG, "mean", ""),
        ("heads", "choice", None, ("group", "layer"), "group", ""),
    ),
    "snapkv": (
        ("k", "fraction", 1, None, None,
         "positions kept of each KV head on average, window included"),
        ("window", "int", 1, 65536, "32", ""),
        ("pool", "int", 1, 1023, "7", ""),
        ("pooling", "choice", None, ("max", "avg"), "max", ""),
        ("agg", "choice", None, AGG, "max", ""),
        ("evict", "choice", None, ("none", "fifo"), "none", ""),
    ),
}  # fmt: skip


# --- spellings -----------------------------------------------------------------------------------
def distance(a, b):
    """Letters to change, insert, drop, or swap with their neighbour, to make one of the other."""
    rows = [list(range(len(b) + 1))]
    for i in range(1, len(a) + 1):
        row = [i]
        for j in range(1, len(b) + 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a[i - 1] != b[j - 1])))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                row[j] = min(row[j], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def nearest(word, known):
    """The name that was probably meant, or None."""

    def is_near(name):
        longer, far = max(len(word), len(name)), distance(word, name)
        begins = 2 <= len(word) < len(name) and name.startswith(word)
        return begins or (far < longer and far <= (longer + 2) // 3)

    return min(filter(is_near, known), key=lambda name: distance(word, name), default=None)


def hint(word, known):
    name = nearest(word, known)
    return f"nearest is '{name}'" if name else "known are " + ", ".join(known)


def expected(kind, least, most, fallback):
    if kind == "choice":
        return ", ".join(most[:-1]) + (" or " if len(most) > 1 else "") + most[-1]
    noun = {"real": "a finite number", "list": "ascending whole numbers"}
    noun = noun.get(kind, "a whole number")
    if least is not None and most is not None:
        noun += f" from {least} to {most}"
    elif least is not None:
        noun += f" of at least {least}"
    more = {"fraction": " or a share a/b of the prompt",
            "list": f" joined with '/', at most {LIST_MAX} of them"}  # fmt: skip
    noun += more.get(kind, "")
    return noun + (" or none" if fallback == "none" else "")


def in_range(value, least, most):
    return (least is None or value >= least) and (most is None or value <= most)


def parse_value(kind, least, most, fallback, text):
    """The value, or a ValueError without words."""
    if fallback == "none" and text == "none":
        return None
    if kind == "choice":
        if text in most:
            return text
    elif kind == "fraction" and re.fullmatch(r"\d+/\d+", text):
        a, b = map(int, text.split("/"))
        if a >= 1 and b >= 1:
            return a // math.gcd(a, b), b // math.gcd(a, b)
    elif kind in ("int", "fraction") and re.fullmatch(r"-?\d+", text):
        if in_range(int(text), least, most or 2**31 - 1):
            return int(text)
    elif kind == "real" and re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE]-?\d+)?", text):
        if math.isfinite(float(text)) and in_range(float(text), least, most):
            return float(text) + 0.0  # "-0" has one spelling too
    elif kind == "list" and re.fullmatch(r"\d+(/\d+)*", text):
        values = [int(part) for part in text.split("/")]
        fits = len(values) <= LIST_MAX and all(in_range(x, least, most) for x in values)
        if fits and values == sorted(set(values)):
            return values
    raise ValueError


def show(value):
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "%d/%d" % value
    if isinstance(value, list):
        return "/".join(map(str, value))
    if isinstance(value, float):
        text = next(t for t in ("%.*g" % (n, value) for n in (15, 16, 17)) if float(t) == value)
        return text.replace("e+", "e")
    return str(value)


def parse(spelling):
    """(name, {key: value}, canonical spelling)"""
    if "+" in spelling:
        raise ValueError(f"{spelling}: transformations (+…) of K and V are not made here")
    name, colon, rest = spelling.partition(":")
    if name not in POLICIES:
        raise ValueError(f"no policy named '{name}'; {hint(name, list(POLICIES))}")
    table = {row[0]: row[1:] for row in POLICIES[name]}
    values = {}
    for pair in rest.split(",") if colon else ():
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"{name}: expected key=value, got '{pair}'")
        if "@" in key:
            raise ValueError(f"{name}: {key}: values for single layers are not possible here")
        if not table:
            raise ValueError(f"{name}: takes no parameters, got '{key}'")
        if key not in table:
            raise ValueError(f"{name}: no parameter named '{key}'; {hint(key, list(table))}")
        if key in values:
            raise ValueError(f"{name}: {key}: expected once, got it again as '{text}'")
        try:
            values[key] = parse_value(*table[key][:4], text)
        except ValueError:
            near = nearest(text, table[key][2]) if table[key][0] == "choice" else None
            more = f"; nearest is '{near}'" if near else ""
            wanted = expected(*table[key][:4])
            raise ValueError(f"{name}: {key}: expected {wanted}, got '{text}'{more}") from None
    for key, row in table.items():
        if row[3] is None and key not in values:
            raise ValueError(f"{name}: {key} must be given: {row[4]}")
        if key not in values:
            values[key] = parse_value(*row[:4], row[3])
    check(name, values)
    shown = ",".join(f"{key}={show(values[key])}" for key in table)
    return name, values, name + (":" + shown if shown else "")


def check(name, o):
    """What a table cannot say."""
    if o.get("pool", 1) % 2 == 0:
        raise ValueError(f"{name}: pool: expected an odd number, got {o['pool']}")
    if name == "recycled" and o["sim"] is not None and o["scope"] != "layer" and o["stagger"]:
        raise ValueError("recycled: stagger: expected 0 with scope=model-prev, got 1")
    for key in ("sinks", "window"):
        if key in o and isinstance(o["k"], int) and o["k"] <= o[key]:
            raise ValueError(f"{name}: k: expected more than {key}={o[key]}, got {o['k']}")


def budget(k, P):
    return max(1, P * k[0] // k[1]) if isinstance(k, tuple) else k


# --- arithmetic ----------------------------------------------------------------------------------
def logits(query, key, scale, block=1 << 15):
    """query [Hq, n, D], key [Hkv, L, D] -> [Hkv, G, n, L] in f64, some keys at a time."""
    Hkv, L = key.shape[:2]
    rows = query.to(F64).reshape(Hkv, query.shape[0] // Hkv, query.shape[1], query.shape[2])
    parts = [
        torch.einsum("hgnd,hld->hgnl", rows, key[:, at : at + block].to(F64))
        for at in range(0, L, block)
    ]
    return scale * torch.cat(parts, 3)


def probabilities(query, key, scale):
    """Of one query [Hq, 1, D] over the keys [Hkv, L, D]: [Hkv, G, L]."""
    return torch.softmax(logits(query, key, scale), -1)[:, :, 0]


def received(query, key, scale, limit=1 << 26):
    """Probability each of the Tk positions gets, summed over the Tq last ones' queries: [Hq, Tk].

    query [Hq, Tq, D], key [Hkv, Tk, D]; causal. In f32, a few queries at a time so that no more
    than `limit` probabilities are held; sums in f64.
    """
    Hq, n, D = query.shape
    Hkv, L = key.shape[:2]
    total = torch.zeros((Hkv, Hq // Hkv, L), dtype=torch.float64, device=key.device)
    rows = query.to(torch.float32).reshape(Hkv, Hq // Hkv, n, D)
    keys, place = key.to(torch.float32), torch.arange(L, device=key.device)
    step = max(1, limit // (Hq * L))
    for begin in range(0, n, step):
        block = rows[:, :, begin : begin + step]
        logits = scale * torch.einsum("hgnd,hld->hgnl", block, keys)
        last = L - n + begin + torch.arange(block.shape[2], device=key.device)
        logits = torch.where(place[None, :] <= last[:, None], logits, -float("inf"))
        total += torch.softmax(logits, -1).to(torch.float64).sum(2)
    return total.reshape(Hq, L)


def aggregate(p, agg):
    """[Hkv, G, L] -> [Hkv, L]"""
    if agg == "first":
        return p[:, 0]
    if agg == "max":
        return torch.amax(p, 1)
    return p.sum(1) if agg == "sum" else p.sum(1) / p.shape[1]


def pooled(score, width, kind="max"):
    """Same length. max: beyond the ends nothing counts; avg: zeros do, in the divisor too."""
    if width == 1:
        return score
    pool = torch.nn.functional.max_pool1d if kind == "max" else torch.nn.functional.avg_pool1d
    return pool(score[None], width, 1, width // 2)[0]


def best(score, k):
    """[Hkv, min(k, n)] places of the largest scores, best first; of equal ones the lower place."""
    return torch.argsort(-score, stable=True, dim=1)[:, :k]


def rows_of(key, positions):
    """key [Hkv, L, D], positions [Hkv, n] -> [Hkv, n, D]"""
    heads = torch.arange(key.shape[0], device=key.device)[:, None]
    return key[heads, positions]


def take(score, places):
    heads = torch.arange(score.shape[0], device=score.device)[:, None]
    return score[heads, places]


def ascending(positions):
    return torch.sort(positions, 1)[0]


def append(order, position):
    """[Hkv, n] and a last column."""
    return torch.cat([order, order.new_full((order.shape[0], 1), position)], 1)


# --- policies ------------------------------------------------------------------------------------
class Shape:
    """layer_ids: the model's layers with full attention; rope: rope.* of a trace."""

    def __init__(self, P, N, layer_ids, rope, scale):
        self.P, self.N, self.layer_ids, self.rope, self.scale = P, N, list(layer_ids), rope, scale


class Policy:
    """full: attends to everything.

    For each pass over the prompt and each layer: prompt(i, query, key) with the new queries
    [Hq, n, D] and all keys so far [Hkv, L, D]. For each step and layer: attended(i, t, query, key)
    returns None (everything) or a set, in which self counts whether it is listed or not; then, with
    attention done, learn(i, t, query, key). i counts layer_ids; layers come in order.
    """

    lists_self = False  # may a set have self among its positions?

    def __init__(self, o, shape):
        self.o, self.shape, self.P = o, shape, shape.P
        self.n = len(shape.layer_ids)
        self.k = budget(o["k"], shape.P) if "k" in o else None
        self.kept = [None] * self.n
        self.full_layer_steps = 0

    def prompt(self, i, query, key):
        if key.shape[1] == self.P:
            self.choose_first(i, query[:, -1:], key)

    def choose_first(self, i, query, key):
        """The prompt is read; query [Hq, 1, D] is its last token's."""

    def attended(self, i, t, query, key):
        self.full_layer_steps += 1

    def learn(self, i, t, query, key):
        pass

    def probabilities(self, query, key):
        return probabilities(query, key, self.shape.scale)


class Streaming(Policy):
    def __init__(self, o, shape):
        super().__init__(o, shape)
        if self.k <= o["sinks"]:
            raise ValueError(
                "streaming: k: expected more than sinks=%d, got %d/%d of %d"
                % (o["sinks"], *o["k"], self.P)
            )

    def attended(self, i, t, query, key):
        if self.o["stride"] and (t + 1) % self.o["stride"] == 0:
            return super().attended(i, t, query, key)
        me, sinks = self.P + t, self.o["sinks"]
        newest = max(me - (self.k - sinks), 0)
        first = torch.arange(min(sinks, newest), device=key.device)
        kept = torch.cat([first, torch.arange(newest, me, device=key.device)])
        return kept[None].expand(key.shape[0], -1)


class Tova(Policy):
    def score(self, query, key):
        p = self.probabilities(query, key)
        if self.o["heads"] == "layer":
            whole = aggregate(p.reshape(1, -1, p.shape[2]), self.o["agg"])
            return whole.expand(p.shape[0], -1)
        return aggregate(p, self.o["agg"])

    def choose_first(self, i, query, key):
        self.kept[i] = ascending(best(self.score(query, key), self.k))

    def attended(self, i, t, query, key):
        return self.kept[i]

    def learn(self, i, t, query, key):
        here = append(self.kept[i], self.P + t)
        score = self.score(query, rows_of(key, here))
        self.kept[i] = ascending(take(here, best(score, self.k)))


class H2o(Policy):
    def __init__(self, o, shape):
        super().__init__(o, shape)
        self.recent = math.floor(self.k * o["recent"])
        self.received = [0.0] * self.n
        self.score = [None] * self.n

    def prompt(self, i, query, key):
        gained = received(query, key, self.shape.scale)
        if key.shape[1] > query.shape[1]:
            gained[:, : key.shape[1] - query.shape[1]] += self.received[i]
        self.received[i] = gained
        if key.shape[1] == self.P:
            acc = self.received[i].reshape(key.shape[0], -1, self.P)
            self.start(i, acc)
            self.received[i] = None

    def start(self, i, acc):
        """acc: [Hkv, G, P], what each prompt position received."""
        positions = torch.arange(self.P, device=acc.device)[None].expand(acc.shape[0], -1)
        self.cut(i, positions, aggregate(acc, self.o["agg"]))

    def cut(self, i, positions, score):
        """positions ascend."""
        n = positions.shape[1]
        if n > self.k:
            rest = n - self.recent
            heavy = ascending(best(score[:, :rest], self.k - self.recent))
            newest = torch.arange(rest, n, device=score.device)[None].expand(len(score), -1)
            places = torch.cat([heavy, newest], 1)
            positions, score = take(positions, places), take(score, places)
        self.kept[i], self.score[i] = positions, score

    def attended(self, i, t, query, key):
        return self.kept[i]

    def learn(self, i, t, query, key):
        here = append(self.kept[i], self.P + t)
        p = aggregate(self.probabilities(query, rows_of(key, here)), self.o["agg"])
        before = torch.cat([self.score[i], torch.zeros_like(p[:, :1])], 1)
        self.cut(i, here, before + p)


class Snapkv(Policy):
    def __init__(self, o, shape):
        super().__init__(o, shape)
        self.window, self.tail = o["window"], [None] * self.n
        if self.window > self.P:
            raise ValueError(
                f"snapkv: window: expected at most {self.P}, the prompt's queries, "
                f"got {self.window}"
            )
        if self.k <= self.window:
            raise ValueError(
                f"snapkv: k: expected more than window={self.window}, got {self.k} of {self.P}"
            )

    def prompt(self, i, query, key):
        tail = query if self.tail[i] is None else torch.cat([self.tail[i], query], 1)
        self.tail[i] = tail[:, -self.window :]
        if key.shape[1] == self.P:
            self.vote(i, self.tail[i], key)
            self.tail[i] = None

    def vote(self, i, tail, key):
        w, P = self.window, self.P
        a = logits(tail, key, self.shape.scale)  # [Hkv, G, w, P]
        place = torch.arange(P, device=key.device)
        a = torch.where(place[None, :] <= place[P - w :, None], a, -float("inf"))
        votes = aggregate(torch.softmax(a, -1).sum(2), self.o["agg"])[:, : P - w]
        last = place[None, P - w :].expand(key.shape[0], -1)
        if P > w:
            score = pooled(votes, self.o["pool"], self.o["pooling"])
            last = torch.cat([ascending(best(score, self.k - w)), last], 1)
        self.kept[i] = last

    def attended(self, i, t, query, key):
        return self.kept[i]

    def learn(self, i, t, query, key):
        self.kept[i] = append(self.kept[i], self.P + t)
        if self.o["evict"] == "fifo" and self.kept[i].shape[1] > self.k:
            self.kept[i] = self.kept[i][:, 1:]


class Recycled(Policy):
    """kept[i] is the recycled cache in order of eviction, next to go first."""

    def __init__(self, o, shape):
        super().__init__(o, shape)
        if o["sim"] is not None and o["query"] == "pre" and not hf_config.can_turn_back(shape.rope):
            raise ValueError(
                "recycled: query=pre: expected a model whose rotation is known (default, linear, "
                f"llama3), got {shape.rope['rope.type']}; query=post does without"
            )
        self.lists_self = o["attend"] == "after" or o["share"] is not None
        self.leader = self.leaders()
        self.is_full, self.fresh = [False] * self.n, [False] * self.n
        self.mean, self.reference = [None] * self.n, [None] * self.n
        self.together = False  # scope=model-prev: what was decided for this step

    def leaders(self):
        """For each layer the one it follows, None where it chooses by itself."""
        listed, lead, result = self.o["share"] or [], None, []
        for layer in listed:
            if layer not in self.shape.layer_ids:
                raise ValueError(
                    "recycled: share: expected layers replayed here with full attention, got "
                    f"{layer}"
                )
        for i, layer in enumerate(self.shape.layer_ids):
            lead = i if layer in listed else lead
            result.append(None if lead in (None, i) else lead)
        return result

    # Queries: mean over the heads, turned back to where they were before rotation.
    def mean_query(self, query, position):
        mean = query[:, 0].to(F64).sum(0) / query.shape[0]
        if self.o["query"] == "post" or self.shape.rope["rope.type"] == "none":
            return mean
        half = len(mean) // 2
        inverse = torch.tensor(hf_config.inverse_frequencies(2 * half, self.shape.rope).tolist(),
                               dtype=torch.float32)  # fmt: skip
        angle = (float(position) * inverse).to(torch.float32).to(F64).to(mean.device)
        cos, sin, a, b = torch.cos(angle), torch.sin(angle), mean[:half], mean[half:]
        return torch.cat([a * cos + b * sin, b * cos - a * sin])

    def has_turned(self, i):
        a, b = self.mean[i], self.reference[i]
        norms = math.sqrt(float((a * a).sum())) * math.sqrt(float((b * b).sum()))
        if norms == 0:
            return True
        return not min(1.0, max(-1.0, float((a * b).sum()) / norms)) > self.o["sim"]

    def fires(self, i, t):
        o, layer = self.o, self.shape.layer_ids[i]
        due = (t + 1 + (layer if o["stagger"] else 0)) % o["stride"] == 0
        if o["sim"] is None or not due:
            return due
        return self.together if o["scope"] == "model-prev" else self.has_turned(i)

    # Choosing.
    def choose(self, query, key):
        """Positions [Hkv, n] of the recycled cache, next to be evicted first."""
        o, p = self.o, key.shape[1] - 1
        raw = aggregate(self.probabilities(query, key), o["agg"])
        score = pooled(raw, o["pool"])
        k = self.k
        if o["current"] != "pseudo":
            score = score[:, :p]
            k -= o["current"] == "snapkv"
        order = best(score, k)
        if o["evict"] == "raw":  # of equal scores the higher position goes first
            order = ascending(order).flip(1)
            order = take(order, torch.argsort(take(raw, order), stable=True, dim=1))
        else:
            order = order.flip(1)
        return append(order, p) if o["current"] == "snapkv" else order

    def take_over(self, i, key):
        lead = self.kept[self.leader[i]].to(key.device)  # a model may lie on several cards
        self.kept[i] = lead[:, max(0, lead.shape[1] - self.k) :]

    def choose_first(self, i, query, key):
        if self.o["sim"] is not None:
            self.mean[i] = self.reference[i] = self.mean_query(query, self.P - 1)
        if self.leader[i] is not None:
            self.take_over(i, key)
        else:
            self.kept[i] = self.choose(query, key)

    def begin(self, t):
        """A step begins: all layers' queries are still those of the step before."""
        if self.o["sim"] is not None and self.o["scope"] == "model-prev":
            if (t + 1) % self.o["stride"] == 0:
                self.together = any(
                    self.has_turned(i) for i in range(self.n) if self.leader[i] is None
                )

    def attended(self, i, t, query, key):
        if i == 0:
            self.begin(t)
        if self.o["sim"] is not None:
            self.mean[i] = self.mean_query(query, self.P + t)
        if self.leader[i] is not None:
            self.is_full[i] = False
            self.fresh[i] = self.is_full[self.leader[i]]
            if self.fresh[i]:
                self.take_over(i, key)
            return self.kept[i]
        self.is_full[i] = self.fresh[i] = self.fires(i, t)
        if not self.is_full[i]:
            return self.kept[i]
        self.full_layer_steps += 1
        if self.o["sim"] is not None:
            self.reference[i] = self.mean[i]
        if self.o["attend"] == "before":
            return None  # and learn() chooses
        self.kept[i] = self.choose(query, key)
        return self.kept[i]

    def learn(self, i, t, query, key):
        if not self.fresh[i]:
            order = append(self.kept[i], self.P + t)
            self.kept[i] = order[:, max(0, order.shape[1] - self.k) :]
        elif self.is_full[i] and self.o["attend"] == "before":
            self.kept[i] = self.choose(query, key)


KINDS = {
    "full": Policy, "recycled": Recycled, "streaming": Streaming, "h2o": H2o, "tova": Tova,
    "snapkv": Snapkv,
}  # fmt: skip


def make(name, o, shape):
    return KINDS[name](o, shape)
