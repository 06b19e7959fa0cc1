# SPDX-License-Identifier: Apache-2.0
# Programs for a card: build/gpu/DIR/X.o is DIR/X.cu through nvcc, build/gpu/kernels.a all of
# kernels/cuda, build/gpu/X a program; cudart and the C++ library are within it, so that it runs
# where only the driver is.
GPU_ARCH  ?= 90
GPU_BENCH := gpu gpu_bed gpu_check gpu_plain
GPU_STEP  := step_check step_gemm step_model step_operations
# Kernels that are templates are launched from other sources than those that hold them.
GPU_FLAGS = -std=c++17 -O3 -lineinfo -gencode arch=compute_$(GPU_ARCH),code=sm_$(GPU_ARCH) \
            -static-global-template-stub=false -I.
GPU_LINK  = $(NVCC) -gencode arch=compute_$(GPU_ARCH),code=sm_$(GPU_ARCH) -cudart static \
            -Xcompiler -static-libstdc++,-static-libgcc,-pthread -o $@ $(filter %.o,$^) $(filter %.a,$^)
GPU_TESTS := $(patsubst %.cu,build/gpu/%,$(notdir $(filter-out tests/emu/test_kernels.cu tests/emu/test_runtime.cu,\
             $(sort $(wildcard tests/emu/test_*.cu tests/gpu/test_*.cu)))))
CFILES    += $(sort $(wildcard tests/gpu/*.cu tests/gpu/*.h))

build/gpu/%.o: %.cu
	@echo "  NVCC  $<"
	$(Q)mkdir -p $(@D) && $(NVCC) $(GPU_FLAGS) -MMD -c -o $@ $<
build/gpu/kernels.a: $(EMU_CU:%.cu=build/gpu/%.o)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
build/gpu/test_%: build/gpu/tests/emu/test_%.o build/gpu/tests/gpu/on_card.o build/gpu/kernels.a build/gpu/base.a
	$(Q)$(GPU_LINK)
build/gpu/test_%: build/gpu/tests/gpu/test_%.o build/gpu/tests/gpu/on_card.o build/gpu/kernels.a build/gpu/base.a
	$(Q)$(GPU_LINK)
build/gpu/card: build/gpu/tests/gpu/card.o
	$(Q)$(GPU_LINK)

# What they need of level 0 is C.
build/gpu/c/%.o: %.c
	$(Q)mkdir -p $(@D) && $(CC) -std=c17 -O2 -D_GNU_SOURCE -I. -c -o $@ $<
build/gpu/base.a: build/gpu/c/sim/model.o build/gpu/c/sim/base/error.o build/gpu/c/sim/base/half.o
	$(Q)rm -f $@ && $(AR) rcs $@ $^
build/gpu/bench_gpu: $(patsubst %,build/gpu/kernels/bench/%.o,bench_gpu $(GPU_BENCH)) build/gpu/kernels.a build/gpu/base.a
	$(Q)$(GPU_LINK) -ldl
build/gpu/bench_step: $(patsubst %,build/gpu/kernels/bench/%.o,bench_step $(GPU_STEP) $(GPU_BENCH)) build/gpu/kernels.a build/gpu/base.a
	$(Q)$(GPU_LINK) -ldl

# The benchmark as the emulation runs it: DRY=1.
$(B)/emu/bench_gpu: $(patsubst %,$(B)/emu/kernels/bench/%.cu.o,bench_gpu $(GPU_BENCH)) $(EMU_WITH) $(EMU_OBJ) $(LIB)
	@echo "  LD    $@"
	$(Q)$(EMU_LINK)
$(B)/emu/bench_step: $(patsubst %,$(B)/emu/kernels/bench/%.cu.o,bench_step $(GPU_STEP) $(GPU_BENCH)) $(EMU_WITH) $(EMU_OBJ) $(LIB)
	@echo "  LD    $@"
	$(Q)$(EMU_LINK)

.PHONY: build-gpu test-gpu need-nvcc
need-nvcc:
	$(if $(NVCC),@:,@echo "programs for a card need nvcc in PATH"; exit 1)
build-gpu: need-nvcc build/gpu/card build/gpu/bench_gpu build/gpu/bench_step $(GPU_TESTS) ## tests and benchmarks for a card: build/gpu
# The product for a machine without its libraries, beside the cuda backend.
build/gpu/rattn-sim: $(CLIO) $(LIB)
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -o $@ $^ -Wl,-Bstatic $(PKG_LIBS) -Wl,-Bdynamic -lm -pthread
build/gpu/librattn_cuda.so: build/librattn_cuda.so
	$(Q)cp -f $< $@
GPU_PACKED := build/gpu/card build/gpu/bench_gpu build/gpu/bench_step $(GPU_TESTS) build/gpu/rattn-sim build/gpu/librattn_cuda.so
.PHONY: bench-gpu bench-step profile-gpu gpu-bundle gpu-day
profile-gpu: $(if $(DRY),build-emu,build/gpu/rattn-sim build/gpu/librattn_cuda.so) ## all passes of two traces on a card: build/gpu/out; DRY=1
	$(Q)B=$(B) tests/gpu/profile.sh
bench-step: need-nvcc build/gpu/bench_step ## whole decode steps timed on a card: build/gpu/out
	$(Q)mkdir -p build/gpu/out && build/gpu/bench_step --out build/gpu/out/step.json
bench-gpu: build-gpu ## our kernels timed on a card: build/gpu/out
	$(Q)mkdir -p build/gpu/out && for tier in core batch grid; do \
	  build/gpu/bench_gpu --tier $$tier --out build/gpu/out/$$tier.json || exit; done
gpu-bundle: build-gpu build/gpu/rattn-sim build/gpu/librattn_cuda.so ## build/gpu/pack and wheels: what gpu-day carries
	$(Q)mkdir -p build/gpu/pack && tar -cJf build/gpu/pack/programs.tar.xz $(GPU_PACKED)
	$(Q)[ -e build/gpu/wheels ] || kernels/bench/rivals_bundle.sh || echo "no rivals: their wheels could not be had"
	$(Q)du -sh build/gpu/pack build/gpu/wheels 2>/dev/null
gpu-day: $(if $(DRY),build-emu) ## all that needs a card, nine minutes; DRY=1: no card
	$(Q)B=$(B) tests/gpu/day.sh
test-gpu: build-gpu ## CUDA kernels on a card; the last line counts
	$(Q)tests/gpu/run.sh
-include $(shell find build/gpu -name '*.d' 2>/dev/null)
