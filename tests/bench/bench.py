# SPDX-License-Identifier: Apache-2.0
"""All benchmarks, as one table and as JSON.

Every program checks what it computes before it times it, runs the two sides of a comparison in turn
seven times, and prints a line of JSON; this adds the replays, which need the whole tool, and lays
the lines out. usage: bench.py BUILD_FOLDER OUT.json
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "audit"))
RUNS = 7
SAMPLE = os.path.join(ROOT, "traces", "data", "smollm2-135m.safetensors")
POLICIES = ["full", "recycled:k=256,stride=16", "recycled:k=256,stride=8,sim=0.85",
            "streaming:k=256", "oracle:k=256"]  # fmt: skip
MODEL = os.path.join(ROOT, "build", "models", "smollm2-135m-instruct")
LONG = "synth:case=drift,P=32704,N=64,layers=1,Hq=32,Hkv=8,D=128"


def program_rows(path):
    """Lines of a benchmark program. One that fails says why on stderr, and ends this."""
    out = subprocess.run([path], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def store_rows(path):
    """The store's program counts rows; its rate has nothing to be a share of."""
    rows = []
    for line in program_rows(path):
        rows.append({
            "case": line["case"], "shape": "layer_step rows, commits included", "unit": "rows/s",
            "value": line["median"], "target": 300000, "threads": 1,
            "a": {"name": "written", "median": line["median"], "runs": line["rows_per_s"]},
            "b": None, "limit": "one core: %.2f us of processor time a row" % line["cpu_us_per_row"],
            "checked": "rows read back equal those written", "cache_resident": None,
        })  # fmt: skip
    return rows


def kernel_rows(path):
    """Rows of kernel activity; what ends the pass is told beside it."""
    rows = []
    for line in program_rows(path):
        rows.append({
            "case": line["case"], "shape": "kernel rows of one pass, commits included", "unit": "rows/s",
            "value": line["median"], "target": 300000, "threads": 1,
            "a": {"name": "written", "median": line["median"], "runs": line["rows_per_s"]},
            "b": None, "limit": "one core: %.2f us of processor time a row; with the pass's end and its"
            " indexes %.0f rows/s" % (line["cpu_us_per_row"], line["with_end_median"]),
            "checked": "rows read back equal those written", "cache_resident": None,
        })  # fmt: skip
    return rows


def replay(tool, trace, policies, *options):
    """(seconds, printed objects) of one phase-1 replay, start-up and reading included."""
    argv = [tool, "replay", trace, "--backend", "null", "-q", "--format", "json", *options]
    for policy in policies:
        argv += ["-p", policy]
    start = time.perf_counter()
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - start
    objects = json.loads(out)
    return seconds, objects if isinstance(objects, list) else [objects]


def numpy_replay(policies):
    """(seconds, figures) of the same replay by the audit's numpy, reading included."""
    import attention
    import reference

    start = time.perf_counter()
    trace = attention.Trace(SAMPLE)
    figures = [reference.Replay(trace, 0, p, "compact", "fused").figures for p in policies]
    return time.perf_counter() - start, figures


def check_same(ours, theirs):
    """The two replays must tell the same story before either is timed."""
    worst = 0
    for a, b in zip(ours, theirs, strict=True):
        for name in ("mass_recovered", "output_rel_err", "topk_recall"):
            for part, value in b[name].items():
                worst = max(worst, abs(a[name][part] - value))
        if a["keys_read"] != b["keys_read"] or worst > 1e-9:
            sys.exit("bench: %s: numpy and the tool disagree" % a["policy"])
    return "figures of both agree to %.0e, keys read exactly" % max(worst, 1e-16)


def sample_rows(tool):
    """Phase 1 of the embedded sample under the demo's schedules, against numpy."""
    ours, theirs = [], []
    _, figures = numpy_replay(POLICIES)
    _, printed = replay(tool, SAMPLE, POLICIES)
    checked = check_same(printed, figures)
    for _ in range(RUNS):
        ours.append(replay(tool, SAMPLE, POLICIES)[0])
        theirs.append(numpy_replay(POLICIES)[0])
    work = sum(o["steps"] * len(o["layers"]) for o in printed)
    ratios = [b / a for a, b in zip(ours, theirs)]
    return [{
        "case": "phase 1 against numpy", "shape": "embedded sample, five schedules, quality on",
        "unit": "layer-steps/s", "value": statistics.median(ratios), "target": 50,
        "threads": os.cpu_count(), "checked": checked, "cache_resident": None,
        "a": {"name": "rattn-sim", "median": work / statistics.median(ours),
              "runs": [work / s for s in ours]},
        "b": {"name": "numpy", "median": work / statistics.median(theirs),
              "runs": [work / s for s in theirs]},
        "limit": "both spend their time in f64 products; numpy's are BLAS calls over all steps",
    }]  # fmt: skip


