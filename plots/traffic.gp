# SPDX-License-Identifier: Apache-2.0
# A schedule pays where the bytes that it saves per step are also time saved.
stats data using 'kv_mb' nooutput name 'kv'
stats data using 'step' nooutput name 'first'
if (panels > 1) {
    stats data using 'time_low_ms' nooutput name 'fast'
    stats data using 'time_high_ms' nooutput name 'slow'
    set multiplot
    set format x ''
}
x_axis = panels > 1 ? '' : axis_step
y_axis = axis_kv_mb
low = kv_min; high = kv_max
eval draw_key
set xrange [0:*]
set xtics whole(first_max)
set yrange [0:high > 0 ? high * 1.05 : 1]
if (is_log(30)) { eval log_axis('y'); y_axis = y_axis.', log scale' }
eval draw_axes
plot for [i = 1:n_series] data using 'step':(is(i) ? column('kv_mb') : NaN) with lines linetype line(i) linewidth nested(i) notitle
if (panels > 1) {
    eval clear_labels
    at_panel = 2
    x_axis = axis_step
    y_axis = axis_time_ms
    low = fast_min; high = slow_max
    eval place_panel
    set format x '%g'
    unset logscale y
    set ytics auto
    set yrange [0:high > 0 ? high * 1.05 : 1]
    if (is_log(30)) { eval log_axis('y'); y_axis = y_axis.', log scale' }
    eval draw_axes
    set style fill transparent solid (n_series > 5 ? 0.07 : 0.22) noborder
    plot for [i = 1:n_series] data using 'step':(is(i) ? column('time_low_ms') : NaN):'time_high_ms' \
             with filledcurves linetype line(i) notitle, \
         for [i = 1:n_series] data using 'step':(is(i) ? column('time_ms') : NaN) with lines linetype line(i) linewidth 0.8 notitle
    unset multiplot
}
