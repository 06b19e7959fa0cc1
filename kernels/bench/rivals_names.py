# SPDX-License-Identifier: Apache-2.0
"""The rivals by kind of step, in the order they are tried, each with what the name stands for.

-folded: the G queries of a KV head become one query block of length G, so that a backend without
grouped heads, or one that would read K once per query head, reads it once. -tc: tensor cores.
"""

BACKENDS = ("flash", "cudnn", "efficient")

SDPA = {f"sdpa-{name}": "torch, enable_gqa, query of length 1" for name in BACKENDS}
SDPA.update({f"sdpa-{name}-folded": "torch, G queries as one block" for name in BACKENDS})
MATH = {"sdpa-math": "torch, for reference only"}
OTHERS = {
    "flashinfer-single": "HND, contiguous",
    "flashinfer-single-tc": "HND, contiguous",
    "flashinfer-p16": "pages of 16 in order",
    "flashinfer-p16-tc": "pages of 16 in order",
    "flash-attn-2": "flash_attn_with_kvcache",
    "flash-attn-3": "flash_attn_with_kvcache",
    "flex": "torch.compile(flex_attention)",
}
GATHERED = {
    "flashinfer-p1": "pages of one key, a request per KV head",
    "flashinfer-p1-tc": "pages of one key, a request per KV head",
    "gather+sdpa-flash-folded": "index_select, then torch",
    "gather+sdpa-cudnn-folded": "index_select, then torch",
    "gather+sdpa-flash": "index_select, then torch",
    "gather+sdpa-cudnn": "index_select, then torch",
}

CONTIGUOUS = {**SDPA, **MATH, **OTHERS}
NAMES = {"full": CONTIGUOUS, "recycled-contiguous": CONTIGUOUS, "recycled-gathered": GATHERED}
