#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Every hostile file of tests/corpus through the program: a sentence and the stated exit code, never
# a signal, never a hang.

load common

setup_file() {
    export CORPUS=$BATS_FILE_TMPDIR/corpus
    mkdir "$CORPUS"
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../corpus/make_corpus.py" "$CORPUS"
}

@test "info over the whole corpus" {
    wrong=0
    while IFS=$'\t' read -r file command code _ message; do
        case $file in '' | '#'* | file) continue ;; esac
        read -ra words <<<"$command"
        got=0
        out=$(timeout 20 "$rattn" "${words[@]}" "$CORPUS/$file" 2>&1 </dev/null) || got=$?
        if [ "$got" != "$code" ] || { [ "$code" != 0 ] && [[ $out != *"$message"* ]]; }; then
            echo "$file: exit $got, expected $code; '$message' in: $out"
            wrong=$((wrong + 1))
        fi
    done <"$BATS_TEST_DIRNAME/../corpus/EXPECTED.tsv"
    [ "$wrong" -eq 0 ]
}

@test "replay refuses what info refuses" {
    for file in $(awk -F '\t' '$2 == "info" && $3 == 1 && NR % 9 == 0 { print $1 }' \
        "$BATS_TEST_DIRNAME/../corpus/EXPECTED.tsv"); do
        run timeout 20 "$rattn" replay "$CORPUS/$file" -p full -q
        [ "$status" -eq 1 ] || { echo "$file: $status: $output"; false; }
    done
}
