# SPDX-License-Identifier: Apache-2.0
# Libraries that stand in for libcupti.so.13 and libcuda.so.1, in a folder for LD_LIBRARY_PATH; with
# CUPTI's headers only.
FAKE_CUPTI  := $(B)/fake_cupti/libcupti.so.13 $(B)/fake_cupti/libcuda.so.1
FAKE_SRC    := $(filter-out %/driver.cc,$(sort $(wildcard tests/fake_cupti/*.cc)))
CFILES      += $(FAKE_SRC) tests/fake_cupti/driver.cc
$(B)/fake_cupti/%.o: tests/fake_cupti/%.cc $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(EMU_WATCH) $(CUPTI_FLAGS) -fPIC -Wno-deprecated-declarations -MMD -MP -c -o $@ $<
$(B)/fake_cupti/libcupti.so.13: $(FAKE_SRC:tests/%.cc=$(B)/%.o)
	$(Q)$(CXX) $(CXXFLAGS) $(EMU_WATCH) -shared -Wl,-soname,libcupti.so.13 -o $@ $^
$(B)/fake_cupti/libcuda.so.1: $(B)/fake_cupti/driver.o
	$(Q)$(CXX) $(CXXFLAGS) $(EMU_WATCH) -shared -Wl,-soname,libcuda.so.1 -o $@ $^
.PHONY: fake-cupti
fake-cupti: $(if $(CUPTI),$(FAKE_CUPTI))
build-tests build-emu: fake-cupti
