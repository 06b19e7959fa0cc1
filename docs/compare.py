# SPDX-License-Identifier: Apache-2.0
"""All policies side by side on one recording: at equal K, at equal bytes, options and ablations, and
with keys and values in fewer bits.

Each set is one `rattn-sim replay`, phase 1 only (the null backend), so quality and bytes are exact
and nothing is timed. What has no K, or a byte count to reach, is tuned here: integers between which
bytes grow, by interpolation, many schedules in one replay. Out come DIR/compare.db, .txt, .csv and
.json, a figure for each set, and the tables of a document, between its markers.

A schedule more is a line in SCHEDULES. usage: compare.py TRACE -o DIR [--tool PROGRAM]
[--document FILE] [--steps a..b] [--jobs N]
"""

import argparse
import csv
import datetime
import json
import math
import os
import re
import subprocess
import sys

# {k}: the budget, a share of the prompt or a number of positions; {x}: a parameter to tune, from
# `least` on, where there is no k; {never}: a stride beyond the last step. With neither {k} nor {x} a
# schedule is as it stands, and not among those of equal bytes.
SCHEDULES = [
    {"spelling": "full"},
    {"spelling": "oracle:k={k}"},
    {"spelling": "recycled:k={k},stride=10"},
    {"spelling": "recycled:k={k},stride=5,sim=0.85"},
    {"spelling": "streaming:k={k}", "least": 5},
    {"spelling": "streaming:k={k},stride=10", "least": 5},
    {"spelling": "h2o:k={k}"},
    {"spelling": "tova:k={k}"},
    {"spelling": "snapkv:k={k}", "least": 33},
    {"spelling": "snapkv:k={k},window=1,evict=fifo", "least": 2},
    {"spelling": "pyramidkv:k={k}", "least": 33},
    {"spelling": "adakv:k={k}", "least": 33},
    {"spelling": "quest:k={k}", "least": 16},
    {"spelling": "tidal:k={k}"},
    {"spelling": "triforce:k={k},gamma=9", "least": 8},
    {"spelling": "unlimiformer:k={k}"},
    {"spelling": "longformer:window={x}"},
    {"spelling": "longformer:window={x},globals=16"},
    {"spelling": "sparse-transformer:stride={x}", "least": 64},  # from there on bytes grow with it
    {"spelling": "sparse-transformer:pattern=fixed,stride=128,c={x}", "most": 128},
]  # fmt: skip

ABLATIONS = [
    "full",
    "recycled:k={k},stride=10",
    "recycled:k={k},stride=10,attend=after",
    "recycled:k={k},stride={never}",
    "snapkv:k={k},window=1,evict=fifo",
    "snapkv:k={k},window=32,evict=fifo",
    "snapkv:k={k},window=1",
    "recycled:k={k},stride=2",
    "recycled:k={k},stride=5",
    "recycled:k={k},stride=20",
    "recycled:k={k},stride=50",
    "recycled:k={k},stride=10,agg=mean",
    "recycled:k={k},stride=10,agg=first",
    "recycled:k={k},stride=10,agg=first,pool=1",
    "recycled:k={k},stride=10,pool=1",
    "recycled:k={k},stride=10,agg=mean,pool=1",
    "recycled:k={k},stride=10,evict=raw",
    "tova:k={k},heads=layer",
    "h2o:k={k},recent=0.1",
]

TRANSFORMED = [
    "full",
    "full+int8",
    "full+fp8",
    "full+int4",
    "full+kvquant:bits=4",
    "full+kvquant:bits=4,outliers=0.04",
    "full+kvquant:bits=3",
    "full+kvquant:bits=2",
    "recycled:k={k},stride=10",
    "recycled:k={k},stride=10+int8",
    "recycled:k={k},stride=10+kvquant:bits=4",
    "recycled:k={k},stride=10+kvquant:bits=2",
]

