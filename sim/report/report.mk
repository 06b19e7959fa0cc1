# SPDX-License-Identifier: Apache-2.0
# The page of a report travels inside the binary: X.sql and X.css become x_sql and x_css.
PAGE := $(sort $(wildcard sim/report/*.sql sim/report/*.css))
$(B)/sim/report_html_text.o: $(B)/gen/report_text.h
$(B)/gen/report_text.h: $(PAGE)
	$(Q)mkdir -p $(@D) && { for f in $(PAGE); do \
	  echo "static const char $$(basename $$f | tr . _)[] = {"; \
	  od -An -v -tx1 $$f | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'; echo '0};'; done; } > $@
tidy: $(B)/gen/report_text.h
