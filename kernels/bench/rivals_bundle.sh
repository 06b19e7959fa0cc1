#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fills build/gpu/wheels/site with as much of FlashInfer as rivals.py needs: the Python sources, the
# headers and sources of decode attention, tvm-ffi, and, where nvcc is found, the compiled modules
# for sm_90. For Python 3.12 on x86-64, about 25 MB. Nothing of it is tracked.
#
# Cut from FlashInfer: all but decode in __init__.py, other kernels' sources, CUTLASS, and the mask
# modes that decode never asks for (three quarters of the compile time of its tensor core kernels).
# usage: kernels/bench/rivals_bundle.sh [--no-compile]
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=build/gpu/wheels
site=$wheels/site
tools=build/gpu/tools # what only the compiling needs

platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
done
mkdir -p build/gpu/download
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" -d build/gpu/download \
    flashinfer-python==0.6.4 apache-tvm-ffi==0.1.15.post2

rm -rf "$wheels"
mkdir -p "$site"
for wheel in build/gpu/download/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
rm -rf "$site"/flashinfer/data/{cutlass,spdlog} "$site"/{,flashinfer/data/}build_*.py
find "$site/flashinfer/data/csrc" -mindepth 1 -maxdepth 1 -type d -exec rm -r {} +
cat >"$site/flashinfer/__init__.py" <<'END'
from .version import __version__
from .decode import BatchDecodeWithPagedKVCacheWrapper, single_decode_with_kv_cache
END
sed -i 's/for mask_mode in \[0, 1, 2, 3\]:/for mask_mode in [0]:/' \
    "$site/flashinfer/jit/attention/modules.py"
# Drops the cases of the other modes from the macro that chooses by mode.
others='Causal\|Custom\|MultiItemScoring'
sed -i "/#define DISPATCH_MASK_MODE/,/^  }\$/ { /case MaskMode::k\($others\)/,/^    } /d }" \
    "$site/flashinfer/data/include/flashinfer/utils.cuh"

if [ "${1-}" != --no-compile ] && command -v nvcc >/dev/null; then
    python3 -m pip install -q --target "$tools" --upgrade jinja2 filelock packaging nvidia-ml-py
    PYTHONPATH=$tools python3 kernels/bench/rivals_compile.py "$site" build/gpu/flashinfer
fi
du -sh "$wheels"
