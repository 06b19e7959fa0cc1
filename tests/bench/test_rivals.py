# SPDX-License-Identifier: Apache-2.0
"""Tests of kernels/bench/rivals.py that need numpy only: a dry run from end to end, and its rules.

Ends with `N passed, N failed`.
"""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(ROOT, "kernels", "bench")
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

import rivals  # noqa: E402
import rivals_names  # noqa: E402
import rivals_numpy  # noqa: E402

results = []


def check(what, holds, figures=""):
    results.append(bool(holds))
    print(("ok    " if holds else "FAIL  ") + what + (f": {figures}" if str(figures) else ""))


def run(folder, *options, dry="1"):
    """(status, stdout, rows) of the program."""
    path = os.path.join(folder, "out.json")
    argv = [sys.executable, "-B", os.path.join(BENCH, "rivals.py"), "--out", path, *options]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "DRY": dry})
    rows = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
        os.remove(path)
    return done.returncode, done.stdout + done.stderr, rows


KEYS = {"case", "shape", "rival", "us_median", "us_p10", "us_p90", "bytes", "gbps", "of_read",
        "err", "launches", "card", "torch", "date", "reason"}  # fmt: skip


def test_dry_run(folder):
    status, text, rows = run(folder)
    check("a dry run ends with 0", status == 0, text[-300:] if status else "")
    check("six cases", len({row["case"] for row in rows}) == 6)
    check("every row has every key", all(KEYS <= set(row) for row in rows))
    timed = [row for row in rows if row["us_median"] is not None]
    untimed = [row for row in rows if row["us_median"] is None]
    check("some have a time", len(timed) >= 6, len(timed))
    check("a time or a reason", all((row["reason"] is None) == (row in timed) for row in rows))
    check("quantiles in order",
          all(0 < r["us_p10"] <= r["us_median"] <= r["us_p90"] for r in timed))  # fmt: skip
    check("enough launches", all(row["launches"] >= rivals.MIN_LAUNCHES for row in timed))
    check("rate is bytes over time",
          all(math.isclose(r["gbps"] * r["us_median"] * 1e3, r["bytes"]) for r in timed))  # fmt: skip
    check("checked ones within tolerance", all(0 <= row["err"] <= 1e-4 for row in timed))
    listed = {row["rival"] for row in rows}
    names = set().union(*rivals_names.NAMES.values())
    check("every rival is listed", names <= listed, sorted(names - listed))
    check("the table shows each row", all(row["rival"] in text for row in rows))
    check("the table shows each reason", all(row["reason"][:40] in text for row in untimed))
    width = max(map(len, text.splitlines()))
    check("at most 100 columns", width <= 100, width)
    check("one star a case with a rival", text.count("\n* ") == 6, text.count("\n* "))


def test_time_limit(folder):
    status, text, rows = run(folder, "--seconds", "0")
    check("no time: ends cleanly and says so", status == 0 and "time is up" in text, text[-200:])
    check("no time: no rows", rows == [])


def test_without_gpu(folder):
    """Not a dry run: status 3 and a reason for all, unless this machine has a GPU."""
    try:
        import torch

        if torch.cuda.is_available():
            return
    except ImportError:
        pass
    fewer = ("--seconds", "1e-9")
    status, _, _ = run(folder, *fewer, dry="0")
    check("without a GPU the status is 3", status == 3, status)


def fake_case(error, sample=lambda n: [1.0] * n, start=None):
    """The row of one rival of a made-up engine, after a whole case."""
    case = rivals.cases_of("core")[0]
    runner = types.SimpleNamespace(error=lambda: error, sample=sample, launches=20, note="")
    rival = rivals_numpy.Rival("x", "", False, start or (lambda bed: runner))
    other = rivals_numpy.Rival("read", "", True,
        lambda bed: types.SimpleNamespace(error=lambda: 0.0, sample=lambda n: [2.0] * n,
                                          launches=20, note=""))  # fmt: skip
    engine = types.SimpleNamespace(
        rivals=lambda case: [rival, other], open=lambda case: types.SimpleNamespace(case=case),
        close=lambda bed: None, survive=lambda *a: None, state=lambda: None, card="c",
        torch_version=None, versions={})  # fmt: skip
    return rivals.run_case(engine, case, math.inf)


def throws(*_):
    raise ValueError("broken\nrival")


def test_rules():
    good, read = fake_case(1e-3)
    check("a right one is timed", good["us_median"] == 1.0 and good["of_read"] == 2.0)
    check("130 MB of the first case", good["bytes"] == 2 * 8 * 32768 * 128 * 2, good["bytes"])
    for error in (0.5, math.nan, math.inf):
        bad, read = fake_case(error)
        check(f"error {error}: a reason and no time",
              bad["us_median"] is None and "wrong output" in bad["reason"])  # fmt: skip
        check(f"error {error}: the other one is timed", read["us_median"] == 2.0)
    for where, rows in (("start", fake_case(0.0, start=throws)), ("time", fake_case(0.0, throws))):
        check(f"one that throws at its {where}",
              rows[0]["us_median"] is None and rows[0]["reason"] == "ValueError: broken rival"
              and rows[1]["us_median"] == 2.0, rows[0]["reason"])  # fmt: skip
    check("quantiles", [rivals.quantile([1, 2, 4], q) for q in (0, 0.25, 1)] == [1, 1.5, 4])
    for tier in ("core", "batch", "grid"):
        names = [rivals.case_name(case) for case in rivals.cases_of(tier)]
        check(f"tier {tier}: no case twice", len(names) == len(set(names)), len(names))


def test_kept(folder):
    """What was written before a kill is read again, and nothing else is."""
    path = os.path.join(folder, "kept.json")
    report = rivals.Report(path)
    report.resume()
    check("nothing to resume from", report.rows == [])
    with contextlib.redirect_stdout(io.StringIO()):
        report.add(fake_case(1e-3))
        report.add(fake_case(math.nan))
    again = rivals.Report(path)
    again.resume()
    check("all cases written so far", again.rows == report.rows and len(again.rows) == 4)


def main():
    with tempfile.TemporaryDirectory() as folder:
        test_dry_run(folder)
        test_time_limit(folder)
        test_without_gpu(folder)
        test_kept(folder)
    test_rules()
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
