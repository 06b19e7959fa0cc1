# SPDX-License-Identifier: Apache-2.0
# The host execution of CUDA sources: EMU_OBJ is its runtime, $(B)/emu/%.cu.o a .cu compiled for the
# host. One build folder each: plain, with address and undefined, with thread (RA_EMU_TSAN).
CXX       := $(if $(filter default,$(origin CXX)),g++,$(CXX))
EMU_SRC   := $(sort $(wildcard tests/emu/*.cc))
EMU_OBJ   := $(EMU_SRC:%.cc=$(B)/%.o) $(B)/sim/base/half.o
EMU_TESTS := $(addprefix $(B)/emu/,test_kernels test_runtime faults)
CU        := $(sort $(wildcard kernels/cuda/*.cu tests/emu/*.cu tests/emu/faults/*.cu))
EMU_TSAN  := $(filter thread,$(SANITIZE))
CXXWARN   := -Wall -Wextra -Wshadow $(WERROR)
CXXFLAGS   = -std=c++17 $(CXXWARN) $(OPT) -g -ffp-contract=off -fno-omit-frame-pointer -pthread \
             -I. -Itests/emu $(DEFS) $(if $(EMU_TSAN),-DRA_EMU_TSAN)
EMU_SAN    = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined)
CFILES    += $(EMU_SRC) $(sort $(wildcard kernels/cuda/*.cuh tests/emu/*.cuh)) $(CU)
SCRIPTS   += tests/emu/run.sh

# TSan hears of the fibers from the runtime, and must not watch it.
$(B)/tests/emu/%.o: tests/emu/%.cc $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(if $(EMU_TSAN),,$(EMU_SAN)) -MMD -MP -c -o $@ $<
$(B)/emu/%.cu.o: %.cu $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(EMU_SAN) -MMD -MP -c -x c++ -o $@ $<
# The runtime comes first: of inline functions in both, those that TSan does not watch are taken.
$(B)/emu/%: $(B)/emu/tests/emu/%.cu.o $(EMU_OBJ)
	$(Q)$(CXX) $(CXXFLAGS) $(EMU_SAN) -o $@ $(EMU_OBJ) $< $(TESTLIBS)
.PHONY: test-emu build-emu nvcc-check
build-emu: need-cmocka $(EMU_TESTS)
test-emu: ## CUDA sources on the host, and through nvcc if there is one
	$(Q)B=$(B) tests/run.sh emu
# For each architecture that is meant; no GPU is needed.
build/nvcc/%.o: %.cu
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -lineinfo -Werror all-warnings -I. \
	  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -MMD -c -o $@ $<
nvcc-check: $(CU:%.cu=build/nvcc/%.o)
-include $(shell find build/nvcc -name '*.d' 2>/dev/null)
