#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# metrics plan and list metrics --chip: what CUPTI says of chips that are not here, against the same
# library asked by Python. Skipped where CUPTI or, when this was built, its headers are missing.

load common

eval "common_$(declare -f setup)"

setup_file() {
    include=$(dirname "$(command -v nvcc || echo /)")/../include
    [ ! -e "$include/cupti.h" ] || export headers=yes
    cat >"$BATS_FILE_TMPDIR/where.py" <<'END'
import ctypes
ctypes.CDLL("libcupti.so.13")
print(next(l.split()[-1] for l in open("/proc/self/maps") if "libcupti.so" in l))
END
    library=$(python3 "$BATS_FILE_TMPDIR/where.py" 2>/dev/null) || library=
    export library
}

setup() {
    common_setup
    export LSAN_OPTIONS=use_tls=0:print_suppressions=0:suppressions=$root/tests/support/cupti.supp
}

needs_library() {
    [ -n "${headers-}" ] || skip "no cupti.h beside nvcc"
    [ -n "$library" ] || skip "no libcupti.so.13"
}

@test "built without the headers: exit 3, and why" {
    [ -z "${headers-}" ] || skip "built with them"
    for words in "metrics plan --metrics core" "list metrics"; do
        # shellcheck disable=SC2086
        run -3 --separate-stderr "$rattn" $words --chip GH100
        [[ $stderr == *"built without CUPTI headers"* && -z $output ]]
    done
}

@test "a plan, in three formats" {
    needs_library
    run -0 "$rattn" metrics plan --chip GB202 --metrics core,l2_pct
    [[ ${lines[0]} == "GB202, all together: "*" passes" ]]
    [[ $output == *"dram_read_bytes "*" byte "*" dram__bytes_op_read.sum"* ]]
    [[ $output == *"run 1: gpu_time dram_read_bytes "* ]]
    [[ $output == *"run 2: l2_pct (several passes even alone)"* ]]
    "$rattn" metrics plan --chip GH100 --metrics core --format json >core.json
    [ "$(json 'd["chip"], d["passes"], len(d["runs"]), d["run_passes"]' <core.json)" = "('GH100', 1, 1, [1])" ]
    [ "$(json '[m["name"] for m in d["metrics"]] == d["runs"][0]' <core.json)" = True ]
    [ "$(json 'd["metrics"][1]' <core.json)" = \
        "{'name': 'dram_read_bytes', 'cupti_name': 'dram__bytes_read.sum', 'hw_unit': 'byte', 'additive': True}" ]
    "$rattn" metrics plan --chip GH100 --metrics hit,l2_sectors_miss,l2_pct --format csv >plan.csv
    python3 - <<'END'
import csv
rows = list(csv.DictReader(open("plan.csv")))
assert [r["run"] for r in rows] == ["1"] * 7 + ["2", "3"], rows
assert [r["run_passes"] for r in rows[6:]] == ["1", "1", "4"] and rows[8]["additive"] == "false", rows
END
}

