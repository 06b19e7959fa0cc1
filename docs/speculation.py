#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `rattn-sim speculate` over texts and writes the tables of docs/speculation.md.

speculation.py MODEL_DIR FOLDER MODE:P:GAMMAS:WHAT:TEXT... [--document FILE] [--tool PROGRAM]
[--steps N] [--threads N] [--command COMMAND] [--keep]

MODE is greedy or text. WHAT is drafts: recycled, streaming and triforce at K = P/8 with each of
GAMMAS; or below: triforce with guesses of streaming at K/4. FOLDER gets each run's JSON; with --keep,
what is there already is not made again.
"""

import argparse
import json
import os
import re
import subprocess
import sys

BEGIN, END = "<!-- speculation -->\n", "\n<!-- end of speculation -->"
HEAD = "| P | drafts | gamma | accepted | tokens a verification | passes a token | KV | pays from | output |"
MODES = {"greedy": "goes on from its own output", "text": "goes on from the text"}


def options_of(what, P, gammas):
    K = P // 8
    options = ["--gamma", gammas]
    if what == "drafts":
        options += ["-p", "recycled:k=%d,stride=64" % K, "-p", "streaming:k=%d" % K]
    options += ["-p", "triforce:k=%d,gamma=64" % K]
    return options + (["--below", "streaming:k=%d" % (K // 4)] if what == "below" else [])


def run(given, mode, text, P, name, options):
    base = os.path.basename(text).split(".")[0]
    path = os.path.join(given.folder, "%s-%d-%s-%s.json" % (base, P, mode, name))
    argv = [given.tool, "speculate", given.model, "--tokens", text, "--mode", mode, "--prompt-len", str(P)]
    argv += ["-n", str(given.steps), *options]
    if not (given.keep and os.path.exists(path)):
        print(" ".join(argv), file=sys.stderr, flush=True)
        with open(path + ".new", "w", encoding="utf-8") as file:
            subprocess.run(argv + ["-j", str(given.threads), "-q", "--format", "json"], stdout=file, check=True)
        os.rename(path + ".new", path)
    with open(path, encoding="utf-8") as file:
        return base, json.load(file)


def short(one):
    """The spelling without what is default: as it was given."""
    name, _, keys = one["policy"].partition(":")
    kept = "k|stride" if name == "recycled" else "k"
    words = [word for word in keys.split(",") if re.fullmatch("(%s)=.*" % kept, word)]
    below = " over streaming:" + re.search("k=[0-9]+", one["below"])[0] if one["below"] else ""
    return "`%s:%s`%s" % (name, ",".join(words), below)


def row(P, one):
    pays = "never" if one["pays_from"] is None else "%d" % one["pays_from"]
    output = "same" if one["same"] else "%d near ties, %d wrong" % (one["near_ties"], one["wrong"])
    share, rest = "| %.1f %% " % (100 * one["acceptance"]), (one["tokens_per_verification"], one["passes_per_token"])
    cells = (P, short(one), one["gamma"], share, *rest, 100 * one["kv_share"], pays, output)
    return "| %d | %s | %d %s| %.2f | %.2f | %.1f %% | %s | %s |" % cells


def table(given, mode, text, runs):
    rows, about = [], {}
    for P, gammas, what in runs:
        base, done = run(given, mode, text, P, what, options_of(what, P, gammas))
        rows += [row(P, one) for one in done["runs"]]
        different, KV = len(set(done["tokens"])), done["kv_bytes_per_token"] / 2**20
        about[P] = "at P = %d %.2f MiB of KV a token, %d different tokens" % (P, KV, different)
    weights = done["weight_bytes"] / 2**20
    return [
        "### %s: each round %s" % (base, MODES[mode]),
        "",
        "%s, N = %d, %s. Full attention alone: %s. Weights: %.1f MiB a pass."
        % (done["model"], done["steps"], done["dtype"], "; ".join(about.values()), weights),
        "",
        HEAD,
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def tables(given):
    asked = {}
    for word in given.runs:
        mode, P, gammas, what, text = word.split(":", 4)
        asked.setdefault((mode, text), []).append((int(P), gammas, what))
    return [line for (mode, text), runs in asked.items() for line in table(given, mode, text, runs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("runs", nargs="+", metavar="MODE:P:GAMMAS:WHAT:TEXT")
    parser.add_argument("--document", help="page whose tables are rewritten, between its markers")
    parser.add_argument("--tool", default="build/rattn-sim")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--command", default="make speculation", help="what the document says made it")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    os.makedirs(given.folder, exist_ok=True)
    made = "Made by `%s`.\n\n" % given.command
    made += "\n".join(tables(given))
    print(made)
    if given.document:
        with open(given.document, encoding="utf-8") as file:
            head, rest = file.read().split(BEGIN)
        with open(given.document, "w", encoding="utf-8") as file:
            file.write(head + BEGIN + "\n" + made.rstrip("\n") + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
