# SPDX-License-Identifier: Apache-2.0
"""What each transformation makes of a layer's keys and values, in numpy, from the papers' text.

Everything is of one layer of one sequence: K [Hkv, T, D] and V [Hkv, T, Dv] as stored, of which the
first P rows are the prompt. A transformation gives K and V as attention reads them (dequantised,
rounded to the stored type again) and the bits that all T rows take, tables included. Numbers that
stand beside codes (scales, thresholds, levels, outliers, the first token) are of the stored type.

Sums run in a fixed order and cos, sin and pow are those of the C library, so that another program
in f64 can agree to the bit.

kvquant: Hooper et al., "KVQuant", arXiv 2401.18079, sections 3.1 to 3.5.
  3.1, 3.2  keys per channel, before RoPE; values per token. A channel's range comes from the prompt
            and then stays; a token's is formed when it arrives. A token's vector is that of all KV
            heads together, as the projection gives it.
            head: what is an outlier is a matter of the token, and then each head has the range of
            its entries that are none, from the least to the largest. token: as in the paper.
            scale=channel: where tokens or heads have the ranges, channels of different size share
            them, and the small ones get few levels. Each is divided by its root mean square over
            the prompt first, a number per channel. none: as in the paper.
  3.3       levels: weighted k-means over the prompt's normalised entries, started at the middles of
            even cells.
            levels=channel: of each channel; layer: one set for the keys and one for the values of a
            layer, as in the paper. The paper weights by Fisher information, which needs gradients;
            here an entry's weight comes from what its row received of the prompt's attention, summed
            over the query heads of its group: weights=acc, that; root, its root, so that a channel's
            levels are not those of a few rows; one, or a trace that does not say: 1.
            sweeps: the paper takes the nearest code, which is best where entries are disturbed
            independently. What a key's error e does to a logit is e times a query, so that errors
            of channels may cancel: from the nearest codes on, each entry in turn takes the code
            that makes e H e + damp tr(H)/D e e least, `sweeps` times over all. H is the sum of
            q q' over the prompt's last queries of the group (those recorded, W of them), each
            turned to the next `ahead` positions after the prompt. 0 sweeps: as in the paper.
  3.4       outliers: what is outside the thresholds of its vector is kept as it is, beside the
            codes. Thresholds: percentiles outliers/2 and 1 - outliers/2, linearly interpolated.
  3.5       position 0 is kept as it is, and calibrates nothing (unless it is the whole prompt).
The paper's Q-Norm is not here.

int8, int4: codes from the row's least entry in equal steps, of a token and KV head; the online
quantisation of LMDeploy and others. Asymmetric. Of keys as they are stored, after RoPE.
fp8: e4m3 (largest 448) or e5m2 (57344) of a token and KV head, the largest entry scaled to the
largest number. Of keys as they are stored.
"""

import math

import numpy as np

BITS = {"F16": 16, "BF16": 16, "F32": 32}
BINS = 4096  # k-means sees a histogram of [-1, 1], each bin at the weighted mean of its entries
ROUNDS = 100


def stored(values, dtype):
    """Rounded to the type, as f64."""
    single = np.ascontiguousarray(values, np.float32)
    if dtype == "F16":
        return single.astype(np.float16).astype(np.float64)
    if dtype == "BF16":
        bits = single.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) & np.uint64(0xFFFF0000)
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return single.astype(np.float64)


# --- rotary embedding -----------------------------------------------------------------------------


def frequencies(D, meta):
    kind, f32 = meta["rope.type"], np.float32
    found = []
    for i in range(D // 2):
        exponent = f32(2 * i) / f32(D)
        x = f32(1) / f32(math.pow(float(meta["rope.theta"]), float(exponent)))
        if kind == "linear":
            x = x / f32(meta["rope.factor"])
        if kind == "llama3":
            factor, low, high, old = (
                f32(meta["rope." + key])
                for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position")
            )
            wavelength = f32(2) * f32(math.pi) / x
            if wavelength > old / low:
                x = x / factor
            elif wavelength >= old / high:
                smooth = (old / wavelength - low) / (high - low)
                x = (f32(1) - smooth) * x / factor + smooth * x
        found.append(x)
    return np.array(found, np.float32)


def turn(K, meta, direction, first=0):
    """Rotate row p of [.., T, D] to position first + p (1), or back (-1)."""
    T, half = K.shape[-2], K.shape[-1] // 2
    turns = frequencies(2 * half, meta) if meta["rope.type"] != "none" else np.zeros(half, np.float32)
    angle = np.arange(first, first + T).astype(np.float32)[:, None] * turns
    cos = np.array([math.cos(x) for x in angle.ravel()]).reshape(T, half)
    sin = np.array([math.sin(x) for x in angle.ravel()]).reshape(T, half)
    a, b = K[..., :half], K[..., half:]
    if direction > 0:
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)


