# SPDX-License-Identifier: Apache-2.0
# A sparse schedule gives some of its gain back to choosing and moving: where its time goes.
# An operation has the same colour in every figure; what is timed as a whole is grey.
op_line(op) = op eq 'attend' ? 2 : op eq 'scores' ? 6 : op eq 'select' ? 7 : op eq 'refresh' ? 3 : \
              op eq 'evict' ? 5 : op eq 'append' ? 4 : op eq 'cosine' ? 1 : 8
do for [i = 1:n_series] { eval sprintf("line_%d = %d", i, op_line(value('series_'.i.'_1'))) }
left = 8
right = 229
set lmargin at screen x(left)
set rmargin at screen x(right)
stats data using 'high_ms' nooutput name 'slow'
x_axis = axis_time_ms
y_axis = ''
eval draw_key
eval draw_axes
unset ytics
set border 1
set grid noytics xtics
set style fill solid noborder
set xrange [0:slow_max > 0 ? slow_max * 1.04 : 1]
set xtics nice(slow_max)
set yrange [rows + 0.6:0.4]
only(i) = is(i) ? column('from_ms') : NaN
name_of(dummy) = strcol('policy').sprintf(': %.3g ms', column('total_ms'))
plot for [i = 1:n_series] data using (only(i)):'row':'from_ms':(column('from_ms') + column('time_ms')):(column('row')):(column('row') + 0.42) \
         with boxxyerror linetype line(i) notitle, \
     data using (column('from_ms') == 0 ? column('total_ms') : NaN):(column('row') + 0.21):'low_ms':'high_ms' \
         with xerrorbars linecolor rgb '#202020' linewidth 0.9 pointtype 0 notitle, \
     data using (column('from_ms') == 0 ? 0 : NaN):(column('row') - 0.2):(name_of(0)) with labels left font small notitle
