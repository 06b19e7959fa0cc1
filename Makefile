# SPDX-License-Identifier: Apache-2.0
# The whole build. `make help` lists the targets, `make config` what was found and why not.

BUILD   ?= release
ifeq ($(origin CC),default)
CC      := gcc
endif
PREFIX  ?= /usr/local
DESTDIR ?=
B       := build/$(BUILD)
VERSION := 0.1.0

# --- what is there -------------------------------------------------------------------------------
pkg       = $(shell pkg-config --silence-errors $(1) 2>/dev/null)
HAVE_PKGS := $(shell pkg-config --exists sqlite3 jansson nettle 2>/dev/null && echo yes)
NVCC      := $(shell command -v nvcc 2>/dev/null)
CUDA_VER  := $(if $(NVCC),$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p'))
CMOCKA    := $(shell pkg-config --exists cmocka 2>/dev/null && echo yes)
GNUPLOT   := $(shell command -v gnuplot 2>/dev/null)

# --- flags ---------------------------------------------------------------------------------------
OPT      ?= -O2
WERROR   ?= $(if $(CI),-Werror)
SANITIZE ?=
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla $(WERROR)
DEFS     := -D_GNU_SOURCE -DRA_VERSION='"$(VERSION)"' -DRA_CUDA_TOOLKIT='"$(CUDA_VER)"'
PKG_CFLAGS := $(call pkg,--cflags sqlite3 jansson nettle)
PKG_LIBS := $(call pkg,--libs sqlite3 jansson nettle)
CFLAGS    = -std=c17 $(WARN) $(OPT) -g -ffp-contract=off -fno-omit-frame-pointer -pthread \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined) \
            -I. -I$(B)/gen $(DEFS) $(PKG_CFLAGS)
LDLIBS   := $(PKG_LIBS) -lm -ldl -pthread
TESTLIBS := -lcmocka
# Loops over rows of keys are worth the vectoriser; nothing else is.
$(B)/kernels/cpu/%.o $(B)/traces/model/layers.o $(B)/sim/reference.o $(B)/sim/model.o $(B)/sim/base/exp.o: private OPT := $(if $(SANITIZE),-O1,-O3)

Q := $(if $(V),,@)

