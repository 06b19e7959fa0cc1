# SPDX-License-Identifier: Apache-2.0
"""As much of torch as traces/tools uses, on numpy: not fast, and for tests only."""

import numpy as np

from . import nn  # noqa: F401 (torch.nn.functional is looked up by name)

__version__ = "0.fake"
float16, float32, float64, int16, int64, bool = (
    np.dtype(x) for x in ("f2", "f4", "f8", "i2", "i8", "?")
)
bfloat16 = "bfloat16"  # numpy has none


class Device(str):
    type = "cpu"


class Tensor(np.ndarray):
    device = Device("cpu")

    def to(self, what):
        with np.errstate(over="ignore"):
            return self if isinstance(what, Device) else self.astype(what)

    def permute(self, *axes):
        return np.transpose(self, axes)

    def expand(self, *shape):
        shape = [n if s == -1 else s for s, n in zip(shape, self.shape)]
        return np.broadcast_to(self, shape, subok=True)

    def flip(self, axis):
        return np.flip(self, axis)

    def new_full(self, shape, value):
        return wrap(np.full(shape, value, self.dtype))

    def same(self):
        return self

    cpu = contiguous = detach = same

    def numpy(self):
        return np.asarray(self)


def wrap(array):
    return np.asarray(array).view(Tensor)


def tensor(values, dtype=None, device=None):
    return wrap(np.array(values, dtype))


def zeros(shape, dtype=None, device=None):
    return wrap(np.zeros(shape, dtype))


def zeros_like(x):
    return wrap(np.zeros_like(x))


def arange(*args, device=None):
    return wrap(np.arange(*args))


def einsum(rule, *args):
    return wrap(np.einsum(rule, *(np.asarray(a) for a in args)))


def where(mask, a, b):
    b = np.asarray(b, a.dtype) if np.isscalar(b) else b
    return wrap(np.where(mask, a, b))


def softmax(x, axis):
    e = np.exp(np.asarray(x) - np.max(x, axis, keepdims=True))
    return wrap(e / e.sum(axis, keepdims=True))


def log_softmax(x, axis):
    z = np.asarray(x) - np.max(x, axis, keepdims=True)
    return wrap(z - np.log(np.exp(z).sum(axis, keepdims=True)))


def topk(x, k):
    order = np.argsort(-np.asarray(x), kind="stable")[:k]
    return x[order], wrap(order)


def argsort(x, dim, stable=False):
    return wrap(np.argsort(np.asarray(x), dim, kind="stable"))


def sort(x, axis):
    return wrap(np.sort(x, axis)), argsort(x, axis)


def amax(x, axis):
    return wrap(np.max(x, axis))


def cat(parts, axis=0):
    return wrap(np.concatenate([np.asarray(p) for p in parts], axis))


def cos(x):
    return wrap(np.cos(x))


def sin(x):
    return wrap(np.sin(x))


def no_grad():
    return lambda function: function


class cuda:
    @staticmethod
    def is_available():
        return False
