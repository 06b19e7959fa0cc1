#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each header must compile alone, as C17 and as C++17: a hidden include is a bug of the header.
status=0
source=$(mktemp)
trap 'rm -f "$source"' EXIT
# ISO C has no empty source, which a header of macros alone would leave.
echo 'extern int header_compiles;' >"$source"
flags="-I. $(pkg-config --cflags nettle jansson sqlite3)"
for header in "$@"; do
    # shellcheck disable=SC2086
    gcc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Werror $flags -fsyntax-only -include "$header" -x c "$source" || status=1
    # shellcheck disable=SC2086
    g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror $flags -fsyntax-only -include "$header" -x c++ /dev/null || status=1
done
exit $status
