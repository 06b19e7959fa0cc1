#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The product profiled on a card: the embedded recording, and a trace of Llama-3.1-8B's shape at 32K fitted
# to it (ten seconds of one processor), through all passes; then profile.py holds kernel times to the
# card's events and bytes to those predicted. Leaves $OUT/profile.db and profile.json. Status 3: no
# counters here, or no CUPTI. DRY=1: the emulation and the double of CUPTI, of the build folder $B, at
# sizes that tell nothing.
set -u
cd "$(dirname "$0")/../.." || exit 1
OUT=${OUT:-build/gpu/out}
B=${B:-build/release}
program=build/gpu/rattn-sim python=python3
recording=traces/data/smollm2-135m.safetensors
sample=("$recording" --steps 0..63)
long=("synth:like=$recording,Hq=32,Hkv=8,D=128,L=32768,N=24,layers=2,dtype=bf16" --tile-layers 4)
recycled="recycled:k=2048,stride=10"
if [ -n "${DRY:-}" ]; then
    program=$B/emu/rattn-sim python=/usr/bin/python3
    sample=("$recording" --layers 9 --steps 0..3)
    long=("synth:like=$recording,Hq=4,Hkv=2,L=256,N=4,layers=2")
    recycled="recycled:k=64,stride=2"
    [ -e "$B/fake_cupti/libcupti.so.13" ] || { echo "no double of CUPTI: its headers are not here"; exit 3; }
    export LD_LIBRARY_PATH=$B/fake_cupti
fi
[ -x "$program" ] || { echo "no $program: not packed"; exit 3; }
mkdir -p "$OUT" && rm -f "$OUT"/profile.db*

what=all # who may not count (5) may time
profile() { # TRACE AND OPTIONS of replay
    local status
    "$program" replay "$@" --backend cuda --repeat 3 -q --db "$OUT/profile.db" --profile "$what" >/dev/null
    status=$?
    if [ "$status" -eq 5 ] && [ "$what" = all ]; then
        what=timing
        profile "$@"
        status=$?
    fi
    return "$status"
}

profile "${sample[@]}" -p full -p "recycled:k=256,stride=16" || exit
profile "${long[@]}" -p full -p "$recycled" || exit
$python tests/gpu/profile.py "$OUT/profile.db" "$OUT/profile.json"
