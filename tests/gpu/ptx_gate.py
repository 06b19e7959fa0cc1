#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds every CUDA kernel, as compiled, to what its speed needs.

No spills and no stack; registers within kernels/cuda/registers.tsv; K and V by cp.async of 16 bytes
and no load or store of local memory in the PTX; and for attention enough bytes under way: resident
CTAs (by registers, threads and shared memory) times what each has asked for, at least 32 KiB an SM.

usage: ptx_gate.py FOLDER [--write]
FOLDER holds X.ptxas (what ptxas -v said, all architectures) and X.ptx for each source X.cu.
--write makes the table anew. Last line: N passed, N failed, N skipped.
"""

import glob
import os
import re
import subprocess
import sys

TABLE = "kernels/cuda/registers.tsv"
LEAST_BYTES = 32 << 10
THREADS, WARPS = 128, 4
# Shared memory of an SM that CTAs may have, 1 KiB of it taken by each; registers and threads are the
# same for all of these.
SHARED_KIB = {"sm_80": 164, "sm_90": 228, "sm_100": 228}
COMPILED = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*?(?:, (\d+) bytes smem)?$")


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, out.stdout.splitlines()))


def short(name):
    """Kernel and template arguments: 'decode_split<__half, 64, 1, ...>'."""
    name = re.sub(r"\([a-z ]+\)", "", name.removeprefix("void "))
    depth, end = 0, len(name)
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            end = i
            break
    return name[:end]


def read(folder):
    """(arch, kernel) -> registers, static shared bytes, stack and spilled bytes."""
    kernels, name, arch, stack = {}, None, None, 0
    for path in sorted(glob.glob(os.path.join(folder, "*.ptxas"))):
        for line in open(path):
            if m := COMPILED.search(line):
                name, arch = m.groups()
            elif m := STACK.search(line):
                stack = sum(map(int, m.groups()))
            elif name and (m := USED.search(line.strip())):
                shared = re.search(r"(\d+) bytes smem", line)
                kernels[arch, name] = (int(m[1]), int(shared[1]) if shared else 0, stack)
                name = None
    plain = demangle([name for _, name in kernels])
    return {(arch, short(plain[name])): value for (arch, name), value in kernels.items()}


def bytes_under_way(arch, kernel, registers, static):
    """Of an SM, for attention; None for other kernels."""
    m = re.match(r"(decode_split|score_keys)<(.*)>$", kernel)
    if not m:
        return None
    arguments = [a.strip() for a in m[2].split(",")]
    R, stages = int(arguments[3]), int(arguments[6 if m[1] == "decode_split" else 5])
    rows = 2 if m[1] == "decode_split" else 1  # K and V, or K
    asked = rows * R * THREADS * 16
    shared = static + stages * asked + 1024
    granule = (registers * 32 + 255) // 256 * 256 * WARPS
    ctas = min(65536 // granule, 2048 // THREADS, SHARED_KIB[arch] * 1024 // shared)
    return ctas * (stages - 1) * asked


def check_kernel(arch, kernel, value, limits):
    registers, static, stack = value
    if stack:
        yield f"{stack} bytes of stack and spills"
    limit = limits.get((arch, kernel))
    if limit is None:
        yield f"not in {TABLE}: make ptx-table"
    elif registers > limit:
        yield f"{registers} registers, at most {limit}"
    flight = bytes_under_way(arch, kernel, registers, static)
    if flight is not None and flight < LEAST_BYTES:
        yield f"{flight} bytes under way on an SM, at least {LEAST_BYTES}"


def check_ptx(path):
    for number, line in enumerate(open(path), 1):
        if re.search(r"\b(ld|st)\.local", line):
            yield f"{path}:{number}: local memory"
        m = re.search(r"cp\.async\.c[ag]\.shared\.global\b.*?\], (?:\[.*?\], )?(\d+)", line)
        if m and m[1] != "16":
            yield f"{path}:{number}: cp.async of {m[1]} bytes"


def read_table():
    limits = {}
    if os.path.exists(TABLE):
        for line in open(TABLE):
            if not line.startswith("#"):
                arch, registers, kernel = line.rstrip("\n").split("\t")
                limits[arch, kernel] = int(registers)
    return limits


def write_table(kernels):
    with open(TABLE, "w") as out:
        out.write("# Most registers that each kernel may take: make ptx-table writes this, nvcc 13.0.\n")
        for (arch, kernel), value in sorted(kernels.items()):
            out.write(f"{arch}\t{value[0]}\t{kernel}\n")


def main(arguments):
    folder = arguments[0]
    kernels = read(folder)
    if "--write" in arguments:
        write_table(kernels)
    limits, passed, failed = read_table(), 0, 0
    for (arch, kernel), value in sorted(kernels.items()):
        wrong = list(check_kernel(arch, kernel, value, limits))
        for what in wrong:
            print(f"{arch} {kernel}: {what}")
        failed += bool(wrong)
        passed += not wrong
    for path in sorted(glob.glob(os.path.join(folder, "*.ptx"))):
        wrong = list(check_ptx(path))
        for what in wrong[:5]:
            print(what)
        failed += bool(wrong)
        passed += not wrong
    if not kernels:
        print(f"{folder}: no kernels were compiled")
        failed += 1
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


sys.exit(main(sys.argv[1:]))
