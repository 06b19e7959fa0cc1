# SPDX-License-Identifier: Apache-2.0
# Schedules by their error, and whether the order is the one of the paper behind `recycled`.
kind_line(kind) = kind eq "in the paper's order" ? 2 : kind eq 'a bound, no schedule' ? 8 : 7
do for [i = 1:n_series] { eval sprintf("line_%d = %d", i, kind_line(value('series_'.i.'_1'))) }
left = 8
right = 229
set lmargin at screen x(left)
set rmargin at screen x(right)
stats data using 'p75' nooutput name 'quartile'
stats data using 'output_rel_err' nooutput name 'mean'
most = quartile_max > mean_max ? quartile_max : mean_max
x_axis = axis_output_rel_err
y_axis = ''
eval draw_key
eval draw_axes
unset ytics
set border 1
set grid noytics xtics
set style fill solid noborder
set xrange [0:most > 0 ? most * 1.04 : 1]
set xtics nice(most)
set yrange [rows + 0.6:0.4]
only(i) = is(i) ? 0 : NaN
plot for [i = 1:n_series] data using (only(i)):'row':(0):'output_rel_err':(column('row')):(column('row') + 0.42) \
         with boxxyerror linetype line(i) notitle, \
     data using 'output_rel_err':(column('row') + 0.21):'p25':'p75' \
         with xerrorbars linecolor rgb '#202020' linewidth 0.9 pointtype 0 notitle, \
     data using (0):(column('row') - 0.2):'policy' with labels left font small notitle
