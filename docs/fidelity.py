# SPDX-License-Identifier: Apache-2.0
"""How well does a replay predict what the model then does? For every text: record it once under full
attention, replay the recording under many schedules (offline: mass, error, bytes), and let the model
decode the same text under each of them (closed loop: NLL above full attention's). Schedules stand in
bands of equal bytes, so that what is predicted within a band is not merely that more bytes are better.

A text that helped to choose never judges: whatever is predicted for a text comes from texts of other
domains. Out come FOLDER/fidelity.json, .tsv and figures, and, with --document, a page of words and
tables. What is there already from the same command is kept. usage: fidelity.py MODEL TEXTS -o FOLDER
"""

import argparse
import datetime
import glob
import json
import math
import os
import random
import shutil
import subprocess
import sys

from compare import Tool, fill, per_step, tune

BANDS = [0.16, 0.20, 0.25, 0.33, 0.50]  # KV and selection bytes per step, as a share of full's
WITHIN = 0.10
CORE = [
    {"spelling": "recycled:k={k},stride=4"},
    {"spelling": "recycled:k={k},stride=8"},
    {"spelling": "recycled:k={k},stride=16"},
    {"spelling": "recycled:k={k},stride=32"},
    {"spelling": "recycled:k={k},stride=64"},
    {"spelling": "recycled:k={k},stride=5,sim=0.85"},
    {"spelling": "recycled:k={k},stride=10,sim=0.9"},
    {"spelling": "recycled:k={k},stride={never}"},
    {"spelling": "streaming:k={k}", "least": 5},
    {"spelling": "h2o:k={k}"},
    {"spelling": "tova:k={k}"},
    {"spelling": "snapkv:k={k}", "least": 33},
    {"spelling": "quest:k={k}", "least": 16},
    {"spelling": "triforce:k={k},gamma=15", "least": 8},
]
VARIANTS = [
    {"spelling": "recycled:k={k},stride=16,pool=1"},
    {"spelling": "recycled:k={k},stride=16,agg=mean"},
    {"spelling": "recycled:k={k},stride=16,agg=first,pool=1"},
    {"spelling": "recycled:k={k},stride=16,evict=raw"},
    {"spelling": "streaming:k={k},stride=16", "least": 5},
    {"spelling": "adakv:k={k}", "least": 33},
]
VARIED = [0.20, 0.33]  # bands that have the variants too
EQUAL_K = [  # at K = P/8: what the paper compares
    "recycled:k=1/8,stride=10",
    "recycled:k=1/8,stride=10,attend=after",
    "recycled:k=1/8,stride={never}",
    "streaming:k=1/8",
    "h2o:k=1/8",
    "tova:k=1/8",
    "snapkv:k=1/8",
    "snapkv:k=1/8,window=1,evict=fifo",
]
SIMILAR = ["recycled:k=1/8,stride=5,sim=0.8", "recycled:k=1/8,stride=5,sim=0.9",
           "recycled:k=1/8,stride=10,sim=0.9"]  # fmt: skip
LEAST = {"streaming": 5, "snapkv": 33, "quest": 16}  # positions that a policy keeps at least
FAST = {"bands": [0.2, 0.33, 0.5], "core": 14, "P": 640, "N": 64, "layers": "0-29"}

METRICS = [  # name, words, whether more of it is better
    ("error_mean", "output error, mean", False),
    ("error_p95", "output error, p95", False),
    ("error_sparse", "output error on sparse steps, mean", False),
    ("step_mean", "error of whole layers, mean over steps", False),
    ("step_p95", "error of whole layers, p95 over steps", False),
    ("mass_mean", "mass recovered, mean", True),
    ("mass_p05", "mass recovered, p05", True),
    ("mass_sparse", "mass on sparse steps, mean", True),
    ("recall", "top-K recall, mean", True),
    ("overlap", "refresh overlap, mean", True),
    ("bytes", "bytes per step (null predictor)", True),
]
CEILING = "ceiling"
JUDGE = "error_mean"  # chooses, where one metric has to
RESAMPLES = 500


