#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh PYTHON FOLDER...: the torch tools' tests on the torch of PYTHON, with its transformers and with
# those in each folder. Last line: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1
python=$1
shift
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One thread: threads that wait for each other on a busy machine take minutes over tiny models.
export RATTN_SIM=$PWD/build/rattn-sim OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

try() { # NAME FOLDER SCRIPT OPTION...
    local name=$1 last
    PYTHONPATH=$2 "$python" "${@:3}" >"$log" 2>&1
    local status=$?
    last=$(tail -n 1 "$log")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + ${BASH_REMATCH[4]:-0}))
        [ "$status" -eq 0 ] || grep -v '^ok' "$log"
    else
        failed=$((failed + 1))
        cat "$log"
    fi
    grep -E '^skip|the reference decoder|SmolLM2' "$log"
    echo "$name: $last"
}

for script in test_policies test_decode real_capture; do
    try "$script" "" "tests/capture/$script.py"
done
for folder; do
    for script in "test_decode.py --no-smollm2" "real_capture.py --no-smollm2"; do
        # shellcheck disable=SC2086 # a script and its option
        try "${script%% *} with ${folder##*/}" "$PWD/$folder" tests/capture/$script
    done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
