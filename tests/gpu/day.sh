#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# All that a card is needed for, in one go and within DAY_SECONDS (540): tests, the product's replay,
# benchmarks, rivals, compute-sanitizer. Programs come from build/gpu/pack (make gpu-bundle) where they
# were packed, else they are built. Each part writes what it found as it ends: results to
# $OUT/PART.json, words to $OUT/day.txt; a part that finds no time left is named. $OUT is
# build/gpu/out unless set. Last line: N passed, N failed, N skipped, a part each. DRY=1: the same with
# the emulation's programs of the build folder $B, at sizes that tell nothing of speed.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OUT=${OUT:-build/gpu/out}
B=${B:-build/release}
DRY=${DRY:-}
sample=traces/data/smollm2-135m.safetensors
programs=build/gpu python=python3
[ -z "$DRY" ] || programs=$B/emu python=/usr/bin/python3 # the one that Debian's numpy belongs to
passed=0 failed=0 skipped=0
SECONDS=0
total=${DAY_SECONDS:-540}
mkdir -p "$OUT" || exit 1
: >"$OUT/day.txt"

say() {
    echo "$*" | tee -a "$OUT/day.txt"
}

# What is left, or the part's own limit where that is less.
limit() { # SECONDS
    local left=$((total - SECONDS))
    echo $((left < $1 ? left : $1))
}

part() { # NAME SECONDS COMMAND...: status 3 means that something it needs is not there
    local name=$1 seconds start=$SECONDS status
    seconds=$(limit "$2")
    shift 2
    if [ "$seconds" -lt 10 ]; then
        say "== $name: not run, no time left"
        skipped=$((skipped + 1))
        return
    fi
    say "== $name"
    PART_SECONDS=$((seconds - 5)) timeout -k 5 "$seconds" "$@" 2>&1 | tee -a "$OUT/day.txt"
    status=${PIPESTATUS[0]}
    case $status in
    0) passed=$((passed + 1)) ;;
    3) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
    say "== $name: status $status after $((SECONDS - start)) s"
}

unpack() { # the packed programs, or those that nvcc makes
    local pack=build/gpu/pack/programs.tar.xz
    if [ -n "$DRY" ]; then
        ls "$programs/bench_gpu" "$programs/rattn-sim"
    elif [ -e "$pack" ]; then
        tar -xJf "$pack" || python3 -c "import tarfile; tarfile.open('$pack').extractall('.')"
    else
        make -j "$(nproc)" build-gpu
    fi
}

card() {
    [ -n "$DRY" ] || build/gpu/card
}

# Without the sanitizers, which come last.
tests() {
    OUT=$(mktemp -d) TOOLS="" PROGRAM_SECONDS=$PART_SECONDS tests/gpu/run.sh
}

# The product on the card: checked step by step, then timed, each way of choosing and launching.
replay() {
    local few=() how i=0
    local ways=("" "--select inline" "--select side" --pdl --no-graph "--between none" "--cache gather"
        "--batch 8" "--batch 8 --page 16 --pdl" "--decide host" "--decide device" "--tile-layers 8")
    if [ -n "$DRY" ]; then
        few=(--layers 9 --steps 0..15) ways=("" --pdl "--batch 2 --page 16" "--decide device")
    fi
    [ -x "$programs/rattn-sim" ] || { echo "no $programs/rattn-sim: not packed"; return 3; }
    for how in "${ways[@]}"; do
        # shellcheck disable=SC2086
        "$programs/rattn-sim" replay "$sample" -p full -p recycled:k=256,stride=16 \
            -p recycled:k=256,stride=16,attend=after -p recycled:k=256,stride=8,sim=0.85 \
            -p streaming:k=256 "${few[@]}" \
            --backend cuda $how -q --format json >"$OUT/replay-$i.json" || return
        python3 - "$how" "$OUT/replay-$i.json" <<'END'
import json, sys
for run in json.load(open(sys.argv[2])):
    ns = run["attention_ns"]
    print("%-28s %-46s %9.1f us a step, p99 %9.1f, speed-up %s, kernel_err %.2g, %s" % (
        sys.argv[1], run["policy"][:46], ns["per_step_mean"] / 1e3, ns["p99"] / 1e3,
        run["speedup_attention"] and round(run["speedup_attention"], 3), run["kernel_err"]["max"],
        ns["method"]))
END
        i=$((i + 1))
    done
    python3 - "$OUT" <<'END'
import glob, json, os, sys
names = sorted(glob.glob(os.path.join(sys.argv[1], "replay-*.json")))
json.dump([run for name in names for run in json.load(open(name))],
          open(os.path.join(sys.argv[1], "replay.json"), "w"), indent=1)
for name in names:
    os.remove(name)
END
}

bench() { # TIER
    "$programs/bench_gpu" --tier "$1" --seconds "$PART_SECONDS" --out "$OUT/$1.json" ${DRY:+--dry}
}

rivals() { # TIER
    PYTHONPATH=build/gpu/wheels/site $python kernels/bench/rivals.py --tier "$1" \
        --seconds "$PART_SECONDS" --out "$OUT/rivals-$1.json"
}

# cuBLAS comes with torch where it comes with nothing else.
step() {
    RA_CUBLAS=${RA_CUBLAS:-$(find / -xdev -name 'libcublas.so.1[23]' -size +1M 2>/dev/null | head -n 1)} \
        "$programs/bench_step" --seconds "$PART_SECONDS" --out "$OUT/step.json" ${DRY:+--dry}
}

profile() {
    tests/gpu/profile.sh
}

sanitize() {
    [ -z "$DRY" ] || return 0
    OUT=$(mktemp -d) TOOL_SECONDS=$((PART_SECONDS / 8)) PROGRAMS="" tests/gpu/run.sh
}

export -f unpack card tests replay bench rivals step profile sanitize
export B DRY programs python sample
part unpack 200 bash -c unpack
part card 30 bash -c card
part tests 120 bash -c tests
part replay 90 bash -c replay
part core 120 bash -c "bench core"
part profile 75 bash -c profile
part batch 90 bash -c "bench batch"
part rivals 90 bash -c "rivals core"
part step 100 bash -c step
part sanitize 120 bash -c sanitize
part grid 60 bash -c "bench grid"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