@test "each run is one pass, by the library itself" {
    needs_library
    for chip in GA100 GA102 AD102 GH100 GB100 GB202; do
        "$rattn" metrics plan --chip $chip --metrics core,hit,miss,l2_hit_pct,dram_pct --format json >$chip.json
    done
    python3 - ./*.json <<'END'
import ctypes as c, json, sys
cupti = c.CDLL("libcupti.so.13")
def structure(*types):
    class S(c.Structure):
        _fields_ = [("size", c.c_size_t), ("priv", c.c_void_p)] + [(f"f{i}", t) for i, t in enumerate(types)]
    return S
def call(name, *fields):
    s = structure(*(t for t, _ in fields))(0, None, *(v for _, v in fields))
    s.size = c.sizeof(s)
    assert cupti["cuptiProfilerHost" + name](c.byref(s)) == 0, name
    return s
def passes(chip, names):
    p, z = c.c_void_p, c.c_size_t
    host = call("Initialize", (c.c_int, 0), (c.c_char_p, chip.encode()), (p, None), (p, None)).f3
    texts = (c.c_char_p * len(names))(*(n.encode() for n in names))
    call("ConfigAddMetrics", (p, host), (p, c.cast(texts, p).value), (z, len(names)))
    n = call("GetConfigImageSize", (p, host), (z, 0)).f1
    image = c.create_string_buffer(n)
    call("GetConfigImage", (p, host), (z, n), (p, c.cast(image, p).value))
    return call("GetNumOfPasses", (z, n), (p, c.cast(image, p).value), (z, 0)).f2
for path in sys.argv[1:]:
    d = json.load(open(path))
    name = {m["name"]: m["cupti_name"] for m in d["metrics"]}
    runs = [[name[n] for n in run] for run in d["runs"]]
    assert sorted(sum(runs, [])) == sorted(name.values())
    assert passes(d["chip"], list(name.values())) == d["passes"] > 1, d
    assert [passes(d["chip"], run) for run in runs] == d["run_passes"], d
    assert [n for n, run in zip(d["run_passes"], d["runs"]) if run != ["l2_hit_pct"]] == [1] * (len(runs) - 1), d
END
}

@test "the counters of a chip; what it lacks is a dash, and null" {
    needs_library
    run -0 "$rattn" list metrics --chip GB202
    [[ $output == *"l2_device_miss "*" -  sectors   -           -"* ]]
    [[ $output == *"l2_hit_pct "*" 2  "*" percent "*" lts__t_sector_hit_rate.pct"* ]]
    "$rattn" list metrics --chip GB202 --format json >gb.json
    "$rattn" list metrics --format json >metrics.json
    python3 - <<'END'
import json
rows = {r["name"]: r for r in json.load(open("gb.json"))}
metrics = {m["name"]: m for m in json.load(open("metrics.json"))}
assert all(r["unit"] == metrics[n]["unit"] and metrics[n]["tag"].startswith("gpu/") for n, r in rows.items())
lacking = rows["l2_device_miss"]
assert all(lacking[k] is None for k in ("cupti_name", "hw_unit", "passes", "additive", "description")), lacking
assert rows["dram_read_bytes"]["cupti_name"] == "dram__bytes_op_read.sum"
assert rows["dram_pct"]["additive"] is False and rows["dram_bytes"]["additive"] is True
END
    run -0 "$rattn" list metrics --chip GA10B
    [[ $output == *"dram_bytes "*" -  bytes     -           -"* ]]
    [ "$("$rattn" list metrics --chip GH100 --format csv | wc -l)" -gt 30 ]
}

@test "what is unknown is named, with what is nearest" {
    needs_library
    run -2 --separate-stderr "$rattn" metrics plan --chip h100 --metrics core
    [[ $stderr == *"'h100'"*"(46); nearest: GH100"* ]]
    run -2 --separate-stderr "$rattn" list metrics --chip H100
    [[ $stderr == *"nearest: GH100"* && -z $output ]]
    run -2 --separate-stderr "$rattn" metrics plan --chip GH100 --metrics core,dram_raed_bytes
    [[ $stderr == *"nearest is 'dram_read_bytes'"* ]]
    run -2 --separate-stderr "$rattn" metrics plan --chip GH100 --metrics dram__byte_read.sum
    [[ $stderr == *"(17); nearest is 'dram__bytes_read.sum'"* ]]
    run -3 --separate-stderr "$rattn" metrics plan --chip GB202 --metrics l2_device_miss
    [[ $stderr == *"'GB202' has no l2_device_miss"* ]]
    run -3 --separate-stderr "$rattn" list metrics --chip GV11B
    [[ $stderr == *"(27)"* ]]
}

@test "words that make no sense are usage errors" {
    run -2 --separate-stderr "$rattn" metrics
    run -2 --separate-stderr "$rattn" metrics plna --chip GH100 --metrics core
    [[ $stderr == *"'plna'"*"'plan'"* ]]
    run -2 --separate-stderr "$rattn" metrics plan --metrics core
    [[ $stderr == *"--chip"* ]]
    run -2 --separate-stderr "$rattn" metrics plan --chip GH100
    [[ $stderr == *"--metrics"* ]]
    run -2 --separate-stderr "$rattn" list policies --chip GH100
    [[ $stderr == *"'list metrics'"* ]]
}

@test "a library that is none, and one without its other half: exit 3, and which" {
    needs_library
    gcc -shared -o libcupti.so.13 -x c - <<<'int nothing;'
    for words in "metrics plan --metrics core" "list metrics"; do
        # shellcheck disable=SC2086
        LD_LIBRARY_PATH=$PWD run -3 --separate-stderr "$rattn" $words --chip GH100
        [[ $stderr == *"libcupti.so.13 has no cupti"* && -z $output ]]
    done
    rm libcupti.so.13
    ln -s "$library" libcupti.so.13
    : >libnvperf_host.so # found first, and not loadable
    for words in "metrics plan --metrics core" "list metrics"; do
        # shellcheck disable=SC2086
        LD_LIBRARY_PATH=$PWD run -3 --separate-stderr "$rattn" $words --chip GH100
        [[ $stderr == *"libnvperf_host.so not found beside libcupti"* && -z $output ]]
    done
}