def long_rows(tool):
    """Phase 1 of one layer of the shape of Llama-3.1-8B at 32K tokens: the steps alone, which is
    what a run of all of them takes more than a run of the first."""
    policy, last = "recycled:k=1024,stride=16", 63
    rates = []
    for run in range(RUNS + 1):
        one, _ = replay(tool, LONG, [policy], "--steps", "0..0")
        all_of_them, printed = replay(tool, LONG, [policy])
        if printed[0]["full_layer_steps"] != (last + 1) // 16:
            sys.exit("bench: %s: full steps are not where they should be" % LONG)
        if run > 0:
            rates.append(last / (all_of_them - one))
    flops = 2 * 32 * 32736 * (128 + 128) * statistics.median(rates) / 1e9
    return [{
        "case": "phase 1, 32K", "shape": "Hq=32 Hkv=8 D=128 f16 L=32768, one schedule, quality on",
        "unit": "layer-steps/s", "value": statistics.median(rates), "target": None,
        "threads": os.cpu_count(), "cache_resident": None, "b": None,
        "a": {"name": "rattn-sim", "median": statistics.median(rates), "runs": rates},
        "checked": "full steps counted; figures by the audit, on traces that numpy can hold",
        "limit": "products in f64: %.1f GFLOP/s of the reference's dots and outputs" % flops,
    }]  # fmt: skip


def decoder_rows(path):
    """Prefill and decode of a real model, where one is prepared and OpenBLAS is there."""
    if not os.path.exists(os.path.join(MODEL, "model.safetensors")):
        print("decoder: not timed: %s is not prepared (traces/tools/make_traces.sh prepare)"
              % os.path.relpath(MODEL, ROOT))  # fmt: skip
        return []
    done = subprocess.run([path, MODEL], stdout=subprocess.PIPE, text=True)
    if done.returncode == 3:
        print("decoder: not timed: its products need OpenBLAS")
        return []
    if done.returncode:
        sys.exit("bench: %s failed" % path)
    rows = []
    for line in map(json.loads, done.stdout.splitlines()):
        is_prefill = line["case"] == "prefill"
        ratios = [a / b for a, b in zip(line["tokens_per_s"], line["bound"])]
        rows.append({
            "case": "decoder, " + line["case"], "unit": "tokens/s", "threads": line["threads"],
            "shape": "SmolLM2-135M, f32 weights, f16 cache, "
            + ("a prompt of 2048 tokens, dense" if is_prefill
               else "one sequence after 2048 tokens, full attention"),
            "value": statistics.median(line["tokens_per_s"]), "target": 137 if is_prefill else 15,
            "a": {"name": "decoder", "median": statistics.median(line["tokens_per_s"]),
                  "runs": line["tokens_per_s"]},
            "b": {"name": "products alone" if is_prefill else "a read of the weights",
                  "median": statistics.median(line["bound"]), "runs": line["bound"]},
            "limit": "%.2f of the other side, run by run; %.1f ms of processor time a token; by %s"
            % (statistics.median(ratios), statistics.median(line["cpu_ms_per_token"]),
               line["gemm"].split(" ")[0]),
            "checked": "a step's logits are a longer prefill's to %.0e" % line["gap"],
            "cache_resident": None,
        })  # fmt: skip
    return rows


def number(value):
    return "-" if value is None else "%.3g" % value if value < 1e4 else "%.0f" % value


def table(rows):
    lines = ["%-24s %8s %8s  %s" % ("case", "value", "target", "what against what")]
    for row in rows:
        sides = "%s %s %s" % (row["a"]["name"], number(row["a"]["median"]), row["unit"])
        if row["b"]:
            sides += ", %s %s" % (row["b"]["name"], number(row["b"]["median"]))
        lines += ["%-24s %8s %8s  %s" % (row["case"], number(row["value"]),
                                         number(row["target"]), sides)]  # fmt: skip
        for text in (row["shape"] + (", cache-resident" if row["cache_resident"] else ""),
                     "limit " + row["limit"], "checked: " + row["checked"]):  # fmt: skip
            lines.append("    " + text)
    return "\n".join(lines)


def main():
    build, target = sys.argv[1:]
    tool = os.path.join(build, "rattn-sim")
    rows = []
    for name in ("bench_attend", "bench_select"):
        rows += program_rows(os.path.join(build, "bench", name))
    rows += store_rows(os.path.join(build, "bench", "bench_store"))
    rows += kernel_rows(os.path.join(build, "bench", "bench_kernels"))
    rows += sample_rows(tool) + long_rows(tool)
    rows += decoder_rows(os.path.join(build, "bench", "bench_decoder"))
    device = json.loads(
        subprocess.run([tool, "doctor", "--format", "json"], check=True, stdout=subprocess.PIPE,
                       text=True).stdout)  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"machine": platform.machine(), "load_average": os.getloadavg(),
                   "date": time.strftime("%Y-%m-%d"), "doctor": device,
                   "peak_child_bytes": peak, "rows": rows}, file, indent=1)  # fmt: skip
    print(table(rows))
    print("load average %.1f; %d runs each, medians; all of it in %s"
          % (os.getloadavg()[0], RUNS, os.path.relpath(target)))  # fmt: skip


if __name__ == "__main__":
    main()