SHARES = ["1/8", "1/16"]
REFERENCE = "recycled:k={k},stride=10"  # whose bytes all others are given, at SHARES[0]
WITHIN = 0.02
ROUNDS = 12
# Schedules that the paper ranks, with their place in its order: arXiv:2411.05787v2, table 1, as both
# of its models on both texts have it. TOVA it does not rank.
RANKED = {"recycled:k={k},stride=10": 1, "h2o:k={k}": 2, "streaming:k={k}": 3, "snapkv:k={k}": 3,
          "snapkv:k={k},window=1,evict=fifo": 3}  # fmt: skip
BESIDE = [*RANKED, "tova:k={k}"]

COLUMNS = [  # name, heading, decimals
    ("schedule", "schedule", None),
    ("keys", "keys", 0),
    ("mass_mean", "mass", 4),
    ("mass_p05", "mass p05", 4),
    ("mass_sparse", "mass sparse", 4),
    ("error_mean", "error", 4),
    ("error_p95", "error p95", 4),
    ("kv_mb", "KV MB", 3),
    ("selection_mb", "sel. MB", 3),
    ("percent_of_full", "% full", 1),
    ("refresh_overlap", "overlap", 4),
    ("effective_stride", "eff. stride", 2),
]


def say(text):
    print("compare: " + text, file=sys.stderr)


def fill(spelling, **values):
    for name, value in values.items():
        spelling = spelling.replace("{%s}" % name, str(value))
    return spelling


