# SPDX-License-Identifier: Apache-2.0
# The torch tools on real torch and transformers, without a GPU. Not part of `make test`, where the
# stand-ins of tests/capture/fake do: torch for Linux brings CUDA along, 6 GB in build/venv-torch.
TORCH_VENV := build/venv-torch
TORCH_PACKAGES ?= torch==2.15.0 transformers==5.24.0
# Older ones that the tools must work with, one per way of registering hooks and keeping caches.
OLDER_TRANSFORMERS ?= 4.48.3 4.51.3 4.57.6
.PHONY: test-capture
test-capture: build/rattn-sim $(TORCH_VENV)/packages $(OLDER_TRANSFORMERS:%=build/transformers-%/done) ## capture_hf.py, decode_hf.py on real torch (6 GB)
	$(Q)tests/capture/run.sh $(TORCH_VENV)/bin/python $(OLDER_TRANSFORMERS:%=build/transformers-%)
$(TORCH_VENV)/packages: tests/capture/capture.mk
	$(Q)[ -x $(TORCH_VENV)/bin/python ] || python3 -m venv $(TORCH_VENV)
	$(Q)$(TORCH_VENV)/bin/python -m pip --disable-pip-version-check install -q --no-cache-dir $(TORCH_PACKAGES)
	$(Q)echo '$(TORCH_PACKAGES)' > $@
build/transformers-%/done: $(TORCH_VENV)/packages
	$(Q)rm -rf $(@D) && $(TORCH_VENV)/bin/python -m pip --disable-pip-version-check install -q --no-cache-dir \
	  --target $(@D) transformers==$* && touch $@
