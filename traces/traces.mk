# SPDX-License-Identifier: Apache-2.0
# What the model is tried on, as token ids: documents for perplexity, prompts with known answers. Both
# need packages from outside; `make_traces.sh prepare` fetches tools and weights.
MODEL_DIR ?= build/models/smollm2-135m-instruct
VENV_PYTHON := build/venv/bin/python
# TASK-LENGTH of every cell that full attention passes (docs/data.md).
PROMPT_CELLS ?= niah-single-1024
PROMPTS_N ?= 50
.PHONY: texts prompts prepared-model
prepared-model:
	$(Q)traces/tools/make_traces.sh prepare
texts: prepared-model ## documents for rattn-sim eval: build/texts
	$(Q)$(VENV_PYTHON) traces/tools/make_texts.py $(MODEL_DIR) -o build/texts
prompts: prepared-model ## prompts with known answers: build/prompts
	$(Q)mkdir -p build/prompts; for cell in $(PROMPT_CELLS); do \
	  $(VENV_PYTHON) traces/tools/make_prompts.py --task $${cell%-*} --length $${cell##*-} --n $(PROMPTS_N) \
	    --model $(MODEL_DIR) -o build/prompts/$$cell.prompts.safetensors || exit 1; done
