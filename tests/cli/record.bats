#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# record: tiny models of every family, each tensor against the reference decoder in numpy.

load common

setup_file() {
    export TINY=$BATS_FILE_TMPDIR
    /usr/bin/python3 "$BATS_TEST_DIRNAME/../../traces/tools/tiny_models.py" "$TINY"
}

# All but mistral-window, of which no trace can be made: every layer slides.
families="llama llama-linear llama-llama3 llama-v5 mistral qwen2 qwen2-shards qwen3 gemma3 gemma3-v5 gemma3-nested"

needs_record() {
    "$rattn" record -h >/dev/null 2>&1 || skip "record is not built in yet"
}

prove() { # MODEL OPTION...
    echo "== $*"
    /usr/bin/python3 "$root/traces/tools/check_record.py" "$TINY/$1" "$TINY/$1.ids.safetensors" --program "$rattn" "${@:2}"
}

record() { # MODEL OPTION...
    "$rattn" record "$TINY/$1" --tokens "$TINY/$1.ids.safetensors" "${@:2}"
}

@test "every family in f32: all tensors as the reference has them" {
    needs_record
    for model in $families; do prove "$model" --dtype f32; done
}

@test "every family in f16, what is stored by default" {
    needs_record
    for model in $families; do prove "$model"; done
}

@test "every family in bf16" {
    needs_record
    for model in $families; do prove "$model" --dtype bf16; done
}

@test "every family greedily: each token is the likeliest" {
    needs_record
    for model in $families; do prove "$model" --mode greedy -n 20; done
    prove gemma3 --mode greedy --dtype f32
    prove qwen2-shards --mode greedy --dtype bf16
}

@test "a prompt of one token, and prompts shorter than the window" {
    needs_record
    for model in llama gemma3 qwen3; do prove "$model" -P 1 -n 1; done
    prove gemma3 -P 5 -n 30 --dtype f32 # the window, 20, fills while it decodes
    prove gemma3 -P 19 -n 3
    prove gemma3 -P 20 -n 3
    prove gemma3-nested -P 21 -n 5 # the window, 40, never fills
}

@test "prompts longer than a chunk of the prefill" {
    needs_record
    for model in gemma3 llama-llama3 qwen2-shards; do
        prove "$model" -P 530 -n 6 --dtype f32
        prove "$model" -P 530 -n 6 --q-tail 530
    done
    for P in 255 256 257 512 513; do prove gemma3-v5 -P $P -n 3 --dtype f32; done
}

@test "few queries of the prompt, and as many as there are" {
    needs_record
    for W in 1 7 39 40; do
        prove gemma3-v5 --q-tail $W --dtype f32
        prove qwen2 --q-tail $W
    done
}

@test "some layers only, other check steps, more and fewer of the likeliest ids" {
    needs_record
    prove gemma3 --layers 2 --dtype f32
    prove gemma3 --layers 1,2
    prove qwen2-shards --layers 0,2 --check-steps 0,3,11
    prove llama --check-steps 0 --top-k 0
    prove llama --check-steps 1 --top-k 1
    prove llama --check-steps 5, --top-k 97 # all there are
    prove llama --check-steps 1000 -n 5
}

@test "a schedule that leaves nothing out is full attention" {
    needs_record
    for model in llama gemma3 qwen2-shards; do
        prove "$model" -P 40 -n 12 -p recycled:k=51,stride=4 # K = P + N - 1
        record "$model" -n 12 --prompt-len 40 --dtype f32 -o full >/dev/null
        record "$model" -n 12 --prompt-len 40 --dtype f32 -o all -p recycled:k=51,stride=4 >/dev/null
        /usr/bin/python3 - "$root" <<'PY'
import sys
sys.path.insert(0, sys.argv[1] + "/traces/tools")
sys.dont_write_bytecode = True
import numpy as np, safetensors_io
full, all = safetensors_io.Reader("full"), safetensors_io.Reader("all")
assert set(full.names()) == set(all.names())
for name in full.names():
    a, b = full.raw(name).astype(float), all.raw(name).astype(float)
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max(), (name, np.abs(a - b).max())
PY
    done
}

