# SPDX-License-Identifier: Apache-2.0
"""Keep of replay's JSON what must be equal on every machine: no time, no device, no output bits."""
import json
import sys

KEPT = ("sequence policy k_resolved steps layers window_layers full_layer_steps recycled_layer_steps "
        "effective_stride keys_read keys_attended kv_read_bytes kv_write_bytes refresh_entries "
        "refresh_bytes selection_bytes prefill mass_recovered output_rel_err topk_recall "
        "refresh_overlap on_recycled fingerprint trace_sha256").split()
results = json.load(sys.stdin)
for result in results:
    del result["prefill"]["ns"]
json.dump([{key: result[key] for key in KEPT} for result in results], sys.stdout, indent=1)
print()
