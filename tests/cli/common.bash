# SPDX-License-Identifier: Apache-2.0
# What every command line test begins with: the program, the embedded recording, a folder of its own.

bats_require_minimum_version 1.5.0

setup() {
    root=$(realpath "$BATS_TEST_DIRNAME/../..")
    rattn=$(realpath "${RATTN_SIM:-$root/build/rattn-sim}")
    sample=$root/traces/data/smollm2-135m.safetensors
    export rattn sample # for shells of their own: the path of a tree may have any character
    cd "$BATS_TEST_TMPDIR" || return 1
}

json() { # EXPRESSION over d, the parsed JSON on stdin
    python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}

commands() { # the names of all, as help lists them
    "$rattn" help | sed -n 's/^  \([a-z][a-z-]*\)  *[a-z].*/\1/p'
}

fill() { # s.db from two invocations: full and recycled, then recycled with another k
    "$rattn" replay synth:case=integer,P=32,N=8 -p full -p recycled:k=4,stride=4 --repeat 1 -q --db s.db "$@" >first.out
    "$rattn" replay synth:case=integer,P=32,N=8 -p recycled:k=5,stride=4 --repeat 1 -q --db s.db "$@" >second.out
}
