# SPDX-License-Identifier: Apache-2.0
# Bytes buy accuracy: which schedule has the smaller error for what it reads and writes.
stats data using 'p75' nooutput name 'quartile'
stats data using 'output_rel_err' nooutput name 'mean'
stats data using 'kv_mb' nooutput name 'kv'
most = quartile_max > mean_max ? quartile_max : mean_max
with_marks = 1
x_axis = axis_kv_mb
y_axis = axis_output_rel_err
set xrange [0:kv_max > 0 ? kv_max * 1.1 : 1]
set xtics nice(kv_max)
set yrange [0:most > 0 ? most * 1.05 : 1]
low = kv_min; high = kv_max
if (is_log(4)) { eval log_axis('x'); x_axis = x_axis.', log scale' }
eval draw_key
eval draw_axes
set clip two
plot for [i = 1:n_series] data using (is(i) ? column('kv_mb') : NaN):'output_rel_err':'p25':'p75' \
         with yerrorbars linetype line(i) linewidth nested(i) notitle
