# SPDX-License-Identifier: Apache-2.0
# CUPTI is dlopened; its headers, which come with the toolkit, decide whether these sources hold
# anything. One header is C++, so what uses it is.
CUPTI    := $(if $(NVCC),$(wildcard $(dir $(NVCC))../include/cupti.h))
CUPTI_CC := $(if $(CUPTI),$(sort $(wildcard profiler/cupti/*.cc)))
CUPTI_FLAGS := $(if $(CUPTI),-DRA_CUPTI -isystem $(CUPTI:/cupti.h=))
$(B)/profiler/cupti/%.o: private CFLAGS += $(CUPTI_FLAGS)
$(B)/profiler/cupti/%.o: profiler/cupti/%.cc $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(if $(findstring fuzzer,$(SANITIZE)),,$(EMU_WATCH)) $(CUPTI_FLAGS) -fno-exceptions -fno-rtti -MMD -MP -c -o $@ $<
$(B)/tests/test_records: private CFLAGS += $(CUPTI_FLAGS)
$(LIB): $(CUPTI_CC:%.cc=$(B)/%.o)
CFILES   += $(sort $(wildcard profiler/cupti/*.h profiler/cupti/*.cc))