# --- sources -------------------------------------------------------------------------------------
SRC   := $(sort $(wildcard sim/base/*.c sim/*.c sim/policy/*.c sim/transform/*.c kernels/*.c \
         kernels/cpu/*.c kernels/null/*.c profiler/*.c profiler/cupti/*.c traces/*.c traces/model/*.c))
CLI   := $(sort $(wildcard sim/cli/*.c))
OBJ   := $(SRC:%.c=$(B)/%.o)
CLIO  := $(CLI:%.c=$(B)/%.o)
LIB   := $(B)/librattn.a
UNIT  := $(sort $(wildcard tests/unit/test_*.c))
UNITB := $(UNIT:tests/unit/%.c=$(B)/tests/%)
SUPO  := $(patsubst %.c,$(B)/%.o,$(sort $(filter-out tests/support/fault%,$(wildcard tests/support/*.c))))
BATS  := $(sort $(wildcard tests/cli/*.bats))
HDR   := $(sort $(wildcard sim/*.h sim/base/*.h sim/transform/*.h sim/cli/*.h kernels/*.h kernels/*/*.h profiler/*.h \
         traces/*.h traces/model/*.h))
INC   := $(sort $(wildcard kernels/*/*.inc))
CFILES := $(SRC) $(CLI) $(HDR) $(INC) \
          $(sort $(wildcard tests/*/*.c tests/*/*.h kernels/bench/*.c profiler/bench/*.c profiler/bench/*.h))
SCRIPTS := bootstrap .ci/run sim/cli/completion.bash $(sort $(wildcard tests/*.sh tests/*/*.sh traces/tools/*.sh))
SAMPLE := traces/data/smollm2-135m.safetensors

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: build/rattn-sim build/rattn-sim.1 build/rattn-sim.bash ## build/rattn-sim with every part that was found

build/rattn-sim: $(B)/rattn-sim
	$(Q)cp -f $< $@
build/rattn-sim.1 build/rattn-sim.bash: build/rattn-sim
	$(Q)build/rattn-sim help $(if $(filter %.1,$@),--man,--completion) > $@.new && mv $@.new $@

$(B)/rattn-sim: $(CLIO) $(LIB)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(OBJ)
	@echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Flags are part of what an object depends on.
FLAGSTAMP := $(B)/flags
$(FLAGSTAMP): FORCE
	$(Q)mkdir -p $(B); echo '$(subst ','\'',$(CC) $(CFLAGS))' | cmp -s - $@ || \
	  { [ -n "$(HAVE_PKGS)" ] || { echo "needed are sqlite3, jansson and nettle: run ./bootstrap (make config shows more)"; exit 1; }; \
	    echo '$(subst ','\'',$(CC) $(CFLAGS))' > $@; }
.PHONY: FORCE
FORCE:

$(B)/%.o: %.c $(FLAGSTAMP)
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# The schema travels inside the binary.
$(B)/profiler/store_migrate.o: $(B)/gen/schema_sql.h
$(B)/gen/schema_sql.h: profiler/schema.sql
	$(Q)mkdir -p $(@D) && { echo 'static const char ra_schema_sql[] = {'; \
	  od -An -v -tx1 $< | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'; echo '0};'; } > $@

# So does the fixed part of the completion.
$(B)/sim/cli/completion.o: $(B)/gen/completion_bash.h
$(B)/gen/completion_bash.h: sim/cli/completion.bash
	$(Q)mkdir -p $(@D) && { echo 'static const char completion_bash[] = {'; \
	  od -An -v -tx1 $< | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'; echo '};'; } > $@

# So do the figures: X.sql and X.gp become x_sql, x_gp and an entry of RA_PLOTS; house.* have none.
PLOTS := $(sort $(wildcard plots/*.sql plots/*.gp))
$(B)/sim/cli/plot_text.o: $(B)/gen/plots_text.h
$(B)/gen/plots_text.h: $(PLOTS)
	$(Q)mkdir -p $(@D) && { for f in $(PLOTS); do \
	  echo "static const char $$(basename $$f | tr . _)[] = {"; \
	  od -An -v -tx1 $$f | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'; echo '0};'; done; \
	  echo '#define RA_PLOTS$(patsubst plots/%.sql, RA_PLOT(%),$(filter-out plots/house.sql,$(filter %.sql,$(PLOTS))))'; } > $@

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# --- tests ---------------------------------------------------------------------------------------
$(B)/tests/%: tests/unit/%.c $(SUPO) $(LIB) $(FLAGSTAMP)
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(SUPO) $(LIB) $(LDLIBS) $(TESTLIBS)

# Benchmarks: each program prints lines of JSON, bench.py lays them out.
BENCH := $(sort $(notdir $(basename $(wildcard kernels/bench/bench_*.c profiler/bench/bench_*.c))))
BENCHO := $(B)/kernels/bench/bench.o $(B)/kernels/bench/bed.o
$(B)/bench/% $(B)/kernels/bench/%.o: private OPT := -O3
$(B)/bench/%: kernels/bench/%.c $(BENCHO) $(LIB) $(FLAGSTAMP)
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(BENCHO) $(LIB) $(LDLIBS)
$(B)/bench/%: profiler/bench/%.c $(LIB) $(FLAGSTAMP)
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(LIB) $(LDLIBS)
build-bench: $(BENCH:%=$(B)/bench/%)
bench: all build-bench ## check, then time; a table, and build/bench/bench.json
	$(Q)mkdir -p build/bench && /usr/bin/python3 tests/bench/bench.py $(B) build/bench/bench.json

# What makes the system fail stands between the product, its command line included, and libc.
WRAP   := main malloc calloc realloc aligned_alloc strdup realpath asprintf vasprintf free open_memstream open \
          fopen fstat pread read pwrite write rename fallocate ftruncate mkstemp tmpfile pthread_create
FAULTB := $(filter $(B)/tests/test_fault%,$(UNITB))
FAULTO := $(B)/tests/support/fault.o $(B)/tests/support/fault_sweep.o $(CLIO)
$(FAULTB): $(FAULTO)
$(FAULTB): private SUPO += $(FAULTO)
$(FAULTB): private LDLIBS += $(WRAP:%=-Wl,--wrap=%)

.PHONY: test test-unit test-cli test-tools test-audit build-tests need-cmocka bench build-bench
need-cmocka:
	$(if $(CMOCKA),@:,@echo "the C tests need cmocka: run ./bootstrap, or install libcmocka-dev"; exit 1)
$(UNITB): | need-cmocka
build-tests: need-cmocka $(B)/rattn-sim $(UNITB)
test: need-cmocka all build-tests build-emu ## everything that needs no GPU; the last line counts
	$(Q)B=$(B) tests/run.sh unit neon tools cli audit emu headers layers size
test-unit: build-tests ## C tests only
	$(Q)B=$(B) tests/run.sh unit
test-cli: $(B)/rattn-sim ## command line tests only
	$(Q)B=$(B) tests/run.sh cli
test-tools: ## the Python tools' own tests
	$(Q)B=$(B) tests/run.sh tools
test-audit: $(B)/rattn-sim ## replays recomputed from the exported sets by numpy
	$(Q)B=$(B) tests/run.sh audit

.PHONY: golden
golden: all ## rewrite the frozen results; review the diff
	$(Q)build/rattn-sim replay $(SAMPLE) $(DEMO) --repeat 1 -q --format json | \
	  python3 tests/golden/freeze.py >tests/golden/sample.json

.PHONY: asan tsan sanitized threaded memcheck soak
JOBS = -j $(shell nproc)
asan: ## C and command line tests under ASan and UBSan
	$(Q)$(MAKE) $(JOBS) BUILD=asan OPT=-O1 SANITIZE=address,undefined build-tests build-emu
	$(Q)ASAN_OPTIONS=allow_user_segv_handler=0:detect_leaks=1 \
	  $(MAKE) BUILD=asan OPT=-O1 SANITIZE=address,undefined sanitized
tsan: ## threaded parts with the thread sanitizer
	$(Q)$(MAKE) $(JOBS) BUILD=tsan OPT=-O1 SANITIZE=thread build-threaded
	$(Q)$(MAKE) BUILD=tsan OPT=-O1 SANITIZE=thread threaded
sanitized: build-tests build-emu
	$(Q)B=$(B) tests/run.sh unit cli emu
build-threaded: build-emu $(B)/rattn-sim $(filter $(foreach t,pool backend engine lm_loop,$(B)/tests/test_$t%),$(UNITB))
threaded: build-threaded
	$(Q)B=$(B) tests/run.sh threaded emu

memcheck: $(B)/rattn-sim ## a replay, its report, info and explain under valgrind
	$(Q)B=$(B) tests/memcheck.sh $(SAMPLE)
soak: $(B)/rattn-sim $(B)/tests/test_fault_soak ## a thousand replays into one store: memory flat, all whole
	$(Q)RA_SOAK=1000 $(B)/tests/test_fault_soak
# The backend needs neither the libraries nor cmocka, for which tests/cross stands in.
ARM := aarch64-linux-gnu-
BACKEND := $(filter-out sim/base/hash.c sim/base/json%,$(wildcard sim/base/*.c kernels/*.c kernels/cpu/*.c kernels/null/*.c)) sim/model.c
CROSS := $(patsubst %.c,build/arm64/%.o,tests/support/approx.c tests/support/backend_case.c tests/support/cache_life.c tests/cross/cmocka.c)
include tests/emu/emu.mk tests/gpu/gpu.mk profiler/cupti/cupti.mk tests/fake_cupti/fake_cupti.mk sim/report/report.mk docs/compare.mk docs/fidelity.mk tests/capture/capture.mk traces/model/bench/bench.mk traces/traces.mk
.PHONY: neon arm64 fuzz
neon: $(B)/tests/test_backend_simd ## the cpu backend's tests on AArch64, run by qemu
	$(Q)B=$(B) tests/run.sh neon
arm64:
	$(Q)$(MAKE) BUILD=arm64 CC=$(ARM)gcc AR=$(ARM)ar SRC='$(BACKEND)' SUPO='$(CROSS)' PKG_CFLAGS='-Itests/cross -DRA_EMULATED=1' \
	  LDLIBS='-static -lm -pthread' TESTLIBS= $(patsubst $(B)/%,build/arm64/%,$(filter $(B)/tests/test_backend%,$(UNITB)))
fuzz: ## libFuzzer on all that is read, FUZZ_SECONDS each
	$(Q)tests/fuzz/run.sh

# --- static checks -------------------------------------------------------------------------------
.PHONY: headers layers size clang-format clang-format-check tidy static
headers: ## each header compiles alone, as C17 and as C++17
	$(Q)tests/headers.sh $(filter-out sim/cli/%,$(HDR))
layers: ## include direction
	$(Q)awk -f tests/layers.awk $(SRC) $(CLI) $(HDR) $(INC)
size: ## limits of file and function length
	$(Q)awk -f tests/size.awk $(CFILES) Makefile
clang-format: ## rewrite
	$(Q)clang-format-14 -i $(CFILES)
clang-format-check: ## verify
	$(Q)clang-format-14 --dry-run -Werror $(CFILES)
tidy: $(B)/gen/schema_sql.h $(B)/gen/plots_text.h $(B)/gen/completion_bash.h ## clang-tidy, cppcheck, shellcheck
	$(Q)tests/tidy.sh $(B)/gen $(SRC) $(CLI)
	$(Q)shellcheck $(SCRIPTS)
static: headers layers size clang-format-check tidy ## all of the above

# --- product -------------------------------------------------------------------------------------
DEMO := -p full -p recycled:k=256,stride=16 -p recycled:k=256,stride=8,sim=0.85 \
        -p streaming:k=256 -p oracle:k=256
.PHONY: demo traces traces-8k install uninstall
demo: all ## replay the embedded trace, five schedules: build/demo
	$(Q)mkdir -p build/demo && rm -f build/demo/demo.db* build/demo/report.*
	$(Q)build/rattn-sim replay $(SAMPLE) $(DEMO) --db build/demo/demo.db
	$(Q)for to in txt html; do build/rattn-sim report build/demo/demo.db -q -o build/demo/report.$$to || exit 1; done
	@echo; echo "store: build/demo/demo.db    report: build/demo/report.txt, build/demo/report.html"
	$(if $(GNUPLOT),$(Q)build/rattn-sim plot build/demo/demo.db -o build/demo,@echo "no figures: gnuplot-nox is missing")
traces: ## rebuild the embedded sample; all layers in build/traces
	$(Q)traces/tools/make_traces.sh sample full
traces-8k: ## all layers, 7936 + 256 tokens, in build/traces
	$(Q)traces/tools/make_traces.sh 8k
# What goes where below PREFIX, as Debian lays it out; the licence is "copyright" there.
INSTALLED := bin/rattn-sim share/man/man1/rattn-sim.1 share/bash-completion/completions/rattn-sim \
             $(addprefix share/doc/rattn-sim/,README.md FORMAT.md copyright) $(CUDA_LIB:build/%=lib/rattn-sim/%)
install uninstall: private export TO = $(DESTDIR)$(PREFIX)
install: all ## honours DESTDIR and PREFIX
	set -- build/rattn-sim build/rattn-sim.1 build/rattn-sim.bash README.md traces/FORMAT.md LICENSE $(CUDA_LIB); \
	for to in $(INSTALLED); do \
	  install -D -m $$(test "$$to" = bin/rattn-sim && echo 755 || echo 644) "$$1" "$$TO/$$to" || exit 1; shift; done
uninstall: ## removes what install put there
	for to in $(INSTALLED); do rm -f "$$TO/$$to" || exit 1; done
	for of in share/doc lib; do if [ -d "$$TO/$$of/rattn-sim" ]; then rmdir "$$TO/$$of/rattn-sim"; fi; done

# --- about ---------------------------------------------------------------------------------------
.PHONY: clean help config
clean: ## remove build/, prepared models and traces included
	rm -rf build
config: ## what was found, and what its absence switches off
	@echo "compiler     $(CC) $(shell $(CC) -dumpversion 2>/dev/null)"
	@echo "libraries    $(if $(HAVE_PKGS),sqlite3 jansson nettle,MISSING: libsqlite3-dev libjansson-dev nettle-dev (needed))"
	@echo "cmocka       $(if $(CMOCKA),found,missing: libcmocka-dev (make test needs it))"
	@echo "AArch64      $(if $(shell command -v $(ARM)gcc),$(if $(shell command -v qemu-aarch64),tested by $(ARM)gcc and qemu-aarch64,not tested: no qemu-aarch64),not tested: no $(ARM)gcc)"
	@echo "gnuplot      $(if $(GNUPLOT),$(GNUPLOT),missing: gnuplot-nox (no figures))"
	@echo "CUDA toolkit $(if $(NVCC),$(CUDA_VER) at $(NVCC),missing: no nvcc in PATH (no cuda backend))"
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(filter Makefile %.mk,$(MAKEFILE_LIST))
