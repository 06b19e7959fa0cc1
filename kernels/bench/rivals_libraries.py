# SPDX-License-Identifier: Apache-2.0
"""How each library is called: a rival's name gives a function from a set's index to the output.

Whatever can be done ahead of a step (views, page tables, plans, workspaces) is done here, outside
the timing. Keys gathered per KV head go to FlashInfer, whose page table is one for all heads of a
request, as one request per KV head with G query heads and pages of one key: the same mathematics.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
WORKSPACE_BYTES = 128 << 20
PAGE = 16


class Libraries:
    def __init__(self, versions):
        self.versions = versions
        self.workspace = None
        self.compiled = None
        for name in ("flashinfer", "flash_attn", "flash_attn_interface"):
            try:
                versions[name] = getattr(__import__(name), "__version__", "unknown")
            except Exception as error:
                versions[name] = f"{type(error).__name__}: {error}"[:120]

    def forget(self):
        self.workspace = None

    def call(self, name, bed):
        """(function of a set's index, whether it reads K and V as pages)"""
        if name.startswith("gather+sdpa-"):
            return gathered_sdpa(bed, *split_name(name[len("gather+sdpa-") :])), False
        if name.startswith("sdpa-"):
            return sdpa(bed, *split_name(name[len("sdpa-") :])), False
        if name.startswith("flashinfer-single"):
            return flashinfer_single(bed, name.endswith("-tc")), False
        if name.startswith("flashinfer-p16"):
            return self.flashinfer_pages(bed, name.endswith("-tc")), True
        if name.startswith("flashinfer-p1"):
            return self.flashinfer_keys(bed, name.endswith("-tc")), False
        if name == "flash-attn-2":
            from flash_attn import flash_attn_with_kvcache

            return flash_attention(bed, flash_attn_with_kvcache), False
        if name == "flash-attn-3":
            from flash_attn_interface import flash_attn_with_kvcache

            return flash_attention(bed, flash_attn_with_kvcache), False
        if name == "flex":
            return self.flex(bed), False
        raise ValueError(f"no rival named {name}")

    def wrapper(self, case, tensor_cores, table, heads, page, layout):
        """A planned FlashInfer wrapper. Graphs capture its runs: its grid fits this very plan."""
        from flashinfer import BatchDecodeWithPagedKVCacheWrapper

        indptr, indices, last = table
        if self.workspace is None:
            self.workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
        wrapper = BatchDecodeWithPagedKVCacheWrapper(
            self.workspace, layout, use_tensor_cores=tensor_cores
        )
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[case.dtype]
        wrapper.plan(indptr, indices, last, *heads, case.D, page,
                     q_data_type=dtype, kv_data_type=dtype)  # fmt: skip
        return wrapper

    def flashinfer_pages(self, bed, tensor_cores):
        case = bed.case
        per_request = bed.n // PAGE
        table = (page_starts(case.B, per_request), ints(torch.arange(case.B * per_request)),
                 ints(torch.full((case.B,), PAGE)))  # fmt: skip
        heads = (case.Hq, case.Hkv)
        wrapper = self.wrapper(case, tensor_cores, table, heads, PAGE, "HND")
        caches = [tuple(c.view(-1, case.Hkv, PAGE, case.D) for c in (s.k, s.v)) for s in bed.sets]
        return lambda i: wrapper.run(bed.sets[i].q, caches[i])

    def flashinfer_keys(self, bed, tensor_cores):
        case = bed.case
        requests, G = case.B * case.Hkv, case.Hq // case.Hkv
        starts, last = page_starts(requests, case.K), ints(torch.ones(requests))
        wrappers, caches, queries = [], [], []
        for s in bed.sets:
            table = (starts, s.flat.int(), last)
            wrappers.append(self.wrapper(case, tensor_cores, table, (G, 1), 1, "NHD"))
            caches.append(tuple(cache.view(-1, 1, 1, case.D) for cache in (s.k, s.v)))
            queries.append(s.q.view(requests, G, case.D))
        return lambda i: wrappers[i].run(queries[i], caches[i])

    def flex(self, bed):
        from torch.nn.attention.flex_attention import flex_attention

        if self.compiled is None:
            self.compiled = torch.compile(flex_attention, dynamic=False)
        queries = [s.q.unsqueeze(2) for s in bed.sets]
        return lambda i: self.compiled(queries[i], bed.sets[i].k, bed.sets[i].v, enable_gqa=True)


def split_name(text):
    """(backend, folded) of flash or flash-folded."""
    return BACKENDS[text.split("-")[0]], text.endswith("-folded")


def ints(tensor):
    return tensor.to(device="cuda", dtype=torch.int32)


def page_starts(requests, pages):
    return ints(torch.arange(requests + 1) * pages)


def query_blocks(bed, folded):
    """[B][Hkv][G][D], or [B][Hq][1][D], and whether heads are grouped."""
    case = bed.case
    shape = (case.B, case.Hkv, -1, case.D) if folded else (case.B, case.Hq, 1, case.D)
    return [s.q.view(shape) for s in bed.sets], not folded


def sdpa(bed, backend, folded):
    queries, grouped = query_blocks(bed, folded)

    def call(i):
        s = bed.sets[i]
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(queries[i], s.k, s.v, enable_gqa=grouped)

    return call


def gathered_sdpa(bed, backend, folded):
    case = bed.case
    queries, grouped = query_blocks(bed, folded)
    rows = [tuple(cache.view(-1, case.D) for cache in (s.k, s.v)) for s in bed.sets]

    def call(i):
        k, v = (cache.index_select(0, bed.sets[i].flat).view(case.B, case.Hkv, case.K, case.D)
                for cache in rows[i])  # fmt: skip
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(queries[i], k, v, enable_gqa=grouped)

    return call


def flashinfer_single(bed, tensor_cores):
    from flashinfer import single_decode_with_kv_cache

    if bed.case.B != 1:
        raise RuntimeError("for one request only")

    def call(i):
        s = bed.sets[i]
        return single_decode_with_kv_cache(s.q[0], s.k[0], s.v[0], kv_layout="HND",
                                           use_tensor_cores=tensor_cores)  # fmt: skip

    return call


def flash_attention(bed, with_kvcache):
    queries = [s.q.unsqueeze(1) for s in bed.sets]
    caches = [tuple(cache.transpose(1, 2) for cache in (s.k, s.v)) for s in bed.sets]

    def call(i):
        out = with_kvcache(queries[i], *caches[i])
        return out[0] if isinstance(out, tuple) else out

    return call
