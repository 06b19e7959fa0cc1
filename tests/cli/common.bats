#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What all commands share: help, version, hints for mistakes, exit codes, a full disk on stdout.

load common

commands="explain info replay speculate compare report list metrics doctor"

@test "without a command, and with help or -h, the commands are listed" {
    for words in "" help -h --help; do
        # shellcheck disable=SC2086
        run -0 "$rattn" $words
        [[ ${lines[0]} == "usage: rattn-sim COMMAND"* ]]
        for command in $commands; do [[ $output == *"  $command "* ]]; done
    done
}

@test "each command's -h and --help start with usage and fit 80 columns" {
    for command in $commands; do
        for words in "$command -h" "$command --help" "help $command"; do
            # shellcheck disable=SC2086
            run -0 --separate-stderr "$rattn" $words
            [[ ${lines[0]} == "usage: rattn-sim $command"* ]]
            [ -z "$stderr" ]
            [ -z "$(echo "$output" | awk 'length > 80')" ]
        done
    done
}

@test "each command refuses an unknown option, with a hint" {
    for command in $commands; do
        run -2 --separate-stderr "$rattn" $command --formta json
        [[ ${stderr_lines[0]} == "rattn-sim: $command: unknown option '--formta'; nearest is '--format'" ]]
        [[ ${stderr_lines[1]} == *"rattn-sim $command -h"* ]]
        [ -z "$output" ]
        run -2 --separate-stderr "$rattn" $command --banana
        [[ ${stderr_lines[0]} == "rattn-sim: $command: unknown option '--banana'" ]]
        run -2 --separate-stderr "$rattn" $command -Z
        [[ $stderr == *"'-Z'"* ]]
    done
}

@test "an unknown command names the nearest" {
    run -2 --separate-stderr "$rattn" repaly
    [[ $stderr == "rattn-sim: unknown command 'repaly'; nearest is 'replay'" ]]
    run -2 --separate-stderr "$rattn" help repaly
    [[ $stderr == *"'replay'"* ]]
    run -2 --separate-stderr "$rattn" ""
    run -2 --separate-stderr "$rattn" --replay
    [[ $stderr == *"nearest is 'replay'"* ]]
    run -2 --separate-stderr "$rattn" frobnicate
    [[ $stderr == "rattn-sim: unknown command 'frobnicate'; 'rattn-sim help' lists them" ]]
}

@test "commands of later versions exit 3 and name the part" {
    for command in sweep recommend cost calibrate; do
        run -3 --separate-stderr "$rattn" $command --whatever
        [[ $stderr == "rattn-sim: $command: "*": not in this version" ]]
    done
}

@test "the version is one line, everywhere the same" {
    run -0 "$rattn" --version
    [[ $output =~ ^rattn-sim\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
    for command in $commands; do
        [ "$("$rattn" $command --version)" = "$output" ]
    done
}

@test "results that do not fit the disk are a failure, help too" {
    for words in -h "list -h" "list policies" "list policies --format json" doctor explain \
        "info synth:case=flat" "explain --format json" --version; do
        # shellcheck disable=SC2086
        run -1 --separate-stderr sh -c "\"\$rattn\" $words >/dev/full"
        [[ $stderr == "rattn-sim: standard output: No space left on device" ]]
    done
}

@test "a closed stdout is a failure" {
    run -1 --separate-stderr sh -c "\"\$rattn\" list policies >&-"
    [[ $stderr == *"standard output"* ]]
}

@test "with a stdout closed, no file that is opened takes its place" {
    # the number is taken, by something that cannot be written and is no trace
    run -1 --separate-stderr sh -c "\"\$rattn\" info /proc/self/fd/1 >&-"
    [[ $stderr == *"/proc/self/fd/1"* && $stderr != *"No such file"* ]]
    run -1 --separate-stderr sh -c "\"\$rattn\" replay synth:case=integer,P=32,N=8 -p full --repeat 1 -q --db s.db >&-"
    [[ $stderr == *"standard output"* ]]
    [ "$(sqlite3 s.db 'pragma integrity_check')" = ok ]
}

@test "a file that may not grow is an error, not a signal" {
    run -1 --separate-stderr sh -c "ulimit -f 8; \"\$rattn\" replay synth:case=flat,P=512,N=64 -p full --repeat 1 -q --export e.safetensors"
    [[ $stderr == "rattn-sim: "* ]]
    [ ! -e e.safetensors ]
}

@test "control bytes of an argument do not reach the terminal" {
    run -2 --separate-stderr "$rattn" $'rep\x1b[2Jlay'
    [[ $stderr != *$'\x1b'* ]]
    run -1 --separate-stderr "$rattn" info $'no\x1b[2Jfile'
    [[ $stderr != *$'\x1b'* ]]
}
