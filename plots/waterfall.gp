# SPDX-License-Identifier: Apache-2.0
# What a step moves is what the schedule reads and writes, and what its kernels need beside that.
# Names of bars stand left of zero, their values right of the longest: both in points of the page.
kind_line(kind) = kind eq 'predicted' ? 2 : kind eq 'unexplained' ? 3 : 8
do for [i = 1:n_series] { eval sprintf("line_%d = %d", i, kind_line(value('series_'.i.'_1'))) }
n_rows = int(n_rows)
names = 104; bars = 94; values = 29
set lmargin at screen x(5)
set rmargin at screen x(5 + names + bars + values)
left = 5 + names
right = left + bars
stats data using (column('from_mb') + column('dram_mb')) nooutput name 'end'
stats data using 'from_mb' nooutput name 'begin'
most = end_max > begin_max ? end_max : begin_max
most = most > 0 ? most : 1
least = end_min < 0 ? end_min : 0
unit = (most - least) / bars
x_axis = axis_dram_mb
y_axis = ''
eval draw_key
eval draw_axes
unset ytics
unset border
set grid noytics xtics
set style fill solid noborder
set xrange [least - names * unit:most + values * unit]
step = nice(most)
set xtics 0,step,most
set yrange [n_rows + 0.6:0.4]
set arrow 301 from least, n_rows + 0.6 to most, n_rows + 0.6 nohead linecolor rgb '#404040' linewidth 0.8
only(i) = is(i) ? column('from_mb') : NaN
to(dummy) = column('from_mb') + column('dram_mb')
is_part(dummy) = is(1) && series_1_1 eq 'predicted'
plot data using (is_part(0) ? to(0) : NaN):(column('row') + 0.36):(0):(0.28) with vectors nohead linecolor rgb '#808080' linewidth 0.6 notitle, \
     for [i = 1:n_series] data using (only(i)):'row':'from_mb':(to(0)):(column('row') - 0.36):(column('row') + 0.36) \
         with boxxyerror linetype line(i) notitle, \
     data using (least - 2.5 * unit):'row':(strcol('words')) with labels right font small notitle, \
     data using (most + 2.5 * unit):'row':(sprintf('%.3g', column('dram_mb'))) with labels left font small notitle, \
     data using (least - names * unit):(column('row') - 1):(strcol('head')) with labels left font small textcolor rgb '#202020' notitle
