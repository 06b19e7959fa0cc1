# SPDX-License-Identifier: Apache-2.0
# Bytes buy accuracy: which schedule has the smaller error for what it reads and writes.
with_marks = 1
eval draw_key
set xlabel 'KV traffic (MB/step)' offset 0,below
set ylabel 'Output error (relative)' offset near,0
set xrange [0:*]
set yrange [0:*]
plot for [i = 1:n_series] data using (is(i) ? column('kv_mb') : NaN):'error':'p25':'p75' \
         with yerrorbars linetype line(i) linewidth 0.8 pointsize mark notitle
