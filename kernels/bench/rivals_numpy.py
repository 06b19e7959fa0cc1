# SPDX-License-Identifier: Apache-2.0
"""Stands in where torch or a GPU is missing: float32 in numpy goes through the same check, timing
and tables, and every real rival is listed with the reason why it did not run.
"""

import collections
import time

import numpy as np

from rivals_names import NAMES

Rival = collections.namedtuple("Rival", "name note exact start")


def attend(q, k, v):
    """q [B][Hkv][G][D], k and v [B][Hkv][n][D], in the type given."""
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(np.array(q.shape[-1], q.dtype))
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights @ v / weights.sum(axis=-1, keepdims=True)


class Bed:
    def __init__(self, case):
        self.case = case
        rng = np.random.default_rng(1)
        kv = (case.B, case.Hkv, case.L, case.D)
        self.q = rng.standard_normal((case.B, case.Hkv, case.Hq // case.Hkv, case.D), "f4")
        self.k, self.v = rng.standard_normal(kv, "f4"), rng.standard_normal(kv, "f4")
        order = np.argsort(rng.random((case.B, case.Hkv, case.L)), axis=-1)[..., : case.K]
        self.ids = np.sort(order, axis=-1)[..., None]

    def keys(self):
        """What the step reads; the copy that a gather makes is part of its work."""
        if self.case.kind == "recycled-gathered":
            return np.take_along_axis(self.k, self.ids, 2), np.take_along_axis(self.v, self.ids, 2)
        n = self.case.L if self.case.kind == "full" else self.case.K
        return self.k[:, :, :n], self.v[:, :, :n]


class Runner:
    launches = 20
    note = ""

    def __init__(self, call, error):
        self.call, self.error = call, error

    def sample(self, min_launches):
        samples = []
        while len(samples) * self.launches < min_launches:
            start = time.perf_counter()
            for _ in range(self.launches):
                self.call()
            samples.append((time.perf_counter() - start) / self.launches * 1e6)
        return samples


def start_attention(bed):
    wide = [np.asarray(a, "f8") for a in (bed.q, *bed.keys())]

    def error():
        reference = attend(*wide)
        off = np.linalg.norm(attend(bed.q, *bed.keys()) - reference, axis=-1)
        return (off / np.linalg.norm(reference, axis=-1)).max()

    return Runner(lambda: attend(bed.q, *bed.keys()), error)


def start_read(bed):
    k, v = bed.keys()
    return Runner(lambda: (k.sum(), v.sum()), lambda: 0.0)


def start_copy(bed):
    k, v = bed.keys()
    out = np.full_like(k, np.nan)

    def error():
        np.copyto(out, k)
        return 0.0 if np.array_equal(k, out) else np.inf

    return Runner(lambda: np.copyto(out, k), error)


class Engine:
    card, torch_version = "none", None

    def __init__(self, why):
        self.why = why
        self.versions = {"numpy": np.__version__}

    def refuse(self, _bed):
        raise RuntimeError(self.why)

    def rivals(self, case):
        rivals = [Rival(name, "", False, self.refuse) for name in NAMES[case.kind]]
        rivals.append(Rival("numpy", "stands in", False, start_attention))
        return rivals + [Rival("read", "", True, start_read), Rival("copy", "", True, start_copy)]

    def open(self, case):
        return Bed(case)

    def close(self, bed):
        pass

    def survive(self, error, case, rival, rows):
        pass

    def state(self):
        return None