def say(text):
    print("fidelity: " + text, file=sys.stderr)


def call(argv, out=None):
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("fidelity: %s ended with status %d" % (" ".join(argv)[:300], done.returncode))
    if out:
        with open(out + ".new", "w", encoding="utf-8") as file:
            file.write(done.stdout)
        os.replace(out + ".new", out)
    return done.stdout


def kept(path, argv):
    """Whether `path` is there from this very command."""
    try:
        with open(path + ".command", encoding="utf-8") as file:
            return os.path.exists(path) and json.load(file) == argv
    except (OSError, ValueError):
        return False


def keep(path, argv):
    with open(path + ".command", "w", encoding="utf-8") as file:
        json.dump(argv, file)


# --- what is run ---------------------------------------------------------------------------------


class Text:
    """One document: its ids, and what each stage made of it."""

    def __init__(self, path, folder):
        self.path = path
        self.name = os.path.basename(path).replace(".ids.safetensors", "")
        self.domain = self.name.rsplit("-", 1)[0]
        self.base = os.path.join(folder, self.name)

    def record(self, given):
        self.trace = self.base + ".safetensors"
        argv = [given.tool, "record", given.model, "--tokens", self.path, "-n", str(given.steps),
                "--prompt-len", str(given.prompt), "-o", self.trace, "-q"]  # fmt: skip
        if not kept(self.trace, argv):
            say("%s: record" % self.name)
            call(argv)
            keep(self.trace, argv)

    def measure(self, given, spellings):
        """Offline figures {spelling: object}."""
        argv = [given.tool, "replay", self.trace, "--backend", "null", "-q", "--format", "json"]
        self.offline = self.results(argv, spellings, "offline", "replay")

    def decode(self, given, spellings):
        task = "ppl:file=%s,prompt=%d,steps=%d" % (self.path, given.prompt, given.steps)
        argv = [given.tool, "eval", given.model, "--task", task, "--per-token", "-q", "--format", "json"]
        self.closed = self.results(argv, spellings, "closed", "decode")

    def results(self, argv, spellings, stage, word):
        path = "%s.%s.json" % (self.base, stage)
        for spelling in spellings:
            argv = [*argv, "-p", spelling]
        if not kept(path, argv):
            say("%s: %s, %d schedules" % (self.name, word, len(spellings)))
            call(argv, path)
            keep(path, argv)
        with open(path, encoding="utf-8") as file:
            return dict(zip(spellings, json.load(file)))


def fits(spelling, prompt):
    """Whether the prompt is long enough for the share of it, "k=1/8", that is kept."""
    kept_share = int(spelling.split("k=1/")[1].split(",")[0])
    return prompt // kept_share >= LEAST.get(spelling.split(":")[0], 1)


def plan(given, text):
    """[(spelling, band)]: schedules tuned to the bands on one recording, then those of equal K."""
    path = os.path.join(given.folder, "plan.json")
    argv = [text.trace, BANDS if not given.fast else FAST["bands"], CORE, VARIANTS, EQUAL_K, SIMILAR]
    if kept(path, argv):
        with open(path, encoding="utf-8") as file:
            return [tuple(row) for row in json.load(file)]
    tool = Tool(given.tool, text.trace, [])
    full = per_step(tool.replay(["full"])[0])
    rows, known = [("full", None)], {}
    for band in FAST["bands"] if given.fast else BANDS:
        wanted = CORE[: FAST["core"]] if given.fast else CORE + (VARIANTS if band in VARIED else [])
        free = [{**row, "spelling": fill(row["spelling"], never=tool.N + 1)} for row in wanted]
        say("band %.2f of full's bytes: %d schedules" % (band, len(free)))
        tuned = tune(tool, free, per_step, band * full, round(band * tool.P / 2) + 8, known)
        for row in free:
            x, off = tuned[row["spelling"]]
            if abs(off) <= WITHIN:
                rows.append((fill(row["spelling"], k=x), band))
    equal = [spelling for spelling in EQUAL_K if fits(spelling, tool.P)]
    rows += [(fill(spelling, never=tool.N + 1), None) for spelling in equal]
    for spelling, result in zip(SIMILAR, tool.replay(SIMILAR)):
        stride = max(1, round(result["effective_stride"]))
        rows += [(spelling, None), ("recycled:k=1/8,stride=%d" % stride, None)]
    rows = list(dict(reversed(rows)).items())[::-1]  # once each; where it stands in a band, there
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file)
    keep(path, argv)
    return rows


