# SPDX-License-Identifier: Apache-2.0
"""From a model and texts to a page that says which schedule to take: record each text under full
attention, verify the recordings, replay them under many schedules, choose for three budgets of bytes,
let the model decode under the choices and the baselines, and report. Every stage that is there already
from the same command is kept, so a study that was stopped goes on. What it will take is said first.
usage: study.py MODEL TEXT... -o FOLDER [--prompt L] [--steps N] [--layers LIST]
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time

from compare import per_step
from fidelity import fits, keep, kept

BUDGETS = [0.15, 0.25, 0.40]  # KV and selection bytes per step, as a share of full's
GRID = ["recycled:k=1/%d,stride=%d" % (k, s) for k in (4, 8, 16) for s in (8, 16, 32, 64)]
GRID += ["recycled:k=1/%d,stride=5,sim=%g" % (k, s) for k in (4, 8, 16) for s in (0.8, 0.9)]
GRID += ["%s:k=1/%d" % (name, k) for k in (4, 8, 16) for name in ("streaming", "h2o", "tova", "snapkv", "quest")]
BASELINES = ["streaming:k=1/8", "snapkv:k=1/8"]
TIMED = 16  # steps of the trial that the estimate rests on


def say(text):
    print("study: " + text, file=sys.stderr)


def call(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("study: %s ended with status %d" % (" ".join(argv)[:300], done.returncode))
    return done.stdout


def stage(path, argv, word):
    """Run once; the command's output lies in `path`, unless it made that itself."""
    if kept(path, argv):
        say("%s: kept" % word)
        return
    say(word)
    out = call(argv)
    if not os.path.exists(path) or os.path.getmtime(path) < stage.began:
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(out)
        os.replace(path + ".new", path)
    keep(path, argv)


stage.began = time.time()


def count_tokens(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return header["tokens"]["shape"][0]


def to_ids(given, text):
    """The ids file of a text; one that is an ids file already is its own."""
    if text.endswith(".safetensors"):
        return text
    ids = os.path.join(given.folder, os.path.basename(text) + ".ids.safetensors")
    argv = [given.python, os.path.join(TOOLS, "tokenize.py"), "encode", given.model, text, "-o", ids]
    stage(ids, argv, "%s: token ids" % os.path.basename(text))
    return ids


TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "traces", "tools")


