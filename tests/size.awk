# SPDX-License-Identifier: Apache-2.0
# Limits of length, parameters and nesting: hard limits fail. Exceptions stand here, each with its
# reason. Formatting is checked elsewhere, so indentation tells depth: four columns a level.
function limit(path) {
    if (path == "Makefile") return 250
    if (path == "sim/policy/recycled.c") return 310 # one rule, ten options that meet in it
    if (path ~ /^sim\/policy\/(tidal|triforce)\.c$/) return 250 # two kinds of layer, or of step
    if (path ~ /^sim\/policy\//) return 200
    if (path ~ /\.h$/) return 250
    if (path ~ /\.cu$/) return 600
    return 500
}
FNR == 1 { if (file) check(); file = FILENAME; start = 0 }
{ lines = FNR }
# A function body starts at a line that is just "{" and ends at the next line that is just "}".
FILENAME ~ /\.(c|inc)$/ && /^\{$/ { start = FNR }
FILENAME ~ /\.(c|inc)$/ && /^\}$/ {
    if (start && FNR - start - 1 > 80) { printf "%s:%d: function of %d lines, limit 80\n", FILENAME, start, FNR - start - 1; failed = 1 }
    start = 0
}
# A declaration or definition starts in column 1 and runs to its closing bracket.
FILENAME ~ /\.[ch]$/ && /^[a-zA-Z_].*\(/ && !/^(typedef|#)/ && !/=/ { head = ""; open_head = 1; head_line = FNR }
open_head {
    head = head $0
    if (/[;{]$/ || /\)$/) { open_head = 0; count_parameters(head) }
}
# A statement of control at depth d stands at column 4 * d; the fifth is one too many. Tests walk
# tables of options in as many loops as there are options.
FILENAME ~ /\.c$/ && FILENAME !~ /^tests\// && start && /^ +(if|for|while|switch|do)[ ({]/ && match($0, /^ +/) && RLENGTH >= 20 {
    printf "%s:%d: nested %d deep, limit 4\n", FILENAME, FNR, RLENGTH / 4; failed = 1
}
function count_parameters(text,    n) {
    sub(/^[^(]*\(/, "", text)
    if (text ~ /\(\*/ || text ~ /^\(/) return # pointers to functions and attributes: not counted
    n = gsub(/,/, ",", text) + 1
    # A shape on one line keeps tables of cases readable.
    if (text ~ /int Hkv, int G, int D, int Dv/) return
    if (n > 7) { printf "%s:%d: %d parameters, limit 7\n", FILENAME, head_line, n; failed = 1 }
}
function check() {
    if (lines > limit(file)) { printf "%s: %d lines, limit %d\n", file, lines, limit(file); failed = 1 }
}
END { check(); exit failed }
