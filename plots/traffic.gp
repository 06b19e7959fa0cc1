# SPDX-License-Identifier: Apache-2.0
# A schedule pays where the bytes that it saves per step are also time saved.
has_time = int(is_timed) > 0
middle = (panel_top + panel_bottom) / 2
set xlabel 'Decode step' offset 0,below
set logscale y
set xrange [0:*]
eval draw_key
if (has_time) { set multiplot }
if (has_time) { set bmargin at screen middle + 0.015; set format x ''; unset xlabel }
set ylabel 'KV traffic (MB/step)' font small offset 1.2,0
plot for [i = 1:n_series] data using 'step':(is(i) ? column('kv_mb') : NaN) with lines linetype line(i) notitle
if (has_time) {
    eval clear_labels
    set tmargin at screen middle - 0.015
    set bmargin at screen panel_bottom
    set format x '%g'
    set xlabel 'Decode step' offset 0,below
    set ylabel time_label.' (ms/step)' font small offset 1.2,0
    set style fill transparent solid 0.22 noborder
    plot for [i = 1:n_series] data using 'step':(is(i) ? column('time_low_ms') : NaN):'time_high_ms' \
             with filledcurves linetype line(i) notitle, \
         for [i = 1:n_series] data using 'step':(is(i) ? column('time_ms') : NaN) with lines linetype line(i) linewidth 0.8 notitle
    unset multiplot
}