class Tool:
    """The program on one trace. What it refuses ends this, in its own words."""

    def __init__(self, program, trace, options):
        self.program, self.trace, self.options = program, trace, options
        info = json.loads(self.call("info", trace, "--format", "json"))
        one = info["sequences"][0]
        self.info, self.P, self.N = info, one["P"], one["N"]
        self.version = self.call("--version").split("\n")[0].strip()

    def call(self, *argv):
        done = subprocess.run([self.program, *argv], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit("compare: %s ended with status %d" % (" ".join(argv)[:200], done.returncode))
        return done.stdout

    def replay(self, spellings, *options):
        argv = ["replay", self.trace, "--backend", "null", "-q", "--format", "json"]
        for spelling in spellings:
            argv += ["-p", spelling]
        results = json.loads(self.call(*argv, *self.options, *options))
        results = results if isinstance(results, list) else [results]
        return [r for r in results if r["sequence"] == 0]


def per_step(result):
    names = ("kv_read_bytes", "kv_write_bytes", "selection_bytes")
    return sum(result[name] for name in names) / result["steps"]


def keys_per_head(result, info):
    rows = result["steps"] * len(result["layers"]) * info["model"]["Hkv"]
    return result["keys_read"] / rows


class Search:
    """An integer x for which a growing measure comes near a target."""

    def __init__(self, least, most, guess, target, seen):
        self.least, self.most, self.target = least, most, target
        self.seen = dict(seen)
        self.x = min(max(guess, least), most)
        self.is_open = not self.seen or self.turn()

    def learn(self, value):
        """The measure at x."""
        self.seen[self.x] = value
        self.is_open = self.turn()

    def turn(self):
        """Whether there is another x to try, which is then x."""
        if abs(self.seen[self.best()[0]] / self.target - 1) <= WITHIN / 4:
            return False
        below = [x for x, v in self.seen.items() if v < self.target]
        above = [x for x, v in self.seen.items() if v >= self.target]
        low = max(below, default=self.least - 1)
        high = min((x for x in above if x > low), default=self.most + 1)
        if high - low <= 1 or len(self.seen) == ROUNDS:
            return False
        if low in self.seen and high in self.seen:  # halves in turn: pages and chunks make steps
            rise = (self.target - self.seen[low]) / (self.seen[high] - self.seen[low])
            guess = low + (rise if len(self.seen) % 2 == 0 else 0.5) * (high - low)
        else:
            guess = self.extrapolate()
        self.x = min(max(round(guess), low + 1), high - 1)
        return True

    def extrapolate(self):
        """By the line through the two that are nearest to the target, or else in proportion."""
        near = sorted(self.seen, key=lambda x: abs(self.seen[x] - self.target))[:2]
        x, value = near[0], self.seen[near[0]]
        if len(near) == 2 and self.seen[near[1]] != value:
            return x + (self.target - value) * (near[1] - x) / (self.seen[near[1]] - value)
        return x * self.target / value

    def best(self):
        """x and how far it is off, as a share of the target."""
        x = min(self.seen, key=lambda x: (abs(self.seen[x] - self.target), x))
        return x, self.seen[x] / self.target - 1


def tune(tool, rows, measure, target, guess, known):
    """{spelling: (x, share off)} of schedules; all that still search share a replay. `known`: what is
    measured already, {spelling: {x: value}}."""
    searches = {}
    for row in rows:
        most = min(row.get("most", tool.P + tool.N), tool.P + tool.N)
        seen = known.get(row["spelling"], {})
        searches[row["spelling"]] = Search(row.get("least", 1), most, guess, target, seen)
    while True:
        busy = [spelling for spelling in searches if searches[spelling].is_open]
        if not busy:
            return {spelling: search.best() for spelling, search in searches.items()}
        say("%d schedules to tune" % len(busy))
        spelled = [fill(spelling, k=searches[spelling].x, x=searches[spelling].x) for spelling in busy]
        for spelling, result in zip(busy, tool.replay(spelled)):
            searches[spelling].learn(measure(result))


def flatten(tool, name, spelling, result, full, off):
    steps = result["steps"]
    sparse = result["on_recycled"]
    moved = per_step(result)
    return {
        "set": name,
        "schedule": spelling,
        "policy": result["policy"],
        "k_resolved": result["k_resolved"],
        "keys": keys_per_head(result, tool.info),
        "mass_mean": result["mass_recovered"]["mean"],
        "mass_p05": result["mass_recovered"]["p05"],
        "mass_sparse": sparse["mass_recovered"]["mean"],
        "error_mean": result["output_rel_err"]["mean"],
        "error_p95": result["output_rel_err"]["p95"],
        "error_sparse": sparse["output_rel_err"]["mean"],
        "recall": result["topk_recall"]["mean"],
        "kv_read_mb": result["kv_read_bytes"] / steps / 1e6,
        "kv_write_mb": result["kv_write_bytes"] / steps / 1e6,
        "kv_mb": (result["kv_read_bytes"] + result["kv_write_bytes"]) / steps / 1e6,
        "selection_mb": result["selection_bytes"] / steps / 1e6,
        "moved_mb": moved / 1e6,
        "percent_of_full": 100 * moved / per_step(full),
        "prefill_selection_mb": result["prefill"]["selection_bytes"] / 1e6,
        "refresh_overlap": result["refresh_overlap"]["mean"],
        "effective_stride": result["effective_stride"],
        "off_target": off,
        "fingerprint": result["fingerprint"],
    }


class Comparison:
    """Sets of rows, each of one replay into the store; `runs` are its runs."""

    def __init__(self, tool, folder):
        self.tool, self.folder, self.rows, self.runs = tool, folder, [], {}
        self.known = {}  # bytes per step of each of SCHEDULES: {spelling: {x: bytes}}
        self.db = os.path.join(folder, "compare.db")

    def add(self, name, schedules):
        """schedules: [(spelling, share off its target or None)]."""
        say("%s: %d schedules" % (name, len(schedules)))
        known = self.run_ids()
        results = self.tool.replay([spelling for spelling, _ in schedules], "--db", self.db)
        full = next(r for r in results if r["policy"] == "full")
        self.runs[name] = [i for i in self.run_ids() if i not in known]
        for (spelling, off), result in zip(schedules, results):
            self.rows.append(flatten(self.tool, name, spelling, result, full, off))

    def run_ids(self):
        if not os.path.exists(self.db):
            return []
        return [r["id"] for r in json.loads(self.tool.call("list", "runs", self.db, "--format", "json"))]

    def of(self, name):
        return [row for row in self.rows if row["set"] == name]


def equal_k(comparison, share):
    tool = comparison.tool
    k = max(1, math.floor(tool.P * int(share.split("/")[0]) / int(share.split("/")[1])))
    free = [row for row in SCHEDULES if "{x}" in row["spelling"]]
    tuned = tune(tool, free, lambda r: keys_per_head(r, tool.info), k + 1, k + 1, {})
    rows = []
    for row in SCHEDULES:
        x, off = tuned.get(row["spelling"], (None, None))
        spelling = fill(row["spelling"], k=share, x=x)
        rows.append((spelling, off))
    comparison.add("k=" + share, rows)
    for row, result in zip(SCHEDULES, comparison.of("k=" + share)):
        x = tuned.get(row["spelling"], (k,))[0]
        comparison.known.setdefault(row["spelling"], {})[x] = result["moved_mb"] * 1e6


def equal_bytes(comparison):
    tool = comparison.tool
    reference = fill(REFERENCE, k=SHARES[0])
    row = next(r for r in comparison.of("k=" + SHARES[0]) if r["schedule"] == reference)
    target = row["moved_mb"] * 1e6
    free = [r for r in SCHEDULES if "{" in r["spelling"] and r["spelling"] != REFERENCE]
    tuned = tune(tool, free, per_step, target, row["k_resolved"], comparison.known)
    rows = [("full", None), (reference, 0.0)]
    for free_row in free:
        x, off = tuned[free_row["spelling"]]
        spelling = fill(free_row["spelling"], k=x, x=x)
        rows.append((spelling, off))
    comparison.add("equal bytes", rows)


def as_they_stand(comparison, name, spellings):
    never = comparison.tool.N + 1
    rows = [fill(spelling, k=SHARES[0], never=never) for spelling in spellings]
    comparison.add(name, [(spelling, None) for spelling in rows])


# --- words ---------------------------------------------------------------------------------------


def cell(row, name, decimals):
    value = row[name]
    if value is None:
        return "-"
    if decimals is None:
        far = row["off_target"] is not None and abs(row["off_target"]) > WITHIN
        return value + (" (%+.0f %%)" % (100 * row["off_target"]) if far else "")
    return "%.*f" % (decimals, value)


def text_table(rows):
    cells = [[heading for _, heading, _ in COLUMNS]]
    cells += [[cell(row, name, decimals) for name, _, decimals in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = []
    for line in cells:
        first = line[0].ljust(widths[0])
        rest = [text.rjust(width) for text, width in zip(line[1:], widths[1:])]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def markdown_table(rows):
    lines = ["| " + " | ".join(heading for _, heading, _ in COLUMNS) + " |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) - 1))
    for row in rows:
        texts = [cell(row, name, decimals) for name, _, decimals in COLUMNS]
        spelled, _, far = texts[0].partition(" ")
        texts[0] = "`%s`" % spelled + (" " + far if far else "")
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


TITLES = {
    "k=1/8": "Equal K: an eighth of the prompt",
    "k=1/16": "Equal K: a sixteenth of the prompt",
    "equal bytes": "Equal bytes: KV read and written and selection per step, as `%s`"
    % fill(REFERENCE, k=SHARES[0]),
    "ablations": "Options and ablations, at an eighth of the prompt",
    "transformations": "Keys and values in fewer bits; bytes with scales, levels and outliers",
}


def verdict(comparison, share):
    """The order of error at one K, and whether it is the paper's; errors within 1 % are equal."""
    rows = {row["schedule"]: row["error_mean"] for row in comparison.of("k=" + share)}
    error = {spelling: rows[fill(spelling, k=share)] for spelling in BESIDE}
    best = sorted(error, key=lambda s: (error[s], s))
    broken = [
        "`%s` is ahead of `%s`" % (fill(b, k=share), fill(a, k=share))
        for a in RANKED for b in RANKED if RANKED[a] < RANKED[b] and error[a] > 1.01 * error[b]
    ]  # fmt: skip
    return (
        "K = P/%s. Mean error, best first: %s. The paper's order (recycled, then h2o, then streaming and"
        " snapkv) %s."
        % (share.split("/")[1], ", ".join("`%s` %.4f" % (fill(s, k=share), error[s]) for s in best),
           "does not hold here: " + "; ".join(broken) if broken else "holds here")
    )  # fmt: skip


def origin(tool, trace):
    info = tool.info
    return (
        "Trace `%s` (content SHA-256 `%s`): %s, %d of %d layers, P = %d, N = %d; %s; %s."
        % (os.path.basename(trace), info["content_sha256"], info["model"]["id"], len(info["layers"]),
           info["model"]["n_layers"], tool.P, tool.N, tool.version, datetime.date.today().isoformat())
    )  # fmt: skip


def document_section(comparison, trace, command):
    parts = ["Made by `%s`. %s" % (command, origin(comparison.tool, trace))]
    parts += [verdict(comparison, share) for share in SHARES]
    for name in comparison.runs:
        parts += ["**%s**" % TITLES[name], markdown_table(comparison.of(name))]
    return "\n\n".join(parts)


def undated(text):
    return re.sub(r"\d{4}-\d\d-\d\d", "", text)


def update_document(path, name, text):
    """Between the markers of this trace; a document without them is left alone."""
    begin, end = "<!-- compare: %s -->\n" % name, "\n<!-- end of compare -->"
    with open(path, encoding="utf-8") as file:
        old = file.read()
    at = old.find(begin)
    if at < 0:
        say("%s: no tables of trace %s, left as it is" % (path, name))
        return
    at += len(begin)
    stop = old.index(end, at)
    if undated(old[at:stop]) == undated(text):
        say("%s: the same figures, left as it is" % path)
        return
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(old[:at] + text + old[stop:])
    os.replace(path + ".new", path)
    say("%s: tables of trace %s written" % (path, name))


def draw(comparison, output):
    for name, runs in comparison.runs.items():
        if name in ("ablations", "transformations"):
            continue
        folder = os.path.join(comparison.folder, name.replace("k=1/", "k-").replace(" ", "-"))
        chosen = [word for run in runs for word in ("--run", str(run))]
        argv = ["plot", comparison.db, "-o", folder, "--figure", "compare", "--output", output, "-q"]
        comparison.tool.call(*argv, *chosen)
        print("figure: %s/compare.%s" % (folder, output))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("trace")
    parser.add_argument("-o", "--folder", required=True)
    parser.add_argument("--tool", default="build/rattn-sim")
    parser.add_argument("--document", help="whose tables of this trace are rewritten")
    parser.add_argument("--command", default="make compare", help="what the document says made it")
    parser.add_argument("--steps", help="as of replay")
    parser.add_argument("--jobs", default="0", help="threads")
    parser.add_argument("--figures", default="svg", help="svg, png, pdf, or none")
    given = parser.parse_args()

    options = ["-j", given.jobs] + (["--steps", given.steps] if given.steps else [])
    tool = Tool(given.tool, given.trace, options)
    os.makedirs(given.folder, exist_ok=True)
    for name in os.listdir(given.folder):
        if name.startswith("compare."):
            os.remove(os.path.join(given.folder, name))
    comparison = Comparison(tool, given.folder)
    for share in SHARES:
        equal_k(comparison, share)
    equal_bytes(comparison)
    as_they_stand(comparison, "ablations", ABLATIONS)
    as_they_stand(comparison, "transformations", TRANSFORMED)

    texts = [origin(tool, given.trace), *[verdict(comparison, share) for share in SHARES]]
    for name in comparison.runs:
        texts += [TITLES[name], text_table(comparison.of(name))]
    texts.append("(n %): as near as the parameter comes to its target, when not within 2 %. -: no value.")
    text = "\n\n".join(texts).replace("`", "") + "\n"
    base = os.path.join(given.folder, "compare.")
    with open(base + "txt", "w", encoding="utf-8") as file:
        file.write(text)
    with open(base + "csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(comparison.rows[0]))
        writer.writeheader()
        writer.writerows(comparison.rows)
    facts = {"trace": given.trace, "trace_sha256": tool.info["content_sha256"], "P": tool.P, "N": tool.N,
             "version": tool.version, "steps": given.steps}  # fmt: skip
    with open(base + "json", "w", encoding="utf-8") as file:
        json.dump({**facts, "rows": comparison.rows}, file, indent=1)
    sys.stdout.write(text)
    if given.figures != "none":
        draw(comparison, given.figures)
    if given.document:
        name = os.path.splitext(os.path.basename(given.trace))[0]
        update_document(given.document, name, document_section(comparison, given.trace, given.command))


if __name__ == "__main__":
    main()
