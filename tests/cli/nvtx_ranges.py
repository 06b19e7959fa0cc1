# SPDX-License-Identifier: Apache-2.0
# What nvtx_tool.c was told, as one JSON object; anything out of order is an AssertionError.
import collections
import json
import sys

KINDS = {1: "step", 2: "layer", 3: "op", 4: "played step"}
OPS = "append attend scores select refresh evict cosine".split()
PARENT = {"step": None, "layer": "step", "op": "layer", "played step": None}
kinds, ops, steps, played, stack = collections.Counter(), collections.Counter(), [], [], []
strings, categories = [], {}
for line in open(sys.argv[1]):
    what, domain, *rest = line.split()
    assert domain == "rattn-sim", line
    if what == "string":
        strings.append(" ".join(rest))
    elif what == "category":
        categories[int(rest[0])] = " ".join(rest[1:])
    elif what == "push":
        payload, name = int(rest[2], 16), " ".join(rest[3:])
        kind = KINDS[payload >> 56]
        op, layer = (payload >> 48 & 0xff) - 1, (payload >> 32 & 0xffff) - 1
        step = (payload & 0xffffffff) - 1
        assert int(rest[0]) == payload >> 56 and rest[1] == "1", line
        assert name == (OPS[op] if kind == "op" else kind) and name in strings, line
        assert (op >= 0) == (kind == "op") and (layer >= 0) == (kind in ("layer", "op")), line
        above = stack[-1] if stack else (None, None, None)
        assert above[0] == PARENT[kind] and above[1] in (None, step), (line, stack)
        assert kind != "op" or above[2] == layer, (line, stack)
        stack.append((kind, step, layer))
        kinds[kind] += 1
        if kind == "op":
            ops[f"{step}|{layer}|{name}"] += 1
        (steps if kind == "step" else played if kind == "played step" else []).append(step)
    elif what == "pop":
        stack.pop()
assert not stack, f"never popped: {stack}"
assert categories in ({}, KINDS), categories
print(json.dumps({"kinds": kinds, "ops": ops, "steps": steps, "played": played}))
