#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs suites and adds their counts up. Last line: N passed, N failed, N skipped. $B is the build
# folder. A program that dies without saying how many tests failed counts as one failure.
set -u
passed=0 failed=0 skipped=0
log=$(mktemp)
ahead=$(mktemp -d) # what was run ahead: NAME.log, NAME.status
trap 'rm -rf "$log" "$ahead"' EXIT
export RATTN_SIM=$PWD/$B/rattn-sim

add() { # NAME STATUS PASSED FAILED SKIPPED
    passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5))
    if [ "$4" -gt 0 ]; then
        cat "$log"
    elif [ "$2" -ne 0 ]; then
        failed=$((failed + 1))
        cat "$log"
        echo "$1: ended with status $2"
    fi
    printf '%-44s %4d passed %4d failed %4d skipped\n' "$1" "$3" "$4" "$5"
}

count() { # PATTERN: number of lines of the log that match
    grep -cE "$1" "$log"
}

run_ahead() { # COMMAND FILE...: the command on each file, as many at a time as there are processors
    # shellcheck disable=SC2016 # the inner shell expands
    printf '%s\n' "${@:2}" | xargs -d '\n' -P "$(nproc)" -I {} bash -c \
        '$1 "$2" >"$3/${2##*/}.log" 2>&1; echo $? >"$3/${2##*/}.status"' _ "$1" {} "$ahead"
}

obtain() { # FILE COMMAND...: output into the log; the status. What ran ahead is not run again
    local name=${1##*/} status
    if [ -e "$ahead/$name.status" ]; then
        status=$(cat "$ahead/$name.status")
        mv "$ahead/$name.log" "$log"
        rm "$ahead/$name.status"
        return "$status"
    fi
    "${@:2}" >"$log" 2>&1
}

run_cmocka() { # PROGRAM [EMULATOR]
    obtain "$1" ${2+"$2"} "$1"
    local status=$? p f s
    # The closing lines of each group carry the counts; a name is listed twice when it fails.
    read -r p f s < <(awk '/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
        /^\[  FAILED  \] [0-9]+ test/ { f += $4 } /^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
        END { print p + 0, f + 0, s + 0 }' "$log")
    add "${2:+$2 }$(basename "$1")" $status "$p" "$f" "$s"
}

# The cpu backend on AArch64. test_backend_simd prints a hash of what each set of instructions chose:
# all must be one, on this machine and there.
run_neon() {
    local t orders
    if ! command -v qemu-aarch64 >/dev/null || ! echo 'int main(void) { return 0; }' |
        aarch64-linux-gnu-gcc -static -x c -o /dev/null - 2>/dev/null; then
        echo "neon: not run: no qemu-aarch64, or no aarch64-linux-gnu-gcc with a C library"
        add neon 0 0 0 1
        return
    fi
    if ! make -s -j "$(nproc)" arm64 >"$log" 2>&1; then
        add arm64 1 0 0 0
        return
    fi
    orders=$("$B/tests/test_backend_simd" 2>/dev/null | grep '^orders ')
    run_ahead qemu-aarch64 build/arm64/tests/test_backend{,_attend,_cache,_select,_simd}
    for t in tests/unit/test_backend*.c; do
        run_cmocka "build/arm64/tests/$(basename "$t" .c)" qemu-aarch64
        orders+=" $(grep '^orders ' "$log")"
    done
    echo "$orders" >"$log"
    if grep -q ' by neon: ' "$log" && [ "$(grep -oE ': [0-9a-f]{16}' "$log" | sort -u | wc -l)" -eq 1 ]; then
        add "same orders there and here" 0 1 0 0
    else
        add "same orders there and here" 1 0 1 0
    fi
}

run_programs() { # SOURCE...
    local t programs=()
    for t in "$@"; do programs+=("$B/tests/$(basename "$t" .c)"); done
    run_ahead "" "${programs[@]}"
    for t in "${programs[@]}"; do run_cmocka "$t"; done
}

run_bats() {
    obtain "$1" bats --tap "$1"
    local status=$? skip
    skip=$(count '^ok .*# skip')
    add "$(basename "$1")" $status $(($(count '^ok ') - skip)) "$(count '^not ok ')" "$skip"
}

run_counted() { # a program whose last line is N passed, N failed[, N skipped]
    local name=$1 last
    shift
    "$@" >"$log" 2>&1
    local status=$?
    last=$(tail -n 1 "$log")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        add "$name" $status "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "${BASH_REMATCH[4]:-0}"
    else
        add "$name" 1 0 0 0
    fi
}

run_check() { # one check that prints what is wrong
    make -s "$1" >"$log" 2>&1
    local status=$?
    if [ $status -eq 0 ]; then add "$1" 0 1 0 0; else add "$1" $status 0 1 0; fi
}

python=/usr/bin/python3 # the one that Debian's numpy belongs to
for suite in "$@"; do
    case $suite in
    # One program per source: what an older tree left in the build folder does not count.
    unit) run_programs tests/unit/test_*.c ;;
    threaded) run_programs tests/unit/test_{pool,backend,engine,lm_loop}*.c ;;
    neon) run_neon ;;
    cli)
        if command -v bats >/dev/null; then
            run_ahead "bats --tap" tests/cli/*.bats
            for t in tests/cli/*.bats; do run_bats "$t"; done
        else
            echo "the command line tests need bats: run ./bootstrap"
            failed=$((failed + 1))
        fi
        ;;
    tools)
        for t in traces/tools/selftest.py traces/tools/selftest_prompts.py tests/bench/test_rivals.py tests/capture/test_*.py; do
            run_counted "$t" $python "$t"
        done
        ;;
    emu) run_counted emu tests/emu/run.sh ;;
    audit)
        for t in tests/audit/audit_*.py tests/reference/{selftest,compare,costs}.py; do
            run_counted "$t" $python "$t"
        done
        run_counted tests/vectors $python tests/reference/vectors.py --check
        ;;
    *) run_check "$suite" ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
