#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two independent sources for one number, from a store with profiled runs: profile.py DB OUT.json

Kernel times of the timing pass beside the card's events of the bare passes (their median), and bytes read
from DRAM beside those the schedule reads and moves. A line a run; nothing is judged but that every
pass is whole. Exit 1 where one is not.
"""

import json
import sqlite3
import statistics
import sys

# Of counted steps: the prefill, step -1, is in no total.
KERNELS = """
select sum(k.end_ns - k.start_ns), count(*), sum(k.end_ns is null) from kernel k join scope s on s.id = k.scope_id
join string_ids n on n.id = s.name_id where k.pass_id = ? and s.step >= 0 and n.value is not 'between'"""
EVENTS = """
select sum(e.event_us) * 1000 from scope_exec e join scope s on s.id = e.scope_id
where e.pass_id = ? and s.kind = 'step' and s.step >= 0"""
COUNTED = """
select sum(v.value) from metric_value v join scope s on s.id = v.scope_id join metric_def m on m.id = v.metric_id
where v.pass_id = ? and m.name = ? and s.step >= 0"""
PREDICTED = "select sum(kv_read_bytes) + sum(selection_bytes) from layer_step where run_id = ? and step >= 0"


def ratio(a, b):
    return None if a is None or not b else a / b


def run_row(db, run):
    def one(sql, *arguments):
        return db.execute(sql, arguments).fetchone()[0]

    passes = db.execute("select id, mode, coalesce(metric_set, ''), state, launches_expected, kernels_recorded "
                        "from pass where run_id = ? order by ordinal", (run["id"],)).fetchall()  # fmt: skip
    bare = [one(EVENTS, p[0]) for p in passes if p[1] == "bare"]
    row = {
        "run": run["id"], "policy": run["policy"], "trace": run["trace_path"], "device": run["device"],
        "method": run["method"], "launch_mode": run["launch_mode"],
        "passes": [{"mode": p[1], "metric_set": p[2], "state": p[3]} for p in passes],
        "bare_step_ns": statistics.median(bare), "whole": all(p[3] == "complete" for p in passes),
    }  # fmt: skip
    tiles = json.loads(run["config_json"]).get("tile_layers", 1)
    row["predicted_read_bytes"] = tiles * one(PREDICTED, run["id"])
    for number, mode, metric_set, _, expected, recorded in passes:
        if mode == "timing":
            row["kernel_ns"], row["kernels"], row["kernels_without_time"] = db.execute(KERNELS, (number,)).fetchone()
            row["timing_step_ns"] = one(EVENTS, number)
            row["launches_expected"], row["kernels_recorded"] = expected, recorded
        elif metric_set.endswith("core"):
            for name in ("dram_read_bytes", "dram_write_bytes"):
                row[name] = one(COUNTED, number, name)
        elif metric_set == "emu-count":
            row["counted_read_bytes"] = one(COUNTED, number, "global_load_bytes")
    return row


def main(path, out):
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
    db.row_factory = sqlite3.Row
    runs = db.execute("select r.*, p.canonical policy from run r join policy p on p.id = r.policy_id order by r.id")
    rows = [run_row(db, run) for run in runs.fetchall()]
    with open(out, "w") as file:
        json.dump(rows, file, indent=1)
    if not rows:
        print("no runs in", path)
    for row in rows:
        numbers = [
            ("kernels / bare", ratio(row.get("kernel_ns"), row["bare_step_ns"])),
            ("timing / bare", ratio(row.get("timing_step_ns"), row["bare_step_ns"])),
            ("DRAM read / counted", ratio(row.get("dram_read_bytes"), row.get("counted_read_bytes"))),
            ("DRAM read / KV and selection", ratio(row.get("dram_read_bytes"), row["predicted_read_bytes"])),
        ]
        print("%s, %s, %s, %s" % (row["trace"], row["policy"].split(",sim")[0], row["method"], row["launch_mode"]))
        print("  " + ", ".join("%s %s" % (n, "-" if v is None else "%.3f" % v) for n, v in numbers))
        if not row["whole"]:
            print("  NOT WHOLE: " + ", ".join("%(mode)s %(metric_set)s %(state)s" % p for p in row["passes"]))
    whole = sum(row["whole"] for row in rows)
    print("%d passed, %d failed, 0 skipped" % (whole, len(rows) - whole))
    return 0 if rows and whole == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
