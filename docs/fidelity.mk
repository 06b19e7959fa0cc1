# SPDX-License-Identifier: Apache-2.0
# The closed loop: how well the replay predicts (make fidelity), and a study of the user's own model.
MODEL := build/models/smollm2-135m-instruct
FIDELITY = python3 docs/fidelity.py $(MODEL) build/texts --command '$(1)' -o $(2)
.PHONY: fidelity study speculation
fidelity: build/rattn-sim ## offline prediction against real decoding; FAST=1
	$(Q)[ -e $(MODEL)/model.safetensors ] || traces/tools/make_traces.sh prepare
	$(Q)[ -e build/texts/tables-2.ids.safetensors ] || $(MAKE) texts
	$(Q)$(if $(FAST),$(call FIDELITY,make fidelity FAST=1,build/fidelity-fast) --fast,\
	  $(call FIDELITY,make fidelity,build/fidelity) --document docs/fidelity.md --figures figures)
L := 1792
N := 256
study: build/rattn-sim ## a model and texts to one page: MODEL=DIR TEXTS='…'
	$(Q)[ -n "$(TEXTS)" ] || { echo "study: expected TEXTS='FILE…', and MODEL=DIR"; exit 2; }
	$(Q)python3 docs/study.py $(MODEL) $(TEXTS) -o build/study --prompt $(L) --steps $(N) $(if $(LAYERS),--layers $(LAYERS))
ESSAY := build/texts/essay-0.ids.safetensors
speculation: build/rattn-sim ## what schedules are worth as drafts: docs/speculation.md
	$(Q)[ -e $(MODEL)/model.safetensors ] || traces/tools/make_traces.sh prepare
	$(Q)[ -e $(ESSAY) ] || $(MAKE) texts
	$(Q)python3 docs/speculation.py $(MODEL) build/speculation text:1024:6:below:$(ESSAY) \
	  text:2048:4:drafts:$(ESSAY) greedy:1024:2,4,6:drafts:build/text/jargon-saga.ids.safetensors --document docs/speculation.md
