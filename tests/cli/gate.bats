#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The gate to CUPTI: nine checks in their order, each with a sentence for what it finds and a way to
# mend it; what may crash is tried in another process. The libraries are doubles, found by their names.

load common

need_fake() {
    fake=$(dirname "$rattn")/fake_cupti
    [ -e "$fake/libcupti.so.13" ] || skip "no headers of CUPTI"
}

# CHECK: state, what was found, fix. Settings stand before the call.
finding() {
    LD_LIBRARY_PATH=$fake "$rattn" doctor --format json | python3 -c '
import json, sys
rows = json.load(sys.stdin)
names = [r["check"] for r in rows]
row = rows[names.index(sys.argv[1])]
print(row["state"], "|", row["found"], "|", row["fix"])
if row["state"] == "missing":
    rest = rows[names.index(sys.argv[1]) + 1 : names.index("GPU counters") + 1]
    assert all(r["state"] == "untried" for r in rest), rest' "$1"
}

@test "all nine hold on a card that counts" {
    need_fake
    LD_LIBRARY_PATH=$fake run -0 "$rattn" doctor --format json
    [ "$(json '[r["state"] for r in d if r["check"] in ("libcuda.so.1", "driver start", "NVIDIA device", "libcupti.so.13",
        "libnvperf_host", "CUPTI profiler", "device counts", "chip metrics", "GPU counters")]' <<<"$output")" = "['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok']" ]
    [[ $(finding "chip metrics") == "ok | GH100 |"* ]]
}

@test "the driver: its stub, no device, another release" {
    need_fake
    [[ $(RA_FAKE_CUINIT=34 finding "driver start") == "missing | libcuda.so.1 is the toolkit's stub, expected the driver's | take"* ]]
    [[ $(RA_FAKE_CUINIT=100 finding "driver start") == "missing | no GPU found, one NVIDIA device is needed | see"* ]]
    for code in 803 804; do
        [[ $(RA_FAKE_CUINIT=$code finding "driver start") == "missing | the NVIDIA driver and its libraries are of different versions | restart"* ]]
    done
    [[ $(RA_FAKE_CUINIT=999 finding "driver start") == "missing | the driver does not start: CUDA_ERROR_UNKNOWN (999) |"* ]]
    [[ $(RA_FAKE_CUINIT=1 finding "driver start") == *"CUDA error (1)"* ]]
    [[ $(RA_FAKE_DEVICES=0 finding "NVIDIA device") == "missing | no NVIDIA device: the driver counts none |"* ]]
}

@test "CUPTI: another tool on it, no host library, a profiler that does not start" {
    need_fake
    [[ $(RA_FAKE_CUPTI=cuptiSubscribe_v2=39,other=Nsight finding "libcupti.so.13") == "missing | another CUPTI tool (Nsight) is attached (CUPTI error 39) | run without nsys or ncu"* ]]
    [[ $(RA_FAKE_CUPTI=cuptiProfilerHostGetSupportedChips=15 finding libnvperf_host) == "missing | libnvperf_host.so not found beside libcupti |"* ]]
    [[ $(RA_FAKE_CUPTI=cuptiProfilerInitialize=999 finding "CUPTI profiler") == "missing | cuptiProfilerInitialize: CUPTI_ERROR_999 (999) |"* ]]
    [[ $(RA_FAKE_CUPTI=unsupported=1 finding "device counts") == "missing | this device does not count, because of being a mining card |"* ]]
    [[ $(RA_FAKE_CUPTI=chip=GX999 finding "chip metrics") == "missing | this CUPTI has no metrics of chip 'GX999' | install a newer"* ]]
}

@test "who may not count is told how to, and that timing works" {
    need_fake
    local code
    for code in 35 40; do
        text=$(RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=$code finding "GPU counters")
        [[ $text == "missing | GPU performance counters are restricted on this "*"(CUPTI error $code) | timing still works (--profile timing)"*"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" ]]
    done
    [[ $(RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=43 finding "GPU counters") == "missing | counters are not to be had of a MIG slice (CUPTI error 43) |"* ]]
    [[ $(RA_FAKE_CUPTI=cuptiProfilerGetCounterAvailability=46 finding "GPU counters") == "missing | CUPTI is older than the chip (CUPTI error 46) |"* ]]
}

@test "libraries that are none, or lack a call, or crash" {
    need_fake
    mkdir broken && cp "$fake/libcuda.so.1" broken/
    echo nothing >broken/libcupti.so.13
    cp "$fake/libcuda.so.1" broken/libcupti.so.13
    fake=$PWD/broken
    [[ $(finding "libcupti.so.13") == "missing | "*"has no cuptiGetVersion: expected CUPTI of CUDA 13.0 or newer |"* ]]
    [[ $(RA_FAKE_CUINIT=crash finding "driver start") == "missing | the check crashed ("*") |"* ]]
}
