# SPDX-License-Identifier: Apache-2.0
"""Times other libraries' decode attention on the shapes of our CUDA benchmark.

A case is one decode step of one layer: the full step over L keys, or the recycled step over K keys
per KV head, either already contiguous or gathered out of a cache of L by position. Each rival is
checked against float64 on the very buffers it is timed on; one that fails, or cannot run, is listed
with the reason and has no time. How it is timed: rivals_torch.py.

usage: rivals.py [--tier core|batch|grid] [--out FILE.json] [--seconds N] [--jit] [--flex]
DRY=1 in the environment: tiny sizes, any machine; without torch only numpy stands in.
Exit status: 0 done or time was up, 2 usage, 3 no torch or no GPU (not in a dry run).
"""

import argparse
import collections
import datetime
import json
import math
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DRY = os.environ.get("DRY") == "1"
ROUNDS = 3
MIN_LAUNCHES = 50
KINDS = ("full", "recycled-contiguous", "recycled-gathered")
MODELS = {"llama-3.1-8b": (32, 8, 128), "qwen2-7b": (28, 4, 128), "smollm2-135m": (9, 3, 64)}
K_RECYCLED = 2048
# Largest relative error of a row, in the Euclidean norm. Rounding the weights and the output to the
# type gives 2e-3 and 3e-4; one key block left out of a hundred gives 1e-1.
TOLERANCE = {"bf16": 1e-2, "f16": 3e-3, "f32": 1e-4}

Case = collections.namedtuple("Case", "kind model Hq Hkv D L K B dtype")


def case_name(case):
    return f"{case.kind}/{case.model}/L{case.L}/B{case.B}/{case.dtype}"


def keys_read(case):
    return case.L if case.kind == "full" else case.K


def kv_bytes(case):
    """Bytes of K and V that one step must read."""
    width = 4 if case.dtype == "f32" else 2
    return 2 * case.B * case.Hkv * keys_read(case) * case.D * width


def make_case(kind, L, B=1, dtype="bf16", model="llama-3.1-8b"):
    Hq, Hkv, D = MODELS[model]
    return Case(kind, model, Hq, Hkv, D, L, min(K_RECYCLED, L), B, dtype)


def cases_of(tier):
    """Cases in order of importance: what time does not reach is the least missed."""
    if DRY:
        return [
            Case(kind, "tiny", 6, 2, 16, 64, 16, B, "f32") for B in (1, 2) for kind in KINDS
        ]
    full, contiguous, gathered = KINDS
    cases = [make_case(full, 32768), make_case(gathered, 32768), make_case(contiguous, 32768)]
    cases += [make_case(full, 131072), make_case(gathered, 131072), make_case(full, 8192)]
    cases += [make_case(kind, 32768, dtype="f16") for kind in (full, gathered)]
    if tier in ("batch", "grid"):
        cases += [make_case(kind, 32768, B) for B in (8, 4) for kind in (full, gathered)]
        cases += [make_case(full, 8192, B) for B in (8, 4)] + [make_case(full, 131072, 4)]
        cases += [make_case(gathered, 131072, 4), make_case(gathered, 8192)]
        cases += [make_case(contiguous, 32768, B) for B in (8, 4)]
    if tier == "grid":
        for model in ("qwen2-7b", "smollm2-135m"):
            cases += [make_case(kind, 32768, model=model) for kind in KINDS]
        for L, B in ((131072, 1), (8192, 1), (32768, 8), (32768, 4), (131072, 4)):
            cases += [make_case(kind, L, B, "f16") for kind in (full, gathered)]
        cases += [make_case(contiguous, 32768, dtype="f16")]
        cases += [make_case(gathered, 8192, B) for B in (8, 4)]
    return cases


def judge(error, tolerance):
    """None, or why an output with this error is refused. NaN is refused."""
    if not error <= tolerance:
        return f"wrong output: relative error {error:.2g}, allowed {tolerance:.0e}"
    return None


def reason_of(error):
    """One line of an exception, short enough for the table's reader."""
    text = " ".join(str(error).split()) or "no message"
    name = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
    return f"{name}{text}"[:300]


