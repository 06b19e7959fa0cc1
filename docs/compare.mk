# SPDX-License-Identifier: Apache-2.0
# All policies on one recording: build/compare. The all-layers recording needs weights and a text from
# outside; where they cannot be had, the embedded sample stands in, whose tables no document has.
COMPARE_TRACE := build/traces/smollm2-135m-p1792-n256.safetensors
COMPARE = python3 docs/compare.py $(1) --document docs/policies.md \
          --figures $(if $(GNUPLOT),svg,none) --command 'make $@'
.PHONY: compare compare-8k
compare: build/rattn-sim ## all policies, equal K, equal bytes: docs/policies.md
	$(Q)trace=$(COMPARE_TRACE); [ -e $$trace ] || traces/tools/make_traces.sh full || { trace=$(SAMPLE); \
	  echo "compare: no all-layers trace, so the embedded sample, which has 4 of 30 layers, is compared" >&2; }; \
	$(call COMPARE,$$trace -o build/compare)
compare-8k: build/rattn-sim ## the same after a prompt of 7936 tokens: build/compare-8k
	$(Q)trace=build/traces/smollm2-135m-p7936-n256.safetensors; \
	[ -e $$trace ] || traces/tools/make_traces.sh 8k && $(call COMPARE,$$trace -o build/compare-8k)
