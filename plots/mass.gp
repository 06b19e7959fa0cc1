# SPDX-License-Identifier: Apache-2.0
# What a recycled cache holds of the attention fades with the steps since it was rebuilt.
eval draw_key
set xlabel 'Steps since the last refresh' offset 0,below
set ylabel 'Mass recovered (1 = all)' offset near,0
set xrange [1:*]
set yrange [0:1]
set style fill transparent solid 0.18 noborder
plot for [i = 1:n_series] data using 'age':(is(i) ? column('p25') : NaN):'p75' with filledcurves linetype line(i) notitle, \
     for [i = 1:n_series] data using 'age':(is(i) ? column('mass') : NaN) with lines linetype line(i) linewidth 1.6 notitle