def shape(given):
    with open(os.path.join(given.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config = config.get("text_config", config)
    heads = config["num_attention_heads"]
    return {
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv": config.get("num_key_value_heads") or heads,
        "dim": config.get("head_dim") or config["hidden_size"] // heads,
    }


def estimate(given, texts):
    """Disk, memory and minutes, from sizes and a short trial on this machine."""
    s = shape(given)
    rows, e = given.prompt + given.steps, 4 if given.dtype == "f32" else 2
    recorded = len(given.layers.split(",")) if given.layers and "-" not in given.layers else s["layers"]
    row = s["kv"] * s["dim"] * e
    trace = recorded * (2 * rows * row + (64 + given.steps) * s["heads"] * s["dim"] * e + 4 * s["heads"] * given.prompt)
    weights = sum(os.path.getsize(os.path.join(given.model, f)) for f in os.listdir(given.model)
                  if f.endswith(".safetensors"))  # fmt: skip
    n_closed = len(BUDGETS) + len(BASELINES) + 1
    memory = 2 * weights + min(n_closed * 3 * s["layers"] * rows * row, 4 << 30)
    trial = os.path.join(given.folder, "trial.safetensors")
    size = min(256, given.prompt)
    argv = [given.tool, "record", given.model, "--tokens", texts[0], "--prompt-len", str(size), "-o", trial, "-q"]
    begin = time.time()
    call([*argv, "-n", "1"])
    middle = time.time()
    call([*argv, "-n", str(1 + TIMED)])
    token = max((time.time() - middle) - (middle - begin), 0.001) / TIMED
    os.remove(trial)
    prompt = (middle - begin) * given.prompt / size
    per_text = prompt * 2 + token * given.steps * (1 + n_closed) + len(GRID) * given.steps * recorded * rows * 8e-8
    print("texts      %d of %d + %d tokens" % (len(texts), given.prompt, given.steps))
    print("disk       %.2f GB of recordings, %.0f GB free" %
          (trace * len(texts) / 1e9, shutil.disk_usage(given.folder).free / 1e9))  # fmt: skip
    print("memory     about %.1f GB" % (memory / 1e9))
    print("time       about %.0f minutes here, within a factor of three" % max(1, per_text * len(texts) / 60))
    sys.stdout.flush()
    if trace * len(texts) > shutil.disk_usage(given.folder).free:
        sys.exit("study: %s: expected %.1f GB free for the recordings" % (given.folder, trace * len(texts) / 1e9))


def choose(replays):
    """{spelling: words}: for each budget the schedule of the grid with the smallest mean output error."""
    n = len(replays)
    full = sum(per_step(r["full"]) for r in replays) / n
    share = {s: sum(per_step(r[s]) for r in replays) / n / full for s in GRID}
    error = {s: sum(r[s]["output_rel_err"]["mean"] for r in replays) / n for s in GRID}
    chosen = {}
    for budget in BUDGETS:
        inside = [s for s in GRID if share[s] <= budget]
        if not inside:
            cheapest = min(GRID, key=lambda s: share[s])
            print("budget %2.0f %%: nothing fits; the cheapest is %s with %.1f %%" %
                  (100 * budget, cheapest, 100 * share[cheapest]))  # fmt: skip
            continue
        best = min(inside, key=lambda s: (error[s], share[s]))
        chosen[best] = "%.1f %% of full's bytes, offline error %.4f" % (100 * share[best], error[best])
        print("budget %2.0f %%: %s: %s" % (100 * budget, best, chosen[best]))
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", help="UTF-8 texts, or files of token ids (*.safetensors)")
    parser.add_argument("-o", "--folder", required=True)
    parser.add_argument("--tool", default="build/rattn-sim")
    parser.add_argument("--python", default="build/venv/bin/python", help="one with numpy and tokenizers")
    parser.add_argument("--prompt", type=int, default=1792)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--layers", default="", help="record and replay these alone: the cheap form")
    parser.add_argument("--dtype", default="f16")
    parser.add_argument("--capture", default="", help="a python with torch: record with capture_hf.py")
    given = parser.parse_args()

    os.makedirs(given.folder, exist_ok=True)
    texts = [to_ids(given, text) for text in given.texts]
    for path in texts:
        if count_tokens(path) < given.prompt + given.steps + 1:
            sys.exit("study: %s: expected %d tokens, got %d" %
                     (path, given.prompt + given.steps + 1, count_tokens(path)))  # fmt: skip
    estimate(given, texts)
    backends = json.loads(call([given.tool, "list", "backends", "--format", "json"]))
    has_cuda = any(b["name"] == "cuda" and b.get("available") for b in backends)
    backend = "cuda" if has_cuda else "cpu"
    db = os.path.join(given.folder, "study.db")
    GRID[:] = [s for s in GRID if fits(s, given.prompt)]
    BASELINES[:] = [s for s in BASELINES if fits(s, given.prompt)]
    replays = []
    for i, path in enumerate(texts):
        name = os.path.basename(path).replace(".ids.safetensors", "").replace(".safetensors", "")
        base = os.path.join(given.folder, "%d-%s" % (i, name))
        trace = base + ".safetensors"
        lengths = ["-n", str(given.steps), "--prompt-len", str(given.prompt)]
        argv = [given.tool, "record", given.model, "--tokens", path, *lengths, "-o", trace, "--dtype", given.dtype]
        if given.capture:
            argv = [given.capture, os.path.join(TOOLS, "capture_hf.py"), given.model, "--tokens", path,
                    "-P", str(given.prompt), "-n", str(given.steps), "-o", trace]  # fmt: skip
        if given.layers:
            argv += ["--layers", given.layers]
        stage(trace, argv, "%s: record" % name)
        stage(base + ".verify.json", [given.tool, "info", "--verify", trace, "--format", "json"], name + ": verify")
        argv = [given.tool, "replay", trace, "--backend", backend, "--repeat", "1", "--db", db, "-q",
                "--format", "json"]  # fmt: skip
        for spelling in ["full", *GRID]:
            argv += ["-p", spelling]
        stage(base + ".replay.json", argv, "%s: replay under %d schedules" % (name, len(GRID) + 1))
        with open(base + ".replay.json", encoding="utf-8") as file:
            replays.append(dict(zip(["full", *GRID], json.load(file))))
    chosen = choose(replays)
    argv = [given.tool, "eval", given.model, "--dtype", given.dtype, "--db", db, "-q", "--format", "json"]
    for path in texts:
        argv += ["--task", "ppl:file=%s,prompt=%d,steps=%d" % (path, given.prompt, given.steps)]
    for spelling in dict.fromkeys(["full", *chosen, *BASELINES]):
        argv += ["-p", spelling]
    stage(os.path.join(given.folder, "eval.json"), argv, "decode under %d choices and baselines" % len(chosen))
    with open(os.path.join(given.folder, "eval.json"), encoding="utf-8") as file:
        closed = json.load(file)
    loss = {}
    for result in closed:
        loss.setdefault(result["policy"].split(",sim=none")[0], []).append(result["delta_nll"]["mean"])
    print("decoded, NLL above full attention's, mean over texts:")
    for policy, values in loss.items():
        print("  %+.4f  %s" % (sum(values) / len(values), policy))
    page = os.path.join(given.folder, "study.html")
    call([given.tool, "report", db, "-q", "-o", page])
    print("page: %s" % page)


if __name__ == "__main__":
    main()
