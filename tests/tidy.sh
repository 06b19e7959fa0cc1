#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy and cppcheck over host code: tidy.sh GENERATED_HEADERS FILE...
generated=$1
shift
status=0
# The version strings are any string constant here, spelled without quotes for the shells between.
flags="-std=c17 -D_GNU_SOURCE -DRA_VERSION=__FILE__ -DRA_CUDA_TOOLKIT=__FILE__ -I. -I$generated"
export flags
# shellcheck disable=SC2016 # the inner shell expands
printf '%s\0' "$@" | xargs -0 -n 4 -P 2 sh -c '
    # shellcheck disable=SC2086
    clang-tidy-14 --quiet "$@" -- $flags 2>/dev/null' sh || status=1
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
    --suppress=missingIncludeSystem --error-exitcode=1 -j 2 -I. "$@" || status=1
exit $status