def quantile(sorted_values, q):
    """Linear between neighbours, as numpy's default."""
    at = q * (len(sorted_values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (at - low) * (sorted_values[high] - sorted_values[low])


def new_row(case, engine, rival, note=""):
    shape = {"Hq": case.Hq, "Hkv": case.Hkv, "D": case.D, "L": case.L, "K": keys_read(case)}
    shape.update({"B": case.B, "dtype": case.dtype, "model": case.model, "kind": case.kind})
    row = {"case": case_name(case), "shape": shape, "rival": rival, "note": note, "reason": None}
    row.update(dict.fromkeys(("us_median", "us_p10", "us_p90", "gbps", "of_read", "err")))
    row.update({"bytes": kv_bytes(case), "launches": 0, "versions": engine.versions})
    row.update({"card": engine.card, "torch": engine.torch_version, "state": None})
    row["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return row


def fill_times(row, samples, launches):
    """Samples are microseconds per launch, each the mean over one replay."""
    samples = sorted(samples)
    row["us_median"] = statistics.median(samples)
    row["us_p10"], row["us_p90"] = quantile(samples, 0.1), quantile(samples, 0.9)
    row["gbps"] = row["bytes"] / row["us_median"] / 1e3
    row["launches"] = launches


class Report:
    """Rows so far, written after each case: what is killed later loses nothing."""

    def __init__(self, path):
        self.path, self.rows = path, []

    def resume(self):
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self.rows = json.load(file)

    def add(self, rows):
        self.rows += rows
        if self.path:
            with open(self.path + ".part", "w", encoding="utf-8") as file:
                json.dump(self.rows, file, indent=1, allow_nan=False)
                file.write("\n")
            os.replace(self.path + ".part", self.path)
        print_rows(rows)


def print_rows(rows):
    """One case. The fastest rival carries a star; what did not run follows with its reason."""
    first = rows[0]
    shape = first["shape"]
    print(f"\n{first['case']}: Hq={shape['Hq']} Hkv={shape['Hkv']} D={shape['D']} "
          f"K={shape['K']}, {first['bytes'] / 1e6:.1f} MB")  # fmt: skip
    print(f"  {'rival':<30}{'us':>9}{'p10':>9}{'p90':>9}{'GB/s':>8}{'of read':>9}{'err':>9}"
          f"{'n':>7}")  # fmt: skip
    timed = [row for row in rows if row["us_median"] is not None]
    rivals = [row for row in timed if row["rival"] not in ("read", "copy")]
    best = min(rivals, key=lambda row: row["us_median"], default=None)
    for row in sorted(timed, key=lambda row: row["us_median"]):
        of_read = "" if row["of_read"] is None else f"{row['of_read']:.3f}"
        print(f"{'* ' if row is best else '  '}{row['rival']:<30}{row['us_median']:>9.2f}"
              f"{row['us_p10']:>9.2f}{row['us_p90']:>9.2f}{row['gbps']:>8.0f}{of_read:>9}"
              f"{row['err']:>9.1e}{row['launches']:>7}")  # fmt: skip
    for row in rows:
        if row["us_median"] is None:
            print(f"  {row['rival']:<25} - {row['reason']}"[:100])
    sys.stdout.flush()


def start_rivals(engine, bed, deadline):
    """(rows, runners by row index): each rival prepared, and its output checked."""
    rows, runners = [], {}
    for rival in engine.rivals(bed.case):
        row = new_row(bed.case, engine, rival.name, rival.note)
        rows.append(row)
        if time.monotonic() > deadline:
            row["reason"] = "time was up"
            continue
        try:
            runner = rival.start(bed)
            error = float(runner.error())
            row["err"] = error if math.isfinite(error) else None
            row["reason"] = judge(error, 0 if rival.exact else TOLERANCE[bed.case.dtype])
            row["note"] = runner.note or rival.note
            if row["reason"] is None:
                runners[len(rows) - 1] = runner
        except Exception as error:  # whatever a rival throws, the others go on
            row["reason"] = reason_of(error)
            engine.survive(error, bed.case, rival.name, rows)
    return rows, runners


def time_runners(engine, case, rows, runners):
    """Rounds that go over all runners in turn, so that drift of the clocks meets all alike."""
    samples = collections.defaultdict(list)
    launches = collections.Counter()
    for turn in range(ROUNDS):
        for index in sorted(runners, reverse=turn % 2 == 1):
            try:
                new = runners[index].sample(math.ceil(MIN_LAUNCHES / ROUNDS))
                samples[index] += new
                launches[index] += len(new) * runners[index].launches
            except Exception as error:
                rows[index]["reason"] = reason_of(error)
                engine.survive(error, case, rows[index]["rival"], rows)
    for index, values in samples.items():
        if rows[index]["reason"] is None:
            fill_times(rows[index], values, launches[index])


def run_case(engine, case, deadline):
    try:
        bed = engine.open(case)
    except Exception as error:
        engine.survive(error, case, "-", [])
        row = new_row(case, engine, "-")
        row["reason"] = reason_of(error)
        return [row]
    try:
        rows, runners = start_rivals(engine, bed, deadline)
        time_runners(engine, case, rows, runners)
        runners.clear()
    finally:
        engine.close(bed)
    read = next((row["us_median"] for row in rows if row["rival"] == "read"), None)
    state = engine.state()
    for row in rows:
        row["state"] = state
        if read and row["us_median"]:
            row["of_read"] = read / row["us_median"]
    return rows


def make_engine(options, report):
    """The engine, or the numpy stand-in with the reason why torch's did not start."""
    try:
        import rivals_torch

        return rivals_torch.Engine(options, report, dry=DRY), None
    except Exception as error:
        why = "torch is not installed" if isinstance(error, ModuleNotFoundError) else str(error)
    import rivals_numpy

    return rivals_numpy.Engine(why), why


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=("core", "batch", "grid"), default="core")
    parser.add_argument("--out", default="", metavar="FILE.json")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop cleanly after this")
    parser.add_argument("--jit", action="store_true", help="let FlashInfer compile what it lacks")
    parser.add_argument("--flex", action="store_true", help="compile and time flex_attention too")
    return parser.parse_args(argv)


def main(argv):
    options = parse_arguments(argv)
    deadline = time.monotonic() + options.seconds
    report = Report(options.out)
    engine, why = make_engine(options, report)
    engine.deadline = deadline
    done = set()
    if os.environ.get("RIVALS_RESUME") == "1" and options.out:
        report.resume()
        done = {row["case"] for row in report.rows}
    print(f"card: {engine.card}; torch: {engine.torch_version}; {engine.versions}")
    print(f"state: {engine.state()}")
    for case in cases_of(options.tier):
        if case_name(case) in done:
            continue
        if time.monotonic() > deadline:
            print("time is up: the remaining cases were not run")
            break
        report.add(run_case(engine, case, deadline))
    timed = sum(row["us_median"] is not None for row in report.rows)
    print(f"\n{len(report.rows)} rows, {timed} with a time")
    return 3 if why and not DRY else 0


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    sys.exit(main(sys.argv[1:]))
