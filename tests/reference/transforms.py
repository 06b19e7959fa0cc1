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
  3.3       levels: weighted k-means over the prompt's normalised entries, one set for the keys and
            one for the values of a layer. The paper weights by Fisher information, which needs
            gradients; here an entry weighs what its row received of the prompt's attention, summed
            over the query heads of its group, where the trace has that (acc), else 1.
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


def turn(K, meta, direction):
    """Rotate row p of [Hkv, T, D] to position p (1), or back (-1)."""
    if meta["rope.type"] == "none":
        return K.copy()
    T, half = K.shape[1], K.shape[2] // 2
    angle = np.arange(T).astype(np.float32)[:, None] * frequencies(2 * half, meta)
    cos = np.array([math.cos(x) for x in angle.ravel()]).reshape(T, half)
    sin = np.array([math.sin(x) for x in angle.ravel()]).reshape(T, half)
    a, b = K[..., :half], K[..., half:]
    if direction > 0:
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2)
    return np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=2)


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
    """Weighted k-means of values in [-1, 1], in their order. Starts at evenly spaced quantiles."""
    n = 2**bits
    place = np.minimum(((values + 1) * (BINS / 2)).astype(int), BINS - 1)
    mass = np.bincount(place, weights, BINS)
    moment = np.bincount(place, weights * values, BINS)
    used = mass > 0
    if not used.any():
        return uniform_levels(bits)
    mass, moment = mass[used], moment[used]
    point = moment / mass
    below = np.cumsum(mass)
    wanted = (2 * np.arange(n) + 1) / (2 * n) * below[-1]
    levels = point[np.minimum(np.searchsorted(below, wanted, side="left"), len(point) - 1)]
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


def row_weights(acc, Hkv, P):
    """[P, Hkv]: probability that each row received."""
    if acc is None:
        return np.ones((P, Hkv))
    total = np.zeros((P, Hkv))
    for g, head in enumerate(np.asarray(acc, np.float64).reshape(Hkv, -1, P).transpose(1, 0, 2)):
        total += head.T
    return total


def quantise(x, P, per, bits, outliers, nuq, weights, dtype):
    """[Hkv, T, W] -> the same as read back, and bits of all T rows."""
    Hkv, T, W = x.shape
    n, size = Hkv * W, BITS[dtype]
    tokens = x.transpose(1, 0, 2).reshape(T, n)
    first = 1 if P > 1 else 0
    if per == "channel":
        lower, upper = thresholds(tokens[first:P], outliers, dtype)
        lower, upper = lower[None], upper[None]
    else:
        lower, upper = (each[:, None] for each in thresholds(tokens.T, outliers, dtype))
    outside = (tokens < lower) | (tokens > upper)
    if outliers == 0:
        outside[:] = False
    normal = normalise(tokens, lower, upper)
    levels = uniform_levels(bits)
    if nuq:
        kept = ~outside[first:P]
        inside = np.clip(normal[first:P], -1, 1)[kept]
        weight = np.repeat(weights[first:P], W, axis=1)[kept]
        levels = stored(find_levels(inside, weight, bits), dtype)
    middle, half = (upper + lower) / 2, (upper - lower) / 2
    read = middle + half * levels[nearest(levels, normal)]
    read = np.where(outside, stored(tokens, dtype), read)
    read[0] = tokens[0]
    taken = n * size + (T - 1) * n * bits  # the first token, and codes
    taken += 2 * size * (n if per == "channel" else T - 1)
    taken += size * 2**bits if nuq else 0
    if outliers > 0:
        index = 16 if n <= 65536 else 32
        taken += int(outside[1:].sum()) * (size + index) + 32 * T
    return read.reshape(T, Hkv, W).transpose(1, 0, 2), taken


def kvquant(
    K, V, P, dtype, meta, acc=None, bits=2, outliers=0.01, keys="channel", values="token", nuq=1
):
    weights = row_weights(acc, K.shape[0], P)
    before, k_bits = quantise(turn(K, meta, -1), P, keys, bits, outliers, nuq, weights, dtype)
    V, v_bits = quantise(V, P, values, bits, outliers, nuq, weights, dtype)
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


def int8(K, V, P, dtype, meta, acc=None):
    (k, k_bits), (v, v_bits) = integers(K, 8, dtype), integers(V, 8, dtype)
    return k, v, k_bits, v_bits


def int4(K, V, P, dtype, meta, acc=None):
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


def fp8(K, V, P, dtype, meta, acc=None, format="e4m3"):
    (k, k_bits), (v, v_bits) = floats(K, format, dtype), floats(V, format, dtype)
    return k, v, k_bits, v_bits


TRANSFORMS = {"kvquant": kvquant, "int8": int8, "int4": int4, "fp8": fp8}


def apply(spelling, K, V, P, dtype, meta, acc=None):
    """Of "NAME:key=value,...+NAME...", in order; bits are those of the last."""
    result = K, V, None, None
    for part in spelling.split("+"):
        name, _, rest = part.partition(":")
        options = dict(pair.split("=") for pair in rest.split(",")) if rest else {}
        for key in ("bits", "nuq"):
            if key in options:
                options[key] = int(options[key])
        if "outliers" in options:
            options["outliers"] = float(options["outliers"])
        result = TRANSFORMS[name](result[0], result[1], P, dtype, meta, acc, **options)
    return result