# --- what is found -------------------------------------------------------------------------------


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    out = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for i in order[at : end + 1]:
            out[i] = (at + end) / 2
        at = end + 1
    return out


def spearman(x, y):
    """Pearson's correlation of ranks; equal values share their mean rank."""
    a, b = ranks(x), ranks(y)
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((p - ma) * (q - mb) for p, q in zip(a, b))
    below = math.sqrt(sum((p - ma) ** 2 for p in a) * sum((q - mb) ** 2 for q in b))
    return top / below if below else float("nan")


def concord(x, y):
    """Pairs ordered alike and otherwise; pairs that tie in either are left out."""
    alike = other = 0
    for i in range(len(x)):
        for j in range(i):
            sign = (x[i] - x[j]) * (y[i] - y[j])
            alike += sign > 0
            other += sign < 0
    return alike, other


def figures(text, spelling):
    """Offline figures of one schedule on one text, by the names of METRICS."""
    r = text.offline[spelling]
    return {
        "error_mean": r["output_rel_err"]["mean"],
        "error_p95": r["output_rel_err"]["p95"],
        "error_sparse": r["on_recycled"]["output_rel_err"]["mean"],
        "step_mean": r["step_rel_err"]["mean"],
        "step_p95": r["step_rel_err"]["p95"],
        "mass_mean": r["mass_recovered"]["mean"],
        "mass_p05": r["mass_recovered"]["p05"],
        "mass_sparse": r["on_recycled"]["mass_recovered"]["mean"],
        "recall": r["topk_recall"]["mean"],
        "overlap": r["refresh_overlap"]["mean"],
        "bytes": per_step(r),
    }


