# SPDX-License-Identifier: Apache-2.0
# Include direction: a file may include only from columns to its left. Within columns 0 and 1 it may
# also include what is listed before it; elsewhere neighbours of one cell never include each other,
# while parts of one noun (its own folder or name) do. The table is the contract; nothing else is.
BEGIN {
    # column : path pattern, in order; the first that matches a file is its cell
    add(0, "sim/base/error"); add(0, "sim/base/half"); add(0, "sim/base/hash"); add(0, "sim/base/pool")
    add(0, "sim/base/cache"); add(0, "sim/base/wide"); add(0, "sim/base/exp"); add(0, "sim/base/kth")
    add(0, "sim/base/rng"); add(0, "sim/base/stats"); add(0, "sim/base/text"); add(0, "sim/base/params")
    add(0, "sim/base/json_memory")
    add(1, "sim/model"); add(1, "sim/kvset"); add(1, "sim/step"); add(1, "sim/rope"); add(1, "sim/select")
    add(1, "sim/transform")
    add(1, "sim/reference"); add(1, "sim/pages"); add(1, "sim/scores"); add(1, "sim/quality"); add(1, "sim/traffic")
    add(3, "traces/model/")
    add(2, "traces/"); add(2, "kernels/"); add(2, "profiler/"); add(2, "sim/policy")
    add(3, "sim/engine"); add(3, "sim/verify")
    add(4, "sim/sweep"); add(4, "sim/report"); add(4, "sim/eval"); add(4, "sim/speculate")
    add(5, "sim/cli/")
}
function add(column, pattern) { n++; col[n] = column; pat[n] = pattern }
function cell(path,    i) {
    for (i = 1; i <= n; i++) if (index(path, pat[i]) == 1) return i
    return 0
}
/^#include "/ {
    split($0, part, "\"")
    target = part[2]
    if (target == "schema_sql.h" || target == "plots_text.h" || target == "report_text.h" || target == "completion_bash.h") next
    a = cell(FILENAME); b = cell(target)
    if (!a || !b) bad("not in the table")
    else if (a == b) next
    else if (col[b] < col[a]) next
    else if (col[a] == col[b] && col[a] <= 1 && b < a) next
    else bad("column " col[a] " may not include column " col[b])
}
function bad(why) { printf "%s:%d: includes %s: %s\n", FILENAME, FNR, target, why; failed = 1 }
END { exit failed }
