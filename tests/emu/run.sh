#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The host's run of CUDA sources: each test program in several schedules, the product with them as its
# backend, each planted fault with what should show it, the sources through nvcc. Last line: N passed,
# N failed, N skipped. $B is the build folder. FEW=1: under the thread sanitizer only what no other way
# of running shows.
set -u
ulimit -c 0 # faults abort
passed=0 failed=0 skipped=0
log=$(mktemp)
runs=$(mktemp -d) # of test programs: NAME.SEED, NAME.SEED.status
trap 'rm -rf "$log" "$runs"' EXIT
mode=$("$B/emu/faults" mode) || exit 1
tests=$(basename -a tests/emu/test_*.cu tests/emu/test_*.c | sed 's/\..*//')
case $mode in
plain) seeds="0 1 2 3" ;;
address) seeds=1 ;;
thread) # see emu.mk
    seeds="0 1" tests="test_race"
    [ -n "${FEW:-}" ] || tests="test_kernels test_runtime test_race"
    export TSAN_OPTIONS="atexit_sleep_ms=0 ${TSAN_OPTIONS:-}"
    ;;
esac

# --- everything that takes time, as many at a time as there are processors ----------------------------
# Whole recordings where no sanitizer watches: it would take minutes.
others=""
case $mode in
plain) others="product.bats day nvcc modes.bats late.bats profile.bats waterfall.bats" only=. ;;
address) others="product.bats" only='integer|what a full step|room' ;;
*) only= ;;
esac
if [ -n "$others" ] && ! command -v bats >/dev/null; then
    echo "the product's tests need bats: run ./bootstrap"
    exit 1
fi

# Its status to $runs/NAME.SEED.status, its words beside it.
job() { # NAME SEED
    local said=$runs/$1.$2
    case $1 in
    *.bats) RATTN_EMU="$B/emu/rattn-sim" bats --tap -f "$only" "tests/emu/$1" >"$said" 2>&1 ;;
    day) DRY=1 OUT=$runs/day B=$B tests/gpu/day.sh >"$said" 2>&1 ;;
    nvcc) make -s nvcc-tests >"$said" 2>&1 ;;
    *) RA_EMU_SEED=$2 "$B/emu/$1" >"$said" 2>&1 ;;
    esac
    echo $? >"$said.status"
}
export -f job
export B runs only
# shellcheck disable=SC2016 # the inner shell expands
{
    for name in $others; do
        [ "$name" = nvcc ] && ! command -v nvcc >/dev/null || echo "$name 0"
    done
    for name in $tests; do
        for seed in $seeds; do echo "$name $seed"; done
    done
} | xargs -P "$(nproc)" -L 1 bash -c 'job "$0" "$1"'

# --- test programs: cmocka's counts, or a last line like this script's ---------------------------
add_run() { # NAME SEED
    local status last p=0 f=0 s=0 said=$runs/$1.$2
    status=$(cat "$said.status")
    last=$(tail -n 1 "$said")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[4]:-0}
    else
        read -r p f s < <(awk '/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
            /^\[  FAILED  \] [0-9]+ test/ { f += $4 } /^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
            END { print p + 0, f + 0, s + 0 }' "$said")
    fi
    if [ "$status" -ne 0 ] || [ "$f" -gt 0 ] || [ "$p" -eq 0 ]; then
        cat "$said"
        echo "$1 with seed $2: status $status"
        [ "$f" -gt 0 ] || f=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

for name in $tests; do
    for seed in $seeds; do add_run "$name" "$seed"; done
done

# --- the product, its cuda backend on the host; the day of a card, without one ------------------------
add_bats() { # NAME
    local said=$runs/$1.0 f
    passed=$((passed + $(grep -c '^ok ' "$said"))) f=$(grep -c '^not ok ' "$said")
    if [ "$f" -gt 0 ] || ! grep -q '^ok ' "$said" || [ "$(cat "$said.status")" -ne 0 ]; then
        cat "$said"
        failed=$((failed + (f > 0 ? f : 1)))
    fi
}

add_one() { # COMMAND...: passes by its status; $log is what to show
    if "$@"; then
        passed=$((passed + 1))
    else
        cat "$log"
        failed=$((failed + 1))
    fi
}

went_well() { # NAME
    cp "$runs/$1.0" "$log"
    [ "$(cat "$runs/$1.0.status")" -eq 0 ]
}

# A variable that is set but empty once made a card's day measure the dry sizes: only the option asks
# for them. The true ones do not fit here.
true_sizes() {
    DRY="" RA_EMU_MEMORY=1000000000 "$B/emu/bench_gpu" --out "$runs/true.json" >"$log" 2>&1 &&
        grep -q 'n/a: needs' "$log" && [ ! -s "$runs/true.json" ]
}

few_files() { # of a day: what it makes on the way is gone
    find "$runs/day" -type f >"$log"
    [ "$(wc -l <"$log")" -le 9 ]
}

for name in $others; do
    case $name in *.bats) add_bats "$name" ;; esac