# --- kvquant --------------------------------------------------------------------------------------


def percentile(ordered, q):
    """Along axis 0 of sorted values, linearly interpolated."""
    place = q * (len(ordered) - 1)
    low = int(math.floor(place))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def thresholds(vectors, outliers, dtype):
    """(lower, upper) of each column."""
    ordered = np.sort(vectors, axis=0)
    lower = percentile(ordered, outliers / 2)
    upper = percentile(ordered, 1 - outliers / 2)
    return stored(lower, dtype), stored(upper, dtype)


def normalise(x, lower, upper):
    """To [-1, 1]; 0 where the thresholds are one number."""
    middle, half = (upper + lower) / 2, (upper - lower) / 2
    middle, half = np.broadcast_to(middle, x.shape), np.broadcast_to(half, x.shape)
    return np.divide(x - middle, half, out=np.zeros(x.shape), where=half > 0)


def nearest(levels, x):
    """Index of the nearest level; the lower one where two are."""
    middle = (levels[:-1] + levels[1:]) / 2
    return np.searchsorted(middle, x, side="left")


def find_levels(values, weights, bits):
    """Weighted k-means of values in [-1, 1], in their order. Starts at the middles of even cells."""
    n = 2**bits
    place = np.minimum(((values + 1) * (BINS / 2)).astype(int), BINS - 1)
    mass = np.bincount(place, weights, BINS)
    moment = np.bincount(place, weights * values, BINS)
    used = mass > 0
    levels = (2 * np.arange(n) + 1) / n - 1
    if not used.any():
        return uniform_levels(bits)
    mass, moment = mass[used], moment[used]
    point = moment / mass
    for _ in range(ROUNDS):
        own = nearest(levels, point)
        weight, total = np.bincount(own, mass, n), np.bincount(own, moment, n)
        moved = np.where(weight > 0, total / np.where(weight > 0, weight, 1), levels)
        if (moved == levels).all():
            break
        levels = moved
    return levels


def uniform_levels(bits):
    return -1 + 2 * np.arange(2**bits) / (2**bits - 1)


def row_weights(acc, Hkv, P, kind):
    """[P, Hkv]: from the probability that each row received."""
    if acc is None or kind == "one":
        return np.ones((P, Hkv))
    total = np.zeros((P, Hkv))
    for g, head in enumerate(np.asarray(acc, np.float64).reshape(Hkv, -1, P).transpose(1, 0, 2)):
        total += head.T
    return np.sqrt(total) if kind == "root" else total


def last_queries(q, P, meta, ahead):
    """H [D, D] of one group's queries [G, W, D], as recorded at the prompt's last W positions."""
    G, W, D = q.shape
    pre = turn(q.astype(np.float64), meta, -1, P - W)
    C = np.zeros((D, D))
    for g, i in np.ndindex(G, W):
        C += np.outer(pre[g, i], pre[g, i])
    H = np.zeros((D, D))
    for pos in range(P, P + ahead):
        half = turn(np.repeat(C[:, None], 1, axis=1), meta, 1, pos)[:, 0]
        H += turn(np.ascontiguousarray(half.T)[:, None], meta, 1, pos)[:, 0]
    return H


def settle(read, exact, fixed, choose, H, damp, sweeps, meta):
    """Rows [T, D] before RoPE, and what they are read as: codes anew, entry by entry.
    choose(d, wanted) [T]: the nearest of what entry d can be read as."""
    T, D = read.shape
    half, error = D // 2, read - exact
    cos, sin = (x[0] for x in np.split(turn(unit(T, D), meta, 1), 2, axis=2))
    total = 0.0
    for d in range(D):
        total += H[d, d]
    damp = damp * total / D
    gradient = np.zeros((T, D))
    turned = turn(error[None], meta, 1)[0]
    for d in range(D):
        gradient += turned[:, d : d + 1] * H[d]
    for _, d in np.ndindex(sweeps, D):
        i, j = d % half, d % half + half
        a, b = (cos[:, i], sin[:, i]) if d < half else (-sin[:, i], cos[:, i])
        slope = a * gradient[:, i] + b * gradient[:, j] + damp * error[:, d]
        curve = a * a * H[i, i] + b * b * H[j, j] + 2 * a * b * H[i, j] + damp
        step = np.divide(slope, curve, out=np.zeros(T), where=curve > 0)
        change = choose(d, read[:, d] - step) - read[:, d]
        change[fixed[:, d]] = 0
        read[:, d] += change
        error[:, d] += change
        gradient += (change * a)[:, None] * H[i] + (change * b)[:, None] * H[j]
    return read


