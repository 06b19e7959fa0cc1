# SPDX-License-Identifier: Apache-2.0
"""Are two trace files the same recording, made on two machines?

Tokens and metadata must be equal, q, k and v within 2 ulp of f16 at 99.9 % of the elements: another
BLAS sums in another order, and a value next to a rounding boundary lands on the other side of it.
The F32 tensors follow from those; they get a loose bound that only a wrong formula exceeds.
"""

import argparse
import sys

import numpy as np

import safetensors_io

MAX_ULP, MIN_SHARE = 2, 0.999
F32_TOLERANCE = 0.02


def ulp_distance(a, b):
    """Distance in steps between neighbouring f16 numbers; -0 and 0 are one place."""

    def line(x):
        bits = safetensors_io.encode(x, "F16").view(np.uint16).astype(np.int32)
        return np.where(bits & 0x8000, -(bits & 0x7FFF), bits)

    return np.abs(line(a) - line(b))


def compare_tensor(name, a, b):
    """One line of figures and a verdict for a tensor both files have in one shape and type."""
    if a.dtype(name)[0] in "IU":
        differing = int((a.raw(name) != b.raw(name)).sum())
        return differing == 0, f"{differing} of {a.raw(name).size} differ"
    x, y = a.f32(name), b.f32(name)
    if name.rsplit(".", 1)[-1] in ("q", "k", "v"):
        distance = ulp_distance(x, y)
        share = float((distance <= MAX_ULP).mean())
        equal = float((distance == 0).mean())
        return (
            share >= MIN_SHARE,
            f"within {MAX_ULP} ulp {share:.6f}, equal {equal:.6f}, worst {distance.max()} ulp",
        )
    worst = float((np.abs(x - y) / np.maximum(1, np.abs(y))).max()) if x.size else 0.0
    return (
        worst <= F32_TOLERANCE,
        f"worst difference {worst:.2e} (absolute below 1, relative above)",
    )


def compare(path_a, path_b):
    a, b = safetensors_io.Reader(path_a), safetensors_io.Reader(path_b)
    good = True
    for key in sorted(set(a.metadata) | set(b.metadata)):
        # The checksum is of the data, which may differ in last bits.
        if key != "content.sha256" and a.metadata.get(key) != b.metadata.get(key):
            print(f"metadata {key}: {a.metadata.get(key)!r} and {b.metadata.get(key)!r}")
            good = False
    for name in sorted(set(a.names()) | set(b.names())):
        if name not in a.entries or name not in b.entries:
            print(f"{name}: only in {path_a if name in a.entries else path_b}")
            good = False
        elif (a.dtype(name), a.shape(name)) != (b.dtype(name), b.shape(name)):
            print(f"{name}: {a.dtype(name)} {a.shape(name)} and {b.dtype(name)} {b.shape(name)}")
            good = False
        else:
            holds, figures = compare_tensor(name, a, b)
            print(f"{name}: {figures}" + ("" if holds else "  TOO FAR"))
            good &= holds
    return good


def main():
    parser = argparse.ArgumentParser(
        description="compare two traces; exit 1 when they are not the same recording"
    )
    parser.add_argument("a")
    parser.add_argument("b")
    args = parser.parse_args()
    good = compare(args.a, args.b)
    print("the same recording" if good else "not the same recording")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