done
if [ "$mode" = plain ]; then
    add_one went_well day
    add_one few_files
    add_one true_sizes
fi

# --- faults ----------------------------------------------------------------------------------------
# What a run says: right, wrong (NaN is), or the words of a report.
outcome() { # FAULT SEED
    { RA_EMU_SEED=$2 "$B/emu/faults" "$1"; } >"$log" 2>&1
    case $? in
    0) echo right ;;
    1) if grep -q '^got ' "$log"; then echo wrong; else cat "$log"; fi ;;
    *) cat "$log" ;;
    esac
}

# `right` must hold for every seed: the fault hides. Anything else must show for one.
check_fault() { # FAULT EXPECTED SEED...
    local fault=$1 expected=$2 seed got shown=0
    shift 2
    for seed in "$@"; do
        got=$(outcome "$fault" "$seed" 2>/dev/null)
        if grep -q -- "$expected" <<<"$got"; then shown=$((shown + 1)); fi
    done
    if [ "$shown" -eq $# ] || { [ "$shown" -gt 0 ] && [ "$expected" != right ]; }; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "fault $fault: expected $expected with one of the seeds $*, the last gave:"
        head -n 20 <<<"$got"
    fi
}

# The columns: in order; shuffled; under address and undefined, in order; under thread, in order.
while IFS='|' read -r fault in_order shuffled address thread; do
    fault=${fault%% *}
    [ -z "${FEW:-}" ] || [ "$thread" = "data race" ] || [[ $fault == *clean ]] || continue
    case $mode in
    plain)
        check_fault "$fault" "$in_order" 0
        check_fault "$fault" "$shuffled" 1 2 3 4 5 6 7 8
        ;;
    address) check_fault "$fault" "$address" 0 ;;
    thread) check_fault "$fault" "$thread" 0 ;;
    esac
done <<'TABLE'
clean           |right|right|right|right
static-overrun  |array part of 32 bytes was written past|array part of 32 bytes was written past|heap-buffer-overflow|was written past
dynamic-overrun |dynamic shared memory of 1024 bytes was written past|dynamic shared|heap-buffer-overflow|was written past
global-overrun  |allocation of 4 bytes was written past|allocation of 4 bytes|heap-buffer-overflow|was written past
counted-overrun |byte 1024 of an allocation of 1024|byte 1024 of an|byte 1024 of an|byte 1024 of an
host-pointer    |outside the card's memory|outside the card's|outside the card's|outside the card's
misaligned      |is not aligned|is not aligned|is not aligned|is not aligned
no-barrier      |wrong|wrong|wrong|data race
stale-shared    |wrong|wrong|wrong|wrong
skips-shuffle   |nobody can go on|nobody can go on|nobody can go on|nobody can go on
wrong-mask      |with mask 0000ffff at .* wait for this one|with mask 0000ffff|with mask 0000ffff|with mask 0000ffff
two-barriers    |wait in the one at|wait in the one at|wait in the one at|wait in the one at
not-in-mask     |which is not in mask|which is not in mask|which is not in mask|which is not in mask
meet-clean      |right|right|right|right
meet-no-syncwarp|wrong|wrong|wrong|data race
meet-no-barrier |wrong|wrong|wrong|data race
pipe-clean      |right|right|right|right
pipe-wait       |wrong|wrong|wrong|wrong
pipe-no-war     |right|wrong|right|data race
pipe-no-end     |not waited for|not waited for|not waited for|not waited for
last-clean      |right|right|right|right
last-no-barrier |an atomic after|lacks a|an atomic after|an atomic after
last-no-fence   |a fence before|a fence before|a fence before|a fence before
last-no-look    |fence of the reader|fence of the reader|fence of the reader|fence of the reader
last-early      |an atomic after|an atomic after|an atomic after|an atomic after
follow-clean    |right|right|right|right
follow-read     |load of what the launch ahead|load of what|load of what|load of what
follow-write    |written before|written before|written before|written before
follow-end      |ended without waiting|ended without|ended without|ended without
TABLE

# --- the thread sanitizer: each kernel once, and whether it would tell -------------------------------
# Some kernels lay out memory so that it cannot start.
if [ "$mode" != plain ]; then
    :
elif [ "$(build/tsan/emu/faults mode 2>"$log")" != thread ]; then
    cat "$log"
    echo "no thread sanitizer: kernels not watched for races"
    skipped=$((skipped + 1))
else
    FEW=1 B=build/tsan "$0" >"$log" 2>&1
    if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]] && [ "${BASH_REMATCH[1]}" -gt 0 ]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        [ "${BASH_REMATCH[2]}" -eq 0 ] || cat "$log"
    else
        cat "$log"
        failed=$((failed + 1))
    fi
fi

# --- the same sources by the compiler they are for ----------------------------------------------------
if [ "$mode" = plain ] && ! command -v nvcc >/dev/null; then
    echo "no nvcc: CUDA sources not compiled for a card"
    skipped=$((skipped + 1))
elif [ "$mode" = plain ]; then
    add_one went_well nvcc
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