def unit(T, D):
    """[1, T, D]; turned, cos and sin of each pair."""
    return np.repeat(np.arange(D) < D // 2, T).reshape(1, D, T).transpose(0, 2, 1).astype(float)


def channel_scales(tokens, dtype):
    squares = np.cumsum(tokens * tokens, axis=0)[-1]
    scales = stored(np.sqrt(squares / len(tokens)), dtype)
    return np.where(scales > 0, scales, 1)


def head_ranges(tokens, outside, W, dtype):
    """(lower, upper) of each entry; 0 where a head has outliers only."""
    heads = tokens.shape[0], -1, W
    kept = ~outside.reshape(heads)
    least = np.where(kept, tokens.reshape(heads), np.inf).min(axis=2)
    most = np.where(kept, tokens.reshape(heads), -np.inf).max(axis=2)
    some = kept.any(axis=2)
    return (np.repeat(stored(np.where(some, x, 0), dtype), W, axis=1) for x in (least, most))


def quantise(x, P, per, dtype, weights, o, queries=None, meta=None):
    """[Hkv, T, W] -> the same as read back, and bits of all T rows. Queries [Hkv, G, W, D]: with
    them and sweeps, codes of keys that products with them are little disturbed by."""
    Hkv, T, W = x.shape
    n, size, bits = Hkv * W, BITS[dtype], o["bits"]
    tokens = x.transpose(1, 0, 2).reshape(T, n)
    first = 1 if P > 1 else 0
    scaled = per != "channel" and o["scale"] == "channel"
    scales = channel_scales(tokens[first:P], dtype) if scaled else np.ones(n)
    small = tokens / scales
    if per == "channel":
        lower, upper = (e[None] for e in thresholds(small[first:P], o["outliers"], dtype))
    else:
        lower, upper = (e[:, None] for e in thresholds(small.T, o["outliers"], dtype))
    lower, upper = np.broadcast_to(lower, small.shape), np.broadcast_to(upper, small.shape)
    outside = (small < lower) | (small > upper)
    if o["outliers"] == 0:
        outside[:] = False
    if per == "head":
        lower, upper = head_ranges(small, outside, W, dtype)
    middle, half = (upper + lower) / 2, (upper - lower) / 2
    normal = normalise(small, lower, upper)
    levels = np.repeat(uniform_levels(bits)[None], n, axis=0)
    if o["nuq"]:
        kept = ~outside[first:P]
        inside = np.clip(normal[first:P], -1, 1)
        weight = np.repeat(weights[first:P], W, axis=1)
        wide = 1 if o["levels"] == "channel" else n
        for i in range(0, n, wide):
            own = slice(i, i + wide)
            found = find_levels(inside[:, own][kept[:, own]], weight[:, own][kept[:, own]], bits)
            levels[own] = stored(found, dtype)

    def choose(i, wanted):
        wanted = normalise(wanted / scales[i], lower[:, i], upper[:, i])
        return (middle[:, i] + half[:, i] * levels[i][nearest(levels[i], wanted)]) * scales[i]

    read = np.stack([choose(i, tokens[:, i]) for i in range(n)], axis=1)
    read = np.where(outside, stored(tokens, dtype), read)
    for h in range(Hkv if queries is not None and o["sweeps"] > 0 else 0):
        own = slice(h * W, (h + 1) * W)
        read[:, own] = settle(read[:, own], tokens[:, own], outside[:, own],
                              lambda d, wanted: choose(h * W + d, wanted),
                              last_queries(queries[h], P, meta, o["ahead"]), o["damp"],
                              o["sweeps"], meta)  # fmt: skip
    read[0] = tokens[0]
    taken = n * size + (T - 1) * n * bits  # the first token, and codes
    taken += 2 * size * {"channel": n, "token": T - 1, "head": (T - 1) * Hkv}[per]
    taken += size * n if scaled else 0
    if o["nuq"]:
        taken += size * 2**bits * (n if o["levels"] == "channel" else 1)
    if o["outliers"] > 0:
        index = 16 if n <= 65536 else 32
        taken += int(outside[1:].sum()) * (size + index) + 32 * T
    return read.reshape(T, Hkv, W).transpose(1, 0, 2), taken


KVQUANT = {
    "bits": 2, "outliers": 0.01, "keys": "channel", "values": "token", "nuq": 1,
    "levels": "channel", "weights": "root", "scale": "channel",
    "sweeps": 3, "ahead": 256, "damp": 0.5,
}  # fmt: skip


def kvquant(K, V, P, dtype, meta, acc=None, q=None, **options):
    """q [Hq, W, D]: of the prompt's last W positions, as recorded; None: codes are the nearest."""
    o = {**KVQUANT, **options}
    weights = row_weights(acc, K.shape[0], P, o["weights"])
    if q is not None:
        W = min(q.shape[1], P)
        q = q[:, q.shape[1] - W :].reshape(K.shape[0], -1, W, q.shape[2])
    before, k_bits = quantise(turn(K, meta, -1), P, o["keys"], dtype, weights, o, q, meta)
    V, v_bits = quantise(V, P, o["values"], dtype, weights, o)
    after = turn(before, meta, 1)
    after[:, 0] = K[:, 0]
    return stored(after, dtype), stored(V, dtype), k_bits, v_bits


# --- baselines ------------------------------------------------------------------------------------


def integers(x, bits, dtype):
    most = 2**bits - 1
    least = x.min(axis=2, keepdims=True)
    step = stored((x.max(axis=2, keepdims=True) - least) / most, dtype)
    code = np.divide(x - least, step, out=np.zeros(x.shape), where=step > 0)
    code = np.clip(np.rint(code), 0, most)
    rows = x.shape[0] * x.shape[1]
    return stored(least + code * step, dtype), rows * (x.shape[2] * bits + 2 * BITS[dtype])


def int8(K, V, P, dtype, meta, acc=None, q=None):
    (k, k_bits), (v, v_bits) = integers(K, 8, dtype), integers(V, 8, dtype)
    return k, v, k_bits, v_bits


def int4(K, V, P, dtype, meta, acc=None, q=None):
    (k, k_bits), (v, v_bits) = integers(K, 4, dtype), integers(V, 4, dtype)
    return k, v, k_bits, v_bits


# Bits of the fraction, exponent of the smallest normal number, largest number.
FP8 = {"e4m3": (3, -6, 448.0), "e5m2": (2, -14, 57344.0)}


def to_fp8(x, form):
    """Nearest number of the form, ties to even; beyond the largest: the largest."""
    fraction, smallest, largest = FP8[form]
    _, exponent = np.frexp(x)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, smallest) - fraction)
    return np.clip(np.rint(x / unit) * unit, -largest, largest)