class Study:
    """Texts, schedules in bands, and what was found: x[metric][text][schedule], y[text][schedule]."""

    def __init__(self, texts, rows):
        self.texts, self.rows = texts, rows
        self.banded = [s for s, band in rows if band is not None]
        self.band = dict(rows)
        self.x = {t.name: {s: figures(t, s) for s, _ in rows} for t in texts}
        self.y = {t.name: {s: t.closed[s]["delta_nll"]["mean"] for s, _ in rows} for t in texts}
        self.kl = {t.name: {s: t.closed[s]["kl"]["mean"] for s, _ in rows} for t in texts}
        self.domains = sorted({t.domain for t in texts})

    def predicted(self, metric, names, spelling):
        """The metric's mean over texts `names`, turned so that more means a larger loss. CEILING: the
        loss itself, of other texts."""
        if metric == CEILING:
            return self.loss(names, spelling)
        value = mean([self.x[name][spelling][metric] for name in names])
        better = next(m[2] for m in METRICS if m[0] == metric)
        return None if value is None else -value if better else value

    def loss(self, names, spelling):
        return mean([self.y[name][spelling] for name in names])

    def folds(self, texts):
        """(texts that choose, texts that judge): domain by domain."""
        for domain in self.domains:
            judge = [t.name for t in texts if t.domain == domain]
            choose = [t.name for t in texts if t.domain != domain]
            if judge and choose:
                yield choose, judge

    def spearman(self, metric, texts):
        found = []
        for choose, judge in self.folds(texts):
            pairs = [(self.predicted(metric, choose, s), self.loss(judge, s)) for s in self.banded]
            pairs = [p for p in pairs if p[0] is not None]
            found.append(spearman(*zip(*pairs)) if len(pairs) > 2 else float("nan"))
        return mean(found)

    def kendall(self, metric, texts, judged=None, folds=None):
        """judged: {text: {schedule: loss}}, NLL's unless given."""
        alike = other = 0
        judged = judged or self.y
        for choose, judge in folds or self.folds(texts):
            for band in sorted(set(self.band[s] for s in self.banded)):
                inside = [s for s in self.banded if self.band[s] == band]
                x = [self.predicted(metric, choose, s) for s in inside]
                known = [i for i, v in enumerate(x) if v is not None]
                y = [mean([judged[name][inside[i]] for name in judge]) for i in known]
                a, o = concord([x[i] for i in known], y)
                alike, other = alike + a, other + o
        return (alike - other) / (alike + other) if alike + other else float("nan")

    def interval(self, statistic, seed):
        """The middle 95 % over resamples of texts."""
        draw, found = random.Random(seed), []
        while len(found) < RESAMPLES:
            value = statistic([draw.choice(self.texts) for _ in self.texts])
            if value is not None and not math.isnan(value):
                found.append(value)
        found.sort()
        return found[RESAMPLES // 40], found[-1 - RESAMPLES // 40]

    def regret(self, metric, band):
        """Per text: loss of what other domains' figures choose, less that of the band's best, which is
        the schedule with the smallest mean loss over all texts."""
        inside = [s for s in self.banded if self.band[s] == band]
        best = min(inside, key=lambda s: self.loss([t.name for t in self.texts], s))
        out, choices = [], []
        for choose, judge in self.folds(self.texts):
            known = [s for s in inside if self.predicted(metric, choose, s) is not None]
            chosen = min(known, key=lambda s: self.predicted(metric, choose, s))
            choices.append(chosen)
            out += [self.y[name][chosen] - self.y[name][best] for name in judge]
        return best, choices, out


def standard_error(values):
    if len(values) < 2:
        return float("nan")
    m = sum(values) / len(values)
    return math.sqrt(sum((v - m) ** 2 for v in values) / (len(values) - 1) / len(values))


def by_position(texts, spelling, parts=4):
    """Mean loss in each quarter of the steps."""
    out = []
    for part in range(parts):
        values = []
        for t in texts:
            own = t.closed[spelling]["documents"][0]["nll"]
            full = t.closed["full"]["documents"][0]["nll"]
            first, last = len(own) * part // parts, len(own) * (part + 1) // parts
            values.append(mean([a - b for a, b in zip(own[first:last], full[first:last])]))
        out.append(mean(values))
    return out


def by_since(texts, spelling):
    """[(from, to, n, loss)] by steps since the last full step."""
    bins = {}
    for t in texts:
        for row in t.closed[spelling]["by_since"]:
            total = bins.setdefault((row["from"], row["to"]), [0, 0.0])
            total[0] += row["n"]
            total[1] += row["n"] * row["delta_nll"]
    return [(a, b, n, s / n) for (a, b), (n, s) in sorted(bins.items(), key=lambda i: i[0][0])]


# --- words ---------------------------------------------------------------------------------------


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value, digits=3, sign=False):
    if value is None or math.isnan(value):
        return "-"
    return ("%+.*f" if sign else "%.*f") % (digits, value)


