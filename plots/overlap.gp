# SPDX-License-Identifier: Apache-2.0
# Layers differ in how much of the recycled cache a refresh keeps.
set rmargin at screen 0.84
unset grid
set style fill solid noborder
set xlabel 'Decode step of the refresh; a box lasts until the next' offset 0,below
set ylabel 'Layer' offset 0.6,0
stats data using 'row' nooutput name 'row'
every_row = ceil(row_max / 12.0)
set ytics ()
set cbrange [0:1]
set cblabel 'Share of C_r kept' offset beside,0
set colorbox user origin screen 0.86, screen panel_bottom size screen 0.025, screen panel_top - panel_bottom
set cbtics 0.25 font small
set xrange [0:*]
set yrange [0.5:row_max + 0.5]
plot data using (0.5 * (column('step') + column('next'))):'row':'step':'next':(column('row') - 0.46):(column('row') + 0.46):'overlap' \
         with boxxyerror linecolor palette notitle, \
     data using (NaN):'row':ytic(int(column('row') - 1) % int(every_row) == 0 ? strcol('layer') : '') with points notitle
