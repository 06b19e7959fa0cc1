# SPDX-License-Identifier: Apache-2.0
# The decoder's benchmark: it needs a prepared model and OpenBLAS, without which bench.py says so.
build-bench: $(B)/bench/bench_decoder
$(B)/bench/%: traces/model/bench/%.c $(LIB) $(FLAGSTAMP)
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(LIB) $(LDLIBS)
CFILES   += $(sort $(wildcard traces/model/bench/*.c))