def floats(x, form, dtype):
    scale = stored(abs(x).max(axis=2, keepdims=True) / FP8[form][2], dtype)
    ratio = np.divide(x, scale, out=np.zeros(x.shape), where=scale > 0)
    rows = x.shape[0] * x.shape[1]
    return stored(to_fp8(ratio, form) * scale, dtype), rows * (x.shape[2] * 8 + BITS[dtype])


def fp8(K, V, P, dtype, meta, acc=None, q=None, format="e4m3"):
    (k, k_bits), (v, v_bits) = floats(K, format, dtype), floats(V, format, dtype)
    return k, v, k_bits, v_bits


TRANSFORMS = {"kvquant": kvquant, "int8": int8, "int4": int4, "fp8": fp8}


def apply(spelling, K, V, P, dtype, meta, acc=None, q=None):
    """Of "NAME:key=value,...+NAME...", in order; bits are those of the last."""
    result = K, V, None, None
    for part in spelling.split("+"):
        name, _, rest = part.partition(":")
        options = dict(pair.split("=") for pair in rest.split(",")) if rest else {}
        for key, number in (("bits", int), ("nuq", int), ("sweeps", int), ("ahead", int),
                            ("outliers", float), ("damp", float)):  # fmt: skip
            if key in options:
                options[key] = number(options[key])
        result = TRANSFORMS[name](result[0], result[1], P, dtype, meta, acc, q, **options)
    return result