def words(study, found, given):
    texts, n = study.texts, len(study.banded)
    tau, low, high = found["kendall"][JUDGE]
    rho, null = found["spearman"][JUDGE], found["spearman"]["bytes"]
    best = max((m[0] for m in METRICS), key=lambda m: found["kendall"][m][0])
    best_words = next(m[1] for m in METRICS if m[0] == best)
    regret = found["regret_mean"]
    met = tau >= 0.6 and low > 0.3
    small = "met" if regret[0] <= 0.01 else "missed"
    within = "within" if regret[0] <= 2 * regret[1] else "beyond"
    ceiling = found["kendall"][CEILING][0]
    same = max(found["kendall_same"], key=lambda m: found["kendall_same"][m])
    same_words = next(m[1] for m in METRICS if m[0] == same)
    return [
        "Within a band of equal bytes the replay's mean output error orders two schedules as the model "
        "does in %.0f of 100 pairs (pooled Kendall tau %.2f, 95 %% interval %.2f to %.2f over texts). The "
        "goal was tau of at least 0.6 with a lower end above 0.3: %s."
        % (50 + 50 * tau, tau, low, high, "met" if met else "missed"),
        "Over all %d schedules, bands mixed, Spearman's rank correlation of that error with the loss is "
        "%.2f; bytes per step alone, which know nothing of the text, reach %.2f. The best figure within "
        "bands is %s (tau %.2f). The loss on other domains itself, measured in the closed loop, would order "
        "a domain's schedules with tau %.2f: texts differ that much. Held against the very text that was "
        "replayed, the best is %s (tau %.2f)."
        % (n, rho, null, best_words, found["kendall"][best][0], ceiling, same_words, found["kendall_same"][same]),
        "Whoever takes in each band the schedule with the smallest offline error on texts of other "
        "domains loses %.4f nat a token (standard error %.4f) against the best of the band. The goal was "
        "at most 0.01 nat: %s; it is %s two standard errors, which are wide."
        % (regret[0], regret[1], small, within),
        "%d texts of %d domains (%s), P = %d, N = %d, %s."
        % (len(texts), len(study.domains), ", ".join(study.domains), given.prompt, given.steps,
           found["model"]),
    ]  # fmt: skip


def page(study, found, given):
    parts = ["# Does the offline prediction hold?\n", INTRODUCTION % given.command]
    parts += words(study, found, given)
    if given.figures:
        parts.append("![loss in the closed loop against offline error](%s/fidelity-error.svg)" % given.figures)
    parts += ["## Which figure predicts", METRICS_TEXT]
    parts.append(table(["offline figure", "Spearman, all", "Kendall, in bands", "95 % interval", "by KL",
                        "same text"], [
        [w, number(found["spearman"][m], 2), number(found["kendall"][m][0], 2),
         "%s to %s" % (number(found["kendall"][m][1], 2), number(found["kendall"][m][2], 2)),
         number(found["kendall_kl"][m], 2), number(found["kendall_same"].get(m), 2)]
        for m, w, _ in [*METRICS, (CEILING, "(closed loop itself, on the other domains)", False)]]))  # fmt: skip
    parts += ["## What choosing offline costs", REGRET_TEXT]
    parts.append(table(["band, of full's bytes", "schedules", "best", "chosen", "regret, nat", "s.e."], [
        ["%.0f %%" % (100 * r["band"]), str(r["n"]), "`%s`" % r["best"],
         "<br>".join("`%s`" % c for c in r["chosen"]), number(r["regret"], 4, True), number(r["se"], 4)]
        for r in found["regret"]]))  # fmt: skip
    parts += ["## Drift", DRIFT_TEXT]
    if given.figures:
        parts.append("![loss by steps since the last full step](%s/fidelity-drift.svg)" % given.figures)
    parts.append(table(["schedule", "1st quarter", "2nd", "3rd", "4th"], [
        ["`%s`" % s] + [number(v, 4, True) for v in q] for s, q in found["positions"]]))  # fmt: skip
    parts += ["## What the paper says, at this scale", CLAIMS_TEXT]
    parts.append(table(["schedule", "offline error", "loss, nat", "95 % interval", "keys", "eff. stride"], [
        ["`%s`" % c["schedule"], number(c["error"], 4), number(c["loss"], 4, True),
         "%s to %s" % (number(c["low"], 4, True), number(c["high"], 4, True)),
         "%.1f %%" % (100 * c["keys"]), number(c["stride"], 1)] for c in found["claims"]]))  # fmt: skip
    parts += found["claim_words"]
    parts += ["## All schedules", table(["schedule", "band", "bytes", "offline error", "mass", "loss, nat"], [
        ["`%s`" % r["schedule"], "%.0f %%" % (100 * r["band"]), "%.1f %%" % (100 * r["share"]),
         number(r["error"], 4), number(r["mass"], 4), number(r["loss"], 4, True)]
        for r in found["schedules"]])]  # fmt: skip
    return "\n\n".join(parts) + "\n"


