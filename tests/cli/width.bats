#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What people read fits 80 columns, on a terminal and elsewhere. Only a word that has no place to
# break, such as a long path, may stand out.

load common

# Run the program on a terminal of 80 columns; both streams in the file `screen`, lines as shown.
on_terminal() {
    printf '%q ' "$rattn" "$@" >words
    script -qec "stty cols 80 rows 24; $(cat words)" /dev/null </dev/null |
        tr '\r' '\n' | sed 's/\x1b\[K//g' >screen
    [ -s screen ]
}

fits() { # ARGUMENTS: all that is shown
    on_terminal "$@"
    if grep -nE '^.{81}' screen; then
        echo "rattn-sim $*"
        return 1
    fi
}

setup_file() {
    command -v script >/dev/null || skip "needs script"
}

long=recycled:k=1/8,k@9=300,stride=8,sim=0.85,pool=1,agg=first,current=snapkv,evict=raw,attend=after,query=post

@test "help, lists and doctor fit" {
    fits help
    for command in $(commands); do
        fits "$command" -h
        fits "$command" --banana
    done
    for what in policies backends devices figures; do
        fits list $what
        fits list $what -v
    done
    fits doctor
}

@test "a trace's description fits, synthetic and verified too" {
    ln -s "$sample" trace.safetensors
    fits info trace.safetensors -v --verify
    fits info synth:like=trace.safetensors,L=64,N=4
    fits info synth:like=trace.safetensors,L=64,N=4,Hq=32,Hkv=8,D=128,dtype=bf16
    fits info synth:case=needle,P=64,N=8 -v
}

@test "tables of long spellings, and what a store says of them, fit" {
    ln -s "$sample" t
    replay=(replay t --layers 9,19 --steps 0..15 --repeat 1)
    fits "${replay[@]}" -p full -p $long -p streaming:k=8,sinks=2,stride=4 --db s.db
    fits "${replay[@]}" -p $long --dry-run
    fits report s.db
    fits list runs s.db -v
    fits compare s.db --run 1 --run 2
    fits compare s.db --run 1 --run 1
    if command -v gnuplot >/dev/null; then fits plot s.db -o f; fi
}

@test "a story fits, of words, of many words and of a recording" {
    ln -s "$sample" t
    fits explain -v
    fits explain -p recycled:k=3,stride=3,sim=0.85,pool=1,agg=first,current=snapkv,evict=raw,attend=after
    fits explain -p streaming:k=6,sinks=2 --text "a very long text of many words, each of which is rather longer than what one would have expected of it, unfortunately"
    fits explain t -p $long --layer 9 --head 1 --steps 0..8
    fits explain t -p oracle:k=64 --layer 9 --steps 0..1 -v
}

@test "everyday mistakes fit" {
    ln -s "$sample" t
    for words in "replay" "replay x -p full" "replay t -p foo" "replay t -p recycled:k=3" "replay t -p streaming:k=3" \
        "replay t -p full --steps 3..900" "replay t -p full --layers 77" "replay t -p full --format xml" \
        "replay t -p full --backend cuda" "replay t -p full --backend gpu" "replay t -p full --repeat 0" \
        "replay t -p full --keep-sets 1.0" "info none" "compare s.db --run 1" "report none.db" "explain --layer 3" \
        "explain -p recycled" "sweep" "frobnicate" "repaly"; do
        # shellcheck disable=SC2086
        fits $words
    done
}
