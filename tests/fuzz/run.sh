#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with clang and runs each for FUZZ_SECONDS (30), two side by side; FUZZ_TARGETS
# names fewer. What they learn stays in build/fuzz/corpus, inputs that break a rule go to
# build/fuzz/findings. Last line: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=build/fuzz
clang="clang-14"
read -ra targets <<<"${FUZZ_TARGETS:-trace spelling store results export model import}"
export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=8

build() {
    command -v $clang >/dev/null || { echo "fuzz: $clang and libclang-rt-14-dev are needed: run ./bootstrap" && return 1; }
    make -j"$(nproc)" BUILD=fuzz CC=$clang OPT=-O1 WERROR= SANITIZE=fuzzer-no-link,address,undefined $out/rattn-sim >$out/build.log 2>&1 ||
        { cat $out/build.log && return 1; }
    local cli=() object target
    for object in "$out"/sim/cli/*.o; do
        [[ $object == */main.o ]] || cli+=("$object")
    done
    for target in "${targets[@]}"; do
        # shellcheck disable=SC2046 # a list of flags
        $clang -std=c17 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror -O1 -g \
            -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
            -D_GNU_SOURCE -I. -pthread -o "$out/fuzz_$target" "tests/fuzz/fuzz_$target.c" tests/fuzz/fuzz.c "${cli[@]}" \
            $out/librattn.a $(pkg-config --libs sqlite3 jansson nettle) -lm || return 1
    done
    rm -rf $out/seeds && /usr/bin/python3 -B tests/fuzz/make_seeds.py $out/seeds
}

run() { # TARGET; a large allocation from these small inputs is a finding, as is ten seconds for one
    local dictionary=()
    [ -f "tests/fuzz/$1.dict" ] && dictionary=("-dict=tests/fuzz/$1.dict")
    mkdir -p "$out/corpus/$1" "$out/tmp"
    TMPDIR=$out/tmp "$out/fuzz_$1" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb=256 -print_final_stats=1 "${dictionary[@]}" -artifact_prefix="$out/findings/$1-" \
        "$out/corpus/$1" "$out/seeds/$1" >"$out/$1.log" 2>&1
}

passed=0 failed=0
mkdir -p $out/findings
build || { echo "0 passed, 1 failed, 0 skipped" && exit 1; }
for ((i = 0; i < ${#targets[@]}; i += 2)); do
    pids=()
    for target in "${targets[@]:i:2}"; do
        run "$target" &
        pids+=($!)
    done
    for target in "${targets[@]:i:2}"; do
        wait "${pids[0]}" && found=0 || found=1
        pids=("${pids[@]:1}")
        log=$out/$target.log
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        edges=$(grep -ao 'cov: [0-9]*' "$log" | tail -n 1)
        printf '%-10s %9d executions %6d edges %d findings\n' "$target" "${runs:-0}" "${edges#cov: }" "$found"
        if [ "$found" -eq 0 ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            grep -aE 'rule broken|ERROR|runtime error|^bug:|    #[0-9]+ .* in [a-z_0-9]+ /|written to' "$log"
        fi
    done
done
rm -rf $out/tmp
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