INTRODUCTION = (
    "A replay is exact for the recording it replays. A model that decodes under a schedule drifts away from\n"
    "that recording: its later queries, keys and values come from what the schedule left out. This page\n"
    "measures how much of the replay's verdict survives. Everything on it, words included, is made by\n"
    "`%s`; loss is the mean NLL of the true tokens under the schedule less that under full\n"
    "attention, in nats, the model told what comes next and decoding one token at a time."
)  # fmt: skip
METRICS_TEXT = (
    "Each figure is averaged over the texts of all domains but one and held against the loss on that one,\n"
    "domain by domain. Figures of which more is better are turned round, so that 1 is a perfect order and 0\n"
    "is chance. Within bands all schedules move the same bytes to within 10 %, so bytes say little there. By\n"
    "KL: held against the divergence from full attention's predictions, which is less noisy than NLL. Same\n"
    "text: the figure of a text held against the loss on that very text, which is what a study of one's own\n"
    "texts has. The last row is not offline: the loss on the other domains, as a prediction of the loss on\n"
    "this one. What it leaves is the difference between texts, which no figure of other texts can know."
)
REGRET_TEXT = (
    "For each domain the schedule with the smallest mean output error on the other domains' texts is taken.\n"
    "Regret is its loss less that of the band's best, which is the one with the smallest mean loss over all\n"
    "texts, known only afterwards."
)
DRIFT_TEXT = (
    "If errors fed on themselves, loss would grow with the length of the output and with the steps since the\n"
    "last full step."
)
CLAIMS_TEXT = (
    "Schedules at equal K = P/8, as the paper compares them, fixed strides beside similarity at the same\n"
    "effective stride, and its ablations (attend=after: full attention replaced by the new choice; a stride\n"
    "beyond the last step: never refreshed). Intervals: paired bootstrap over texts."
)


def claim_sentences(claims, similar):
    by = {c["schedule"]: c for c in claims}
    fixed = by["recycled:k=1/8,stride=10"]
    rivals = [s for s in by if s.startswith(("streaming", "h2o", "tova", "snapkv"))]
    ahead = [s for s in rivals if by[s]["loss"] > fixed["loss"]]
    behind = [s for s in rivals if by[s]["loss"] <= fixed["loss"]]
    never = next(c for s, c in by.items() if s.startswith("recycled") and c["never"])
    after = by["recycled:k=1/8,stride=10,attend=after"]
    out = [
        "At equal K `recycled` with stride 10 loses %s nat. It is ahead of %s and behind %s."
        % (number(fixed["loss"], 4), ", ".join("`%s`" % s for s in ahead) or "none",
           ", ".join("`%s`" % s for s in behind) or "none"),
        "Never refreshed it loses %s; with attend=after %s, against %s with attend=before."
        % (number(never["loss"], 4), number(after["loss"], 4), number(fixed["loss"], 4)),
    ]  # fmt: skip
    for s, f in similar:
        out.append(
            "`%s` has effective stride %s and loses %s; `%s` loses %s."
            % (s, number(by[s]["stride"], 1), number(by[s]["loss"], 4), f, number(by[f]["loss"], 4))
        )
    return ["\n".join("- " + line for line in out)]


# --- all of it -----------------------------------------------------------------------------------


