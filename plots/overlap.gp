# SPDX-License-Identifier: Apache-2.0
# Layers differ in how much of the recycled cache a refresh keeps.
right = 192
set rmargin at screen x(right)
unset grid
set style fill solid noborder
stats data using 'row' nooutput name 'row'
every_row = ceil(row_max / 12.0)
x_axis = axis_step.' of the refresh; a box lasts until the next'
y_axis = axis_layer
eval draw_axes
set label 203 axis_refresh_overlap at screen x(233), screen y(panel_top(1) + panel / 2) center rotate by 90 font plain
set ytics ()
set cbrange [0:1]
set colorbox user origin screen x(right + 6), screen y(bottom) size screen x(6), screen panel / page
set cbtics 0.25 font small
stats data using 'next' nooutput name 'ends'
set xrange [0:*]
set xtics whole(ends_max)
set yrange [0.5:row_max + 0.5]
half = row_max > 12 ? 0.5 : 0.46
plot data using (0.5 * (column('step') + column('next'))):'row':'step':'next':(column('row') - half):(column('row') + half):'refresh_overlap' \
         with boxxyerror linecolor palette notitle, \
     data using (NaN):'row':ytic(int(column('row') - 1) % int(every_row) == 0 ? strcol('layer') : '') with points notitle
