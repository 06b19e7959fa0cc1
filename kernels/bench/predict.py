#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What steps should take on an H100, from what their kernels asked memory for.

    predict.py STORE

Reads the counts of replays by build/emu/rattn-sim (--backend cuda --db STORE) and prints a table in
Markdown: of each schedule its full steps and the others, means. A prediction is an interval. No step
is faster than its bytes at the card's bandwidth, nor than a microsecond a launch; none should be slower
than its bytes at 60 % of that bandwidth and then SLOW_US for each launch.
"""
import sqlite3
import sys

BYTES_PER_US = 3.35e6  # H100 SXM, NVIDIA's data sheet
SHARE = 0.6  # of it: what launches of 30 MB are to reach
FAST_US = 1.0
SLOW_US = 6.0  # decode attention to about a thousand tokens: 5.6 us on an H200 (TileOPs, PR 2115)

STEPS = """
SELECT p.canonical, s.step,
  SUM(CASE m.name WHEN 'global_load_bytes' THEN v.value WHEN 'global_store_bytes' THEN v.value END),
  SUM(CASE m.name WHEN 'launches' THEN v.value END),
  (SELECT MIN(l.is_full) FROM layer_step l WHERE l.run_id = r.id AND l.step = s.step)
FROM run r JOIN policy p ON p.id = r.policy_id
  JOIN scope s ON s.run_id = r.id AND s.kind = 'step' AND s.step >= 0
  JOIN metric_value v ON v.scope_id = s.id
  JOIN metric_def m ON m.id = v.metric_id
  JOIN pass a ON a.id = v.pass_id
WHERE a.metric_set = 'emu-count'
GROUP BY r.id, s.id ORDER BY r.id, s.step
"""


def predict(n_bytes, launches):
    least = max(n_bytes / BYTES_PER_US, launches * FAST_US)
    return least, n_bytes / (SHARE * BYTES_PER_US) + launches * SLOW_US


def short(canonical, plain):
    """As few of the options as the schedules need to be told apart."""
    name, _, options = canonical.partition(":")
    kept = [o for o in options.split(",") if o.split("=")[0] in ("k", "stride") and "none" not in o]
    text = name + (":" + ",".join(kept) if kept else "")
    return text if plain else canonical


def main():
    if len(sys.argv) != 2:
        sys.exit("predict.py: expected STORE, got %d arguments" % (len(sys.argv) - 1))
    rows = sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True).execute(STEPS).fetchall()
    if not rows:
        sys.exit("%s: expected steps counted by build/emu/rattn-sim, got none" % sys.argv[1])
    names = sorted({row[0] for row in rows})
    plain = len({short(name, True) for name in names}) == len(names)
    classes = {}
    for canonical, _, n_bytes, launches, is_full in rows:
        classes.setdefault((canonical, is_full), []).append((n_bytes, launches))
    print("| schedule | steps | KB loaded and stored | launches | predicted on an H100, us |")
    print("|---|---|---|---|---|")
    for (canonical, is_full), steps in classes.items():
        n_bytes = sum(s[0] for s in steps) / len(steps)
        launches = sum(s[1] for s in steps) / len(steps)
        least, most = predict(n_bytes, launches)
        print("| %s | %d %s | %.0f | %.0f | %.0f to %.0f |" % (
            short(canonical, plain), len(steps), "full" if is_full else "others",
            n_bytes / 1e3, launches, least, most))


if __name__ == "__main__":
    main()
