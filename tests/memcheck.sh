#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The program under valgrind, in portable C: a replay with everything it can write, its report and
# export, a look at a trace, a story. usage: B=BUILD_FOLDER tests/memcheck.sh TRACE
set -eu
dir=$B/memcheck
rm -rf "$dir" && mkdir -p "$dir"
export TMPDIR="$dir" RATTN_SIMD=portable

run() {
    valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
        "$B/rattn-sim" "$@" >/dev/null
}

run replay synth:case=needle,P=64,N=16 -p full -p recycled:k=16,stride=4 -p oracle:k=8 \
    -p streaming:k=16 -j 2 --repeat 1 -q --db "$dir/m.db" --export "$dir/x" --format csv
run report "$dir/m.db" --format json
run report "$dir/m.db" -o "$dir/m.html"
run export "$dir/m.db" --run 2 --as perfetto -q
run export "$dir/m.db" --run 2 --as nsys -q -o "$dir/n.sqlite"
run info "$1"
run explain "$1" -p recycled:k=256,stride=16 --steps 0..1
