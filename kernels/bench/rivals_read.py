# SPDX-License-Identifier: Apache-2.0
"""Plain reads of a buffer, as the ceiling of what any attention can reach at those bytes.

Each reader sums 32-bit words, wrapping: the compiler can drop nothing, and the sum is checked.
"""

try:
    import triton
    import triton.language as tl

    @triton.jit
    def sum_words(source, out, n, BLOCK: tl.constexpr):
        total = tl.zeros((BLOCK,), tl.int32)
        step = tl.num_programs(0) * BLOCK
        for at in range(tl.program_id(0) * BLOCK, n, step):
            word = at + tl.arange(0, BLOCK)
            total += tl.load(source + word, mask=word < n, other=0)
        tl.store(out + tl.program_id(0), tl.sum(total, axis=0))

except ImportError:
    triton = None

# (words a block holds, warps, blocks per multiprocessor; 0: as many as cover the buffer once)
SHAPES = ((4096, 8, 8), (8192, 8, 4), (4096, 4, 8), (4096, 8, 0), (8192, 8, 0))


def triton_reader(torch, regions, shape):
    block, warps, per_sm = shape
    words = [region.view(torch.int32) for region in regions]
    n = words[0].numel()
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    blocks = triton.cdiv(n, block)
    grid = blocks if per_sm == 0 else min(blocks, sms * per_sm)

    def read(s):
        out = torch.empty(grid, dtype=torch.int32, device=words[s].device)
        sum_words[(grid,)](words[s], out, n, BLOCK=block, num_warps=warps)
        return out

    return read


def readers(torch, regions):
    """(name, call of a set's index) of each way to read a set."""
    words = [region.view(torch.int32) for region in regions]
    found = [("torch.sum", lambda s: words[s].sum(dtype=torch.int32).view(1))]
    if triton is not None:
        for shape in SHAPES:
            name = "triton %d/%dw/%d" % shape
            found.append((name, triton_reader(torch, regions, shape)))
    return found
