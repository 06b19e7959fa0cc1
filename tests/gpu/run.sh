#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the programs of build/gpu on a card, then again under memcheck and racecheck of
# compute-sanitizer, each for at most TOOL_SECONDS. What a part says is in $OUT/PART.txt, by default
# below build/gpu/out. TOOLS and PROGRAMS name fewer tools, fewer programs to run alone. Last line: N passed, N failed, N skipped. Without a card: status 3. DRY=1: the
# same programs as the emulation runs them, from the build folder $B.
set -u
passed=0 failed=0 skipped=0
OUT=${OUT:-build/gpu/out}
B=${B:-build/release}
PROGRAM_SECONDS=${PROGRAM_SECONDS:-120}
TOOL_SECONDS=${TOOL_SECONDS:-60}
mkdir -p "$OUT" || exit 1

skip() { # SENTENCE
    echo "$1"
    skipped=$((skipped + 1))
}

# The closing lines of a program, cmocka's or not, carry the counts.
run_program() { # FOLDER NAME
    local log=$OUT/$2.txt status p f s
    SECONDS=0
    timeout -k 5 "$PROGRAM_SECONDS" "$1/$2" >"$log" 2>&1
    status=$?
    read -r p f s < <(awk '/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
        /^\[  FAILED  \] [0-9]+ test/ { f += $4 } /^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
        END { print p + 0, f + 0, s + 0 }' "$log")
    if [ "$status" -ne 0 ] || [ "$f" -gt 0 ] || [ "$p" -eq 0 ]; then
        grep -v '^  ' "$log" | tail -n 40
        echo "$2: status $status, all of it in $log"
        [ "$f" -gt 0 ] || f=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-32s %5d passed %3d failed %3d skipped %4d s\n' "$2" "$p" "$f" "$s" "$SECONDS"
}

# A tool's own findings end it with status 77; a program that runs out of time was not found wrong.
run_tool() { # TOOL NAME
    local log=$OUT/$1-$2.txt status
    if ! command -v compute-sanitizer >/dev/null; then
        skip "$1 of $2 skipped: no compute-sanitizer in PATH"
        return
    fi
    SECONDS=0
    timeout -k 5 "$TOOL_SECONDS" compute-sanitizer --tool "$1" --error-exitcode 77 \
        "build/gpu/$2" >"$log" 2>&1
    status=$?
    case $status in
    0) passed=$((passed + 1)) ;;
    124 | 137)
        skip "$1 of $2 skipped: not through in $TOOL_SECONDS s"
        ;;
    *)
        tail -n 40 "$log"
        echo "$1 of $2: status $status, all of it in $log"
        failed=$((failed + 1))
        ;;
    esac
    printf '%-32s status %3d %41d s\n' "$1 of $2" "$status" "$SECONDS"
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

all="test_query test_refresh test_select test_score test_decode"
programs=${PROGRAMS-$all}
if [ -n "${DRY:-}" ]; then
    for name in $programs; do run_program "$B/emu" "$name"; done
    finish
fi
build/gpu/card >"$OUT/card.txt" 2>&1
status=$?
cat "$OUT/card.txt"
[ "$status" -eq 0 ] || exit "$status"
for name in $programs; do run_program build/gpu "$name"; done
for tool in ${TOOLS-memcheck racecheck}; do
    for name in $all; do run_tool "$tool" "$name"; done
done
finish
