# SPDX-License-Identifier: Apache-2.0
# The host's execution of CUDA sources, in the build folder of each sanitizer: EMU_OBJ is its runtime,
# $(B)/emu/DIR/X.cu.o the source DIR/X.cu compiled for the host, $(B)/emu/test_X a test program.
ifeq ($(origin CXX),default)
CXX       := g++
endif
EMU_SRC   := $(sort $(wildcard tests/emu/*.cc))
EMU_OBJ   := $(EMU_SRC:%.cc=$(B)/%.o) $(B)/sim/base/half.o
EMU_CU    := $(sort $(wildcard kernels/cuda/*.cu))
EMU_MORE  := $(sort $(wildcard tests/emu/*.cu tests/emu/faults/*.cu))
EMU_TSAN  := $(filter thread,$(SANITIZE))
# A barrier costs TSan threads squared: it watches each kernel once, in test_race, which has those of
# attention within it; test-emu too has that done (emu-race).
EMU_WITH  := $(patsubst %,$(B)/emu/kernels/cuda/%.cu.o,$(if $(EMU_TSAN),append between order query refresh select select_plan,\
             $(notdir $(EMU_CU:%.cu=%))))
EMU_C     := $(patsubst tests/emu/%.c,$(B)/emu/%,$(sort $(wildcard tests/emu/test_*.c)))
EMU_TESTS := $(patsubst tests/emu/%.cu,$(B)/emu/%,$(if $(EMU_TSAN),$(patsubst %,tests/emu/test_%.cu,kernels runtime race),\
             $(sort $(wildcard tests/emu/test_*.cu)))) $(B)/emu/faults $(if $(EMU_TSAN),,$(EMU_C))
EMU_WATCH  = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined)
CXXFLAGS   = -std=c++17 -Wall -Wextra -Wshadow -Wno-unknown-pragmas $(WERROR) $(OPT) -g -ffp-contract=off \
             -fno-omit-frame-pointer -pthread -I. -Itests/emu $(if $(EMU_TSAN),-DRA_EMU_TSAN)
CFILES    += $(EMU_SRC) $(sort $(wildcard kernels/cuda/*.cuh tests/emu/*.cuh)) $(EMU_CU) $(EMU_MORE)

# Ranges for tools need NVTX's headers, which come with the toolkit; without them they do nothing.
NVTX      := $(if $(NVCC),$(wildcard $(dir $(NVCC))../include/nvtx3/nvToolsExt.h))
$(B)/profiler/range.o: private CFLAGS += $(if $(NVTX),-DRA_NVTX -isystem $(NVTX:nvtx3/nvToolsExt.h=))

# TSan hears of fibers from the runtime, and must not watch it.
$(B)/tests/emu/%.o: tests/emu/%.cc $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(if $(EMU_TSAN),,$(EMU_WATCH)) -MMD -MP -c -o $@ $<
$(B)/emu/%.cu.o: %.cu $(FLAGSTAMP)
	@echo "  CXX   $<"
	$(Q)mkdir -p $(@D) && $(CXX) $(CXXFLAGS) $(EMU_WATCH) -MMD -MP -c -o $@ -x c++ $<
# The runtime comes first: of functions that are inline in both, those that TSan does not watch stay.
EMU_LINK = $(CXX) $(CXXFLAGS) $(EMU_WATCH) -o $@ $(EMU_OBJ) $(filter %.cu.o,$^) $(LIB) $(LDLIBS) $(TESTLIBS)
$(B)/emu/test_%: $(B)/emu/tests/emu/test_%.cu.o $(EMU_WITH) $(EMU_OBJ) $(LIB)
	$(Q)$(EMU_LINK)
# A backend's test is C, with the support of those of the cpu backend.
$(EMU_C): $(B)/emu/%: $(B)/tests/emu/%.o $(SUPO) $(EMU_WITH) $(EMU_OBJ) $(LIB)
	@echo "  LD    $@"
	$(Q)$(CXX) $(CXXFLAGS) $(EMU_WATCH) -o $@ $(EMU_OBJ) $(filter %.o,$(filter-out $(EMU_OBJ),$^)) $(LIB) $(LDLIBS) $(TESTLIBS)
$(B)/emu/faults: $(B)/emu/tests/emu/faults/faults.cu.o $(EMU_OBJ) $(LIB)
	$(Q)$(EMU_LINK)
# The product, whose cuda backend runs on the host.
$(B)/emu/rattn-sim: $(CLIO) $(EMU_CU:%=$(B)/emu/%.o) $(EMU_OBJ) $(LIB)
	@echo "  LD    $@"
	$(Q)$(CXX) $(CXXFLAGS) $(EMU_WATCH) $(LDFLAGS) -o $@ $(EMU_OBJ) $(filter %.o,$(filter-out $(EMU_OBJ),$^)) $(LIB) $(LDLIBS)
build/emu/rattn-sim: $(B)/emu/rattn-sim
	$(Q)mkdir -p $(@D) && cp -f $< $@
.PHONY: emu test-emu emu-full emu-trials build-emu emu-race nvcc-tests nvcc-check
emu: build/emu/rattn-sim ## build/emu/rattn-sim: its cuda backend runs on the host
build-emu: need-cmocka $(EMU_TESTS) $(if $(EMU_TSAN),,$(B)/emu/rattn-sim $(B)/emu/bench_gpu $(B)/emu/bench_step)
# What run.sh has the thread sanitizer watch in any case.
build-emu: $(if $(SANITIZE),,emu-race)
emu-race:
	$(Q)$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,$(JOBS)) BUILD=tsan OPT=-O1 SANITIZE=thread \
	  build/tsan/emu/test_race build/tsan/emu/faults
test-emu: build-emu ## CUDA sources, run on the host, compiled by nvcc
	$(Q)B=$(B) tests/run.sh emu
# Once before a change to a kernel is done: minutes.
emu-full: build-emu ## every option of every kernel with every other
	$(Q)set -e; for t in decode score select refresh; do echo "$$t"; time -p $(B)/emu/test_$$t full | tail -4; done
TRIAL ?= .
emu-trials: build-emu ## spoil kernels one way at a time: a test must fail
	$(Q)B=$(B) CXX='$(CXX)' CXXFLAGS='$(CXXFLAGS)' EMU_OBJ='$(EMU_OBJ)' LINK='$(LIB) $(LDLIBS) $(TESTLIBS)' \
	  tests/emu/trials.sh '$(TRIAL)'

# For the cards that are meant; needs no GPU. The tests use all that the one header offers.
CUDA_ARCH ?= 80 90
NVCC_OBJ  := $(EMU_CU:%.cu=build/nvcc/%.o)
NVCC_STAMP := build/nvcc/arch
$(NVCC_STAMP): FORCE
	$(Q)mkdir -p $(@D); echo '$(CUDA_ARCH) $(CUDA_VER)' | cmp -s - $@ || echo '$(CUDA_ARCH) $(CUDA_VER)' >$@
build/nvcc/%.o: %.cu $(NVCC_STAMP)
	@echo "  NVCC  $<"
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -O3 -Werror all-warnings -Xcompiler -fPIC,-fvisibility=hidden -I. -MMD \
	  $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) \
	  -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH)) \
	  -Xptxas -v -c -o $@ $< 2>$(@:.o=.ptxas) || { grep -v '^ptxas info' $(@:.o=.ptxas); exit 1; }
build/nvcc/%.ptx: %.cu $(NVCC_STAMP)
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -O3 -I. -arch=compute_$(lastword $(CUDA_ARCH)) -ptx -o $@ $<
# The cuda backend, with what it needs of level 0 and with cudart; only the driver is looked for when it
# is loaded.
CUDA_C   := $(patsubst %,build/nvcc/%.o,sim/model sim/base/error sim/base/half)
build/nvcc/sim/%.o: sim/%.c
	$(Q)mkdir -p $(@D) && $(CC) -std=c17 -O2 -fPIC -fvisibility=hidden -D_GNU_SOURCE -I. -c -o $@ $<
build/librattn_cuda.so: $(NVCC_OBJ) $(CUDA_C)
	@echo "  LD    $@"
	$(Q)$(CXX) -shared -o $@ $^ -L$(dir $(NVCC))../lib64 -lcudart_static -static-libstdc++ -static-libgcc \
	  -Wl,--exclude-libs,ALL -ldl -lrt -lm -pthread
# The hot loops are in these.
NVCC_PTX := $(patsubst %,build/nvcc/kernels/cuda/%.ptx,decode_f16_64 decode_bf16_128 score_bf16 refresh)
.PHONY: cuda ptx-gate ptx-table
ptx-gate ptx-table: $(if $(NVCC),$(NVCC_OBJ) $(NVCC_PTX)) ## registers, spills and loads of every CUDA kernel
	$(Q)$(if $(NVCC),tests/gpu/ptx_gate.py build/nvcc/kernels/cuda $(if $(filter ptx-table,$@),--write),\
	  echo "no nvcc: CUDA kernels not compiled"; echo "0 passed, 0 failed, 1 skipped")
cuda: need-nvcc build/librattn_cuda.so ## build/librattn_cuda.so: the cuda backend
all: $(if $(NVCC),build/librattn_cuda.so)
CUDA_LIB := $(if $(NVCC),build/librattn_cuda.so,$(wildcard build/librattn_cuda.so))
nvcc-tests: build/nvcc/tests/emu/test_kernels.o build/nvcc/tests/emu/test_runtime.o build/nvcc/tests/emu/faults/faults.o
nvcc-check: nvcc-tests $(NVCC_OBJ) ## every CUDA source for sm_80 and sm_90
-include $(shell find build/nvcc -name '*.d' 2>/dev/null)
