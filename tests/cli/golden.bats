#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The embedded recording's schedules, sets and counts are unchanged. tests/audit proves them from the
# documents; this only tells that something moved. `make golden` rewrites the expectation.

load common

@test "the demo's replay gives the frozen fingerprints and counts" {
    run -0 "$rattn" replay "$root/traces/data/smollm2-135m.safetensors" --repeat 1 -q \
        -p full -p recycled:k=256,stride=16 -p recycled:k=256,stride=8,sim=0.85 \
        -p streaming:k=256 -p oracle:k=256 --check "$root/tests/golden/sample.json"
}