def find(study, given):
    names = [t.name for t in study.texts]
    full = mean([per_step(t.offline["full"]) for t in study.texts])
    found = {"model": study.texts[0].closed["full"]["model"], "spearman": {}, "kendall": {}}
    found |= {"kendall_kl": {}, "kendall_same": {}}
    same = [([name], [name]) for name in names]
    for seed, metric in enumerate([m[0] for m in METRICS] + [CEILING]):
        found["kendall_kl"][metric] = study.kendall(metric, study.texts, study.kl)
        if metric != CEILING:
            found["kendall_same"][metric] = study.kendall(metric, study.texts, None, same)
        found["spearman"][metric] = study.spearman(metric, study.texts)
        tau = study.kendall(metric, study.texts)
        found["kendall"][metric] = (tau, *study.interval(lambda d, m=metric: study.kendall(m, d), seed))
    found["regret"], all_regret = [], []
    for band in sorted(set(study.band[s] for s in study.banded)):
        best, choices, regret = study.regret(JUDGE, band)
        all_regret.append(mean(regret))
        found["regret"].append({
            "band": band, "n": sum(study.band[s] == band for s in study.banded), "best": best,
            "chosen": sorted(set(choices)), "regret": mean(regret), "se": standard_error(regret)})  # fmt: skip
    per_text = [
        mean([study.regret(JUDGE, r["band"])[2][i] for r in found["regret"]])
        for i in range(len(names))
    ]
    found["regret_mean"] = (mean(all_regret), standard_error(per_text))
    found["schedules"] = [
        {"schedule": s, "band": study.band[s],
         "share": mean([per_step(t.offline[s]) for t in study.texts]) / full,
         "error": mean([study.x[n][s]["error_mean"] for n in names]),
         "mass": mean([study.x[n][s]["mass_mean"] for n in names]), "loss": study.loss(names, s)}
        for s in study.banded
    ]  # fmt: skip
    claims = [s for s, _ in study.rows if "k=1/8" in s]
    found["claims"] = []
    for seed, s in enumerate(claims):
        draw = random.Random(1000 + seed)
        values = [study.y[n][s] for n in names]
        means = sorted(mean([draw.choice(values) for _ in values]) for _ in range(2000))
        found["claims"].append({
            "schedule": s, "error": mean([study.x[n][s]["error_mean"] for n in names]),
            "loss": mean(values), "low": means[50], "high": means[-51],
            "keys": mean([t.closed[s]["keys_share"] for t in study.texts]),
            "stride": mean([t.closed[s]["effective_stride"] for t in study.texts]),
            "never": s == "recycled:k=1/8,stride=%d" % (given.steps + 1)})  # fmt: skip
    pairs = [(s, claims[i + 1]) for i, s in enumerate(claims) if "sim=" in s and i + 1 < len(claims)]
    found["claim_words"] = claim_sentences(found["claims"], pairs)
    shown = ["recycled:k=1/8,stride=10", "recycled:k=1/8,stride=%d" % (given.steps + 1),
             "streaming:k=1/8", "h2o:k=1/8", "snapkv:k=1/8"]  # fmt: skip
    found["positions"] = [(s, by_position(study.texts, s)) for s in shown if s in study.band]
    options = [fill(row["spelling"], k="", never=given.steps + 1) for row in CORE]
    strided = [
        s for s in study.banded
        if study.band[s] == given.shown_band and s.startswith("recycled")
        and "recycled:k=" + s[s.index(",") :] in options
    ]  # fmt: skip
    found["since"] = [(s, by_since(study.texts, s)) for s in strided]
    return found


def write_tsv(study, folder):
    columns = [m[0] for m in METRICS]
    with open(os.path.join(folder, "fidelity.tsv"), "w", encoding="utf-8") as out:
        print("\t".join(["text", "domain", "schedule", "band", "loss", *columns]), file=out)
        for t in study.texts:
            for s, band in study.rows:
                x = study.x[t.name][s]
                cells = [t.name, t.domain, s, "" if band is None else "%g" % band, "%.6f" % study.y[t.name][s]]
                cells += ["" if x[c] is None else "%.9g" % x[c] for c in columns]
                print("\t".join(cells), file=out)


