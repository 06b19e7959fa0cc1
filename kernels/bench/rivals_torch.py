# SPDX-License-Identifier: Apache-2.0
"""The rivals on a GPU through torch: buffers, float64 check, CUDA graphs, times.

Cold L2: so many sets of K and V (or of gathered keys, none twice) that the other sets are at least
four times the L2, launched in turn inside one CUDA graph; one set when it is that large itself. A
sample is one replay between two events, divided by its launches. Each launch writes memory of its
own, filled with NaN before the replay that is checked. Planning, compiling and the first call are
outside. In a dry run without a GPU, torch's math attention runs on the CPU.
"""

import collections
import gc
import math
import os
import sys
import time
import warnings

import torch

from rivals_names import NAMES

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUNDLE = os.path.join(ROOT, "build", "gpu", "wheels", "site")
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
CHECKED_ROWS = 64
COLD = 4  # times the L2 between two uses of a set
TURN_US = 10e3  # a turn replays for about this long, at least
MAX_REPLAYS = 60
MATH_BYTES = 3e8  # the reference copies K and V once per query head: not on large cases
RESTARTS = 8

Rival = collections.namedtuple("Rival", "name note exact start")
Set = collections.namedtuple("Set", "k v q ids flat region")  # flat: rows of [B * Hkv * L] gathered


