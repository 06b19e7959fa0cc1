# SPDX-License-Identifier: Apache-2.0
"""Two closed-loop decodings of one model, token by token: compare_eval.py A.json B.json

One from traces/tools/decode_hf.py, the other from `rattn-sim eval --format json` (either order, or
two of a kind), with --per-token. Whatever objects they hold with "nll", a list, are paired by
policy, file name of the document, prompt length and number of steps; each pair must agree in every token's
negative log-likelihood to --within (natural logarithm). Exit 0: all pairs agree; 4: some do not, or
an object has no partner; 1: nothing to compare.
"""

import argparse
import json
import math
import os
import sys


def found(value, outer=None):
    """All objects with per-step figures, however deep, and the policy they or those around name."""
    if isinstance(value, dict):
        outer = {**(outer or {}), **{k: value[k] for k in ("policy", "document") if k in value}}
        if "policy" in outer and isinstance(value.get("nll"), list):
            yield {**outer, **value}
        for inner in value.values():
            yield from found(inner, outer)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, outer)


def load(path):
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    rows = {}
    for row in found(value):
        document = os.path.basename(str(row.get("document", "")))
        key = row["policy"], document, row.get("prompt_len"), len(row["nll"])
        if key in rows:
            raise ValueError(f"{path}: {key}: twice")
        if any(x is None or not math.isfinite(x) for x in row["nll"]):
            raise ValueError(f"{path}: {key}: nll: expected finite numbers")
        rows[key] = row["nll"]
    if not rows:
        raise ValueError(f"{path}: expected objects with policy, document and nll, got none")
    return rows


def compare(a, b, within):
    """[(key, largest difference, its step)], [keys without a partner]"""
    pairs = []
    for key in sorted(set(a) & set(b), key=str):
        differences = [abs(x - y) for x, y in zip(a[key], b[key])]
        worst = max(differences, default=0.0)
        pairs.append((key, worst, differences.index(worst) if differences else 0))
    return pairs, sorted(set(a) ^ set(b), key=str)


def main(argv=None):
    parser = argparse.ArgumentParser(description="compare two closed-loop decodings per token")
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--within", type=float, default=1e-3, help="of a token's NLL (%(default)s)")
    args = parser.parse_args(argv)
    try:
        pairs, alone = compare(load(args.a), load(args.b), args.within)
    except (ValueError, OSError) as error:
        print(f"compare_eval: {error}", file=sys.stderr)
        return 1
    bad = 0
    for (policy, document, P, n), worst, step in pairs:
        bad += worst > args.within
        verdict = "differ" if worst > args.within else "agree"
        print(f"{verdict}  {policy}  {document} P={P} N={n}: worst {worst:.2e} at step {step}")
    for key in alone:
        print("alone  " + "  ".join(map(str, key)))
    if not pairs:
        print("compare_eval: no two objects have policy, document, P and N in common",
              file=sys.stderr)  # fmt: skip
        return 1
    return 4 if bad or alone else 0


if __name__ == "__main__":
    raise SystemExit(main())
