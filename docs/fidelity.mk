# SPDX-License-Identifier: Apache-2.0
# The closed loop: how well the replay predicts (make fidelity), and a study of the user's own model.
MODEL := build/models/smollm2-135m-instruct
FIDELITY = python3 docs/fidelity.py $(MODEL) build/texts --command '$(1)' -o $(2)
.PHONY: fidelity study
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