class Bed:
    """The sets of one case. K and V are [B][Hkv][L][D]; of the contiguous step, [B][Hkv][K][D]."""

    def __init__(self, case, device, l2_bytes, step_bytes):
        self.case, self.device, self.bytes = case, device, step_bytes
        self.n = case.L if case.kind == "full" else case.K
        self.gathered = case.kind == "recycled-gathered"
        self.rows = case.L if self.gathered else self.n
        n_sets = 1 if step_bytes >= COLD * l2_bytes else 1 + math.ceil(COLD * l2_bytes / step_bytes)
        per_cache = case.L // case.K if self.gathered else 1
        torch.manual_seed(1)
        self.sets = []
        for _ in range(math.ceil(n_sets / per_cache)):
            self.sets += self.new_cache(per_cache)
        del self.sets[n_sets:]
        at_least = 32 if step_bytes < 64e6 else 16
        self.launches = len(self.sets) * math.ceil(at_least / len(self.sets))
        self.references = {}

    def new_cache(self, per_cache):
        case, dtype = self.case, DTYPES[self.case.dtype]
        shape = (2, case.B, case.Hkv, self.rows, case.D)
        kv = torch.randn(shape, device=self.device, dtype=dtype)
        order = None
        if self.gathered:
            order = torch.rand(shape[1:4], device=self.device).argsort(dim=-1)
        sets = []
        for part in range(per_cache):
            q = torch.randn((case.B, case.Hq, case.D), device=self.device, dtype=dtype)
            ids = flat = None
            if self.gathered:
                ids = order[..., part * case.K : (part + 1) * case.K].sort(dim=-1).values
                first = torch.arange(case.B * case.Hkv, device=self.device) * case.L
                flat = (ids + first.view(case.B, case.Hkv, 1)).reshape(-1)
            elements = self.bytes // kv.element_size()
            region = kv.view(-1)[part * elements : (part + 1) * elements]
            sets.append(Set(kv[0], kv[1], q, ids, flat, region))
        return sets

    def heads_checked(self):
        """(b, h) spread over all KV heads, so many that their queries are CHECKED_ROWS or all."""
        case = self.case
        total = case.B * case.Hkv
        wanted = min(total, max(1, CHECKED_ROWS // (case.Hq // case.Hkv)))
        return [divmod(i * total // wanted, case.Hkv) for i in range(wanted)]

    def reference(self, index, paged):
        """float64 of the heads checked, [heads][G][D]."""
        if (index, paged) not in self.references:
            rows = [self.head_reference(self.sets[index], b, h, paged)
                    for b, h in self.heads_checked()]  # fmt: skip
            self.references[index, paged] = torch.stack(rows)
        return self.references[index, paged]

    def head_reference(self, s, b, h, paged):
        G = self.case.Hq // self.case.Hkv
        kv = []
        for cache in (s.k, s.v):
            if paged:
                rows = pages_of(cache, self.case)[:, h].reshape(self.case.B, self.n, -1)[b]
            else:
                rows = cache[b, h] if s.ids is None else cache[b, h].index_select(0, s.ids[b, h])
            kv.append(rows.double())
        logits = s.q[b, h * G : (h + 1) * G].double() @ kv[0].T / math.sqrt(self.case.D)
        return torch.softmax(logits, dim=-1) @ kv[1]

    def error_of(self, out, index, paged):
        """Largest relative error of a row; NaN anywhere in the output gives NaN."""
        case = self.case
        out = out.reshape(case.B, case.Hkv, case.Hq // case.Hkv, case.D)
        if not torch.isfinite(out).all():
            return math.nan
        reference = self.reference(index, paged)
        got = torch.stack([out[b, h] for b, h in self.heads_checked()]).double()
        return ((got - reference).norm(dim=-1) / reference.norm(dim=-1)).max().item()


def pages_of(cache, case, size=16):
    """The same memory as pages [pages][Hkv][size][D]; request b owns an equal run of them."""
    return cache.view(-1, case.Hkv, size, case.D)


class GraphRunner:
    """One call per launch in a CUDA graph, the sets in turn."""

    def __init__(self, bed, call, paged=False, note=""):
        self.bed, self.paged, self.note, self.launches = bed, paged, note, bed.launches
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for s in range(len(bed.sets)):
                call(s)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outs = [call(i % len(bed.sets)) for i in range(self.launches)]
        self.call = call  # holds what the graph's kernels read

    def error(self):
        for out in self.outs:
            out.fill_(math.nan)
        self.graph.replay()
        torch.cuda.synchronize()
        last = (self.launches - 1) % len(self.bed.sets)
        errors = [self.bed.error_of(out, 0, self.paged) for out in self.outs[:1]]
        errors.append(self.bed.error_of(self.outs[-1], last, self.paged))
        if not all(torch.isfinite(out).all() for out in self.outs):
            errors.append(math.nan)
        return math.nan if any(math.isnan(e) for e in errors) else max(errors)

    def replay(self, n):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * n)]
        for start, end in zip(marks[::2], marks[1::2]):
            start.record()
            self.graph.replay()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e3 / self.launches
                for start, end in zip(marks[::2], marks[1::2])]  # fmt: skip

    def sample(self, min_launches):
        us = min(self.replay(3)) * self.launches  # warms up, too
        n = max(7, math.ceil(min_launches / self.launches), math.ceil(TURN_US / max(us, 1)))
        return self.replay(min(n, MAX_REPLAYS))


class CopyRunner(GraphRunner):
    """Half the bytes read and written elsewhere: the traffic of the step."""

    def __init__(self, bed):
        self.half = bed.sets[0].region.numel() // 2
        self.to = torch.empty_like(bed.sets[0].region[: self.half])
        super().__init__(bed, lambda s: self.to.copy_(bed.sets[s].region[: self.half]))

    def error(self):
        self.to.fill_(math.nan)
        self.graph.replay()
        last = self.bed.sets[(self.launches - 1) % len(self.bed.sets)]
        return 0.0 if torch.equal(self.to, last.region[: self.half]) else math.inf


def summed(bed, call):
    """The runner of a reader whose last sum is right."""
    runner = GraphRunner(bed, call)
    runner.graph.replay()
    words = bed.sets[(runner.launches - 1) % len(bed.sets)].region.view(torch.int32)
    off = runner.outs[-1].sum(dtype=torch.int64) - words.sum(dtype=torch.int64)
    if off.item() % (1 << 32) != 0:
        raise RuntimeError("wrong sum")
    return runner


class ReadRunner:
    """Sums of the same bytes as 32-bit words. The fastest of several kernels stands for it."""

    def __init__(self, bed):
        import rivals_read

        best, notes = math.inf, []
        for name, call in rivals_read.readers(torch, [s.region for s in bed.sets]):
            try:
                runner = summed(bed, call)
                us = min(runner.replay(5))
                notes.append(f"{name} {us:.2f}")
                if us < best:
                    best, self.runner, self.launches = us, runner, runner.launches
            except Exception as error:
                notes.append(f"{name}: {type(error).__name__} {str(error)[:60]}")
        if best == math.inf:
            raise RuntimeError("; ".join(notes))
        self.note = "; ".join(notes)

    def error(self):
        return 0.0  # each candidate's sum was compared when it was built

    def sample(self, min_launches):
        return self.runner.sample(min_launches)


class CpuRunner:
    """A dry run's stand-in for the graph: calls in turn, by the clock."""

    def __init__(self, bed, call, paged=False, note=""):
        self.bed, self.call, self.paged, self.note = bed, call, paged, note
        self.launches = bed.launches

    def error(self):
        return self.bed.error_of(self.call(0), 0, self.paged)

    def sample(self, min_launches):
        start = time.perf_counter()
        for i in range(self.launches):
            self.call(i % len(self.bed.sets))
        return [(time.perf_counter() - start) / self.launches * 1e6]


class Engine:
    def __init__(self, options, report, dry):
        self.options, self.report, self.deadline = options, report, math.inf
        self.gpu = torch.cuda.is_available()
        if not self.gpu and not dry:
            raise RuntimeError("torch sees no GPU")
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.torch_version = torch.__version__
        self.versions = {"cuda": torch.version.cuda}
        self.card, self.l2_bytes = "cpu", 1 << 12
        if self.gpu:
            properties = torch.cuda.get_device_properties(0)
            self.card, self.l2_bytes = properties.name, properties.L2_cache_size
            self.versions["l2_bytes"] = self.l2_bytes
            self.versions["cudnn"] = torch.backends.cudnn.version()
        if os.path.isdir(BUNDLE):
            sys.path.insert(0, BUNDLE)
        if not options.jit:
            os.environ["FLASHINFER_DISABLE_JIT"] = "1"
        import rivals_libraries

        self.libraries = rivals_libraries.Libraries(self.versions)
        self.nvml = self.start_nvml()
        self.skip = set(filter(None, os.environ.get("RIVALS_SKIP", "").split(",")))

    def start_nvml(self):
        try:
            import pynvml

            pynvml.nvmlInit()
            self.versions["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:
            self.versions["nvml"] = str(error)[:80]
            return None

    def state(self):
        """Clocks, power and why the card slows, or None without NVML."""
        if self.nvml is None:
            return None
        nvml, handle = self.nvml
        reads = {
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "mem_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle": lambda: hex(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        }
        state = {}
        for name, read in reads.items():
            try:
                state[name] = read()
            except Exception as error:
                state[name] = str(error)[:40]
        return state

    def open(self, case):
        width = torch.empty(0, dtype=DTYPES[case.dtype]).element_size()
        n = case.L if case.kind == "full" else case.K
        return Bed(case, self.device, self.l2_bytes, 2 * case.B * case.Hkv * n * case.D * width)

    def close(self, bed):
        bed.sets.clear()
        bed.references.clear()
        self.libraries.forget()
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

    def rivals(self, case):
        rivals = []
        for name, note in NAMES[case.kind].items():
            start = lambda bed, name=name, note=note: self.start(bed, name, note)
            rivals.append(Rival(name, note, False, start))
        if self.gpu:
            rivals.append(Rival("read", "", True, ReadRunner))
            rivals.append(Rival("copy", "torch copy_ of half the bytes", True, CopyRunner))
        return rivals

    def start(self, bed, name, note):
        case = bed.case
        if f"{name}@{case.kind}/{case.L}/{case.B}/{case.dtype}/{case.model}" in self.skip:
            raise RuntimeError("left the GPU unusable in an earlier run of this case")
        if not self.gpu and name != "sdpa-math":
            raise RuntimeError("needs a GPU")
        if name == "flex" and not self.options.flex:
            raise RuntimeError("not asked for: --flex")
        if name == "sdpa-math" and bed.bytes > MATH_BYTES:
            raise RuntimeError("for reference only, not on a case this large")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                call, paged = self.libraries.call(name, bed)
                runner = GraphRunner if self.gpu else CpuRunner
                return runner(bed, call, paged, note)
            except Exception as error:
                why = "; ".join(str(w.message).split(" (Triggered")[0] for w in said)
                raise RuntimeError(f"{error} {why}".replace("\n", " ")) from error

    def survive(self, error, case, rival, rows):
        """After an error that ended the context, start again behind the rival that caused it."""
        if not self.gpu:
            return
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            return
        except Exception as dead:
            print(f"\n{rival}: {error}: the GPU is lost to this process ({str(dead)[:80]})")
        key = f"{rival}@{case.kind}/{case.L}/{case.B}/{case.dtype}/{case.model}"
        if not self.report.path or len(self.skip) >= RESTARTS:
            raise SystemExit(1)
        os.environ["RIVALS_SKIP"] = ",".join(sorted(self.skip | {key}))
        os.environ["RIVALS_RESUME"] = "1"
        argv = [sys.executable, os.path.join(ROOT, "kernels", "bench", "rivals.py")]
        argv += ["--tier", self.options.tier, "--out", self.report.path]
        argv += ["--jit"] * self.options.jit + ["--flex"] * self.options.flex
        if self.deadline != math.inf:
            argv += ["--seconds", str(self.deadline - time.monotonic())]
        sys.stdout.flush()
        os.execv(sys.executable, argv)