def draw(found, given):
    """Two figures; where gnuplot is missing, none."""
    folder = given.folder
    with open(os.path.join(folder, "fidelity-error.tsv"), "w", encoding="utf-8") as out:
        for band in sorted({r["band"] for r in found["schedules"]}):
            print('"%.0f %%"' % (100 * band), file=out)
            for r in found["schedules"]:
                if r["band"] == band:
                    print("%.9g\t%.9g" % (r["error"], r["loss"]), file=out)
            print("\n", file=out)
    with open(os.path.join(folder, "fidelity-drift.tsv"), "w", encoding="utf-8") as out:
        for s, rows in found["since"]:
            print('"%s"' % s, file=out)
            for a, b, n, loss in rows:
                middle = (a + (b if b is not None else 2 * a)) / 2
                print("%g\t%.9g\t%d" % (middle or 0.5, loss, n), file=out)
            print("\n", file=out)
    if not shutil.which("gnuplot"):
        say("no figures: gnuplot is missing")
        return
    for name in ("error", "drift"):
        base = os.path.join(folder, "fidelity-" + name)
        script = os.path.join(os.path.dirname(__file__), "fidelity-%s.gp" % name)
        subprocess.run(["gnuplot", "-e", "name='%s'" % base, script], check=True)
        if given.figures:
            target = os.path.join(os.path.dirname(given.document), given.figures)
            os.makedirs(target, exist_ok=True)
            with open(base + ".svg", encoding="utf-8") as file, open(
                os.path.join(target, "fidelity-%s.svg" % name), "w", encoding="utf-8") as copy:  # fmt: skip
                copy.write(file.read())
        print("figure: %s.svg" % base)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", help="folder of ids files, NAME-NUMBER.ids.safetensors by domain")
    parser.add_argument("-o", "--folder", required=True)
    parser.add_argument("--tool", default="build/rattn-sim")
    parser.add_argument("--prompt", type=int, default=1792)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--each", type=int, default=2, help="texts of each domain (2)")
    parser.add_argument("--fast", action="store_true", help="fewer and shorter texts, fewer bands")
    parser.add_argument("--document", help="page to write")
    parser.add_argument("--figures", help="folder of the page's figures, beside it")
    parser.add_argument("--command", default="make fidelity", help="what the page says made it")
    given = parser.parse_args()

    if given.fast:
        given.prompt, given.steps = FAST["P"], FAST["N"]
    given.shown_band = (FAST["bands"] if given.fast else BANDS)[1]
    os.makedirs(given.folder, exist_ok=True)
    paths = sorted(glob.glob(os.path.join(given.texts, "*.ids.safetensors")))
    if not paths:
        sys.exit("fidelity: %s: expected *.ids.safetensors (make texts)" % given.texts)
    texts = [Text(path, given.folder) for path in paths]
    of_domain = {}
    for t in texts:
        of_domain.setdefault(t.domain, []).append(t)
    texts = [t for domain in of_domain.values() for t in domain[: 1 if given.fast else given.each]]
    if len({t.domain for t in texts}) < 2:
        sys.exit("fidelity: %s: expected texts of two domains at least" % given.texts)
    texts[0].record(given)
    rows = plan(given, texts[0])
    spellings = [s for s, _ in rows]
    for text in texts:
        text.record(given)
        text.measure(given, spellings)
        text.decode(given, spellings)
    study = Study(texts, rows)
    found = find(study, given)
    found["date"] = datetime.date.today().isoformat()
    with open(os.path.join(given.folder, "fidelity.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
    write_tsv(study, given.folder)
    draw(found, given)
    text = page(study, found, given)
    with open(given.document or os.path.join(given.folder, "fidelity.md"), "w", encoding="utf-8") as file:
        file.write(text)
    sys.stdout.write("\n".join(words(study, found, given)) + "\n")


if __name__ == "__main__":
    main()
