# SPDX-License-Identifier: Apache-2.0
# Limits of length: hard limits fail. Exceptions stand here, each with its reason.
function limit(path) {
    if (path == "Makefile") return 250
    if (path == "sim/policy/recycled.c") return 310 # one rule, ten options that meet in it
    if (path ~ /^sim\/policy\//) return 200
    if (path ~ /\.h$/) return 250
    if (path ~ /\.cu$/) return 600
    return 500
}
FNR == 1 { if (file) check(); file = FILENAME; start = 0 }
{ lines = FNR }
# A function body starts at a line that is just "{" and ends at the next line that is just "}".
FILENAME ~ /\.c$/ && /^\{$/ { start = FNR }
FILENAME ~ /\.c$/ && /^\}$/ {
    if (start && FNR - start - 1 > 80) { printf "%s:%d: function of %d lines, limit 80\n", FILENAME, start, FNR - start - 1; failed = 1 }
    start = 0
}
function check() {
    if (lines > limit(file)) { printf "%s: %d lines, limit %d\n", file, lines, limit(file); failed = 1 }
}
END { check(); exit failed }