@test "under a schedule the model decodes on what the schedule left it" {
    needs_record
    for model in llama gemma3 qwen2 qwen3 mistral; do
        prove "$model" -n 20 -p recycled:k=4,stride=4
        prove "$model" -n 20 -p recycled:k=9,stride=5 --dtype f32
        prove "$model" -n 20 -p streaming:k=8
    done
    prove qwen2-shards -n 20 -p recycled:k=4,stride=4 --mode greedy
    record qwen2 -n 20 --prompt-len 40 -o full >/dev/null
    record qwen2 -n 20 --prompt-len 40 -o few -p recycled:k=4,stride=4 >/dev/null
    ! cmp -s full few
}

@test "the same command writes the same bytes" {
    needs_record
    record gemma3 -n 8 --prompt-len 300 -o a >/dev/null
    record gemma3 -n 8 --prompt-len 300 -o b >/dev/null
    cmp a b
}

@test "the check fails where the recorder has another model" {
    needs_record
    for change in '"rope_theta": 500.0/"rope_theta": 501.0' '"rms_norm_eps": 1e-05/"rms_norm_eps": 0.001'; do
        rm -rf other && cp -r "$TINY/llama" other
        sed -i "s/$change/" other/config.json
        ! cmp -s other/config.json "$TINY/llama/config.json"
        # shellcheck disable=SC2016 # the script's own variables
        printf '#!/bin/sh\n[ "$1" = record ] && { shift 2; set -- record "%s" "$@"; }\nexec "%s" "$@"\n' \
            "$PWD/other" "$rattn" >program
        chmod +x program
        run -1 /usr/bin/python3 "$root/traces/tools/check_record.py" "$TINY/llama" "$TINY/llama.ids.safetensors" \
            --program ./program --dtype f32
        [[ $output == *"FAIL  s0.l1.q"* && $output == *"FAIL  s0.logprob"* ]]
    done
}

@test "no trace of window layers alone, and no file left of what is refused" {
    needs_record
    for options in "mistral-window -n 4" "gemma3 -n 4 --layers 0,1" "gemma3 -n 4 --layers 4" "llama -n 4 --prompt-len 996" \
        "llama -n 1000" "llama -n 4 --check-steps 0,4" "llama -n 4 -p nonsense"; do
        # shellcheck disable=SC2086 # a list of words
        run record $options -o refused
        echo "$options: $status: $output"
        [ "$status" -eq 1 ] || [ "$status" -eq 2 ]
        [ -n "$output" ]
    done
    run -2 record mistral-window -n 4 -o refused
    [[ $output == *"full attention"* ]]
    run ls
    [ -z "$output" ]
}

@test "ids of another tokenizer, and ids beyond the vocabulary" {
    needs_record
    /usr/bin/python3 - "$root" <<'PY'
import sys
sys.path.insert(0, sys.argv[1] + "/traces/tools")
sys.dont_write_bytecode = True
import numpy as np, safetensors_io
metadata = {"format": "rattn-tokens", "version": "1.0", "tokenizer.sha256": "0" * 64}
ids = np.arange(60, dtype=np.int32)
safetensors_io.write("other", [("tokens", "I32", ids)], metadata)
del metadata["tokenizer.sha256"]
for name, bad in ("above", 97), ("below", -1):
    ids[7] = bad
    safetensors_io.write(name, [("tokens", "I32", ids)], metadata)
PY
    run -2 "$rattn" record "$TINY/llama" --tokens other -n 4 -o refused
    [[ $output == *tokenizer* ]]
    for ids in above below; do
        run ! "$rattn" record "$TINY/qwen2" --tokens $ids -n 4 -o refused
        [[ $output == *"$ids"*tokens*7* ]]
    done
    [ ! -e refused ]
}
