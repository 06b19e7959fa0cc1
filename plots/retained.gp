# SPDX-License-Identifier: Apache-2.0
# A few positions stay in the recycled cache for good; most come and go.
# What stays is drawn thicker than one position, and every stay as thick as can be seen.
do for [i = 1:n_series] { eval sprintf("line_%d = %d", i, value('series_'.i.'_1') eq 'stays throughout' ? 3 : 2) }
stats data using 'pos' nooutput
thin = STATS_max > 320 ? STATS_max / 640.0 : 0.5
half(i) = line(i) == 3 ? 3 * thin : thin
x_axis = axis_step.' (-1: prefill)'
y_axis = axis_pos
eval draw_key
eval draw_axes
unset grid
set style fill solid noborder
stats data using 'last_step' nooutput
set xrange [-1.5:*]
set xtics whole(STATS_max)
set yrange [-6 * thin:*]
plot for [i = 1:n_series] data using (is(i) ? column('step') : NaN):'pos':(column('step') - 0.5):(column('last_step') + 0.5):(column('pos') - half(i)):(column('pos') + half(i)) \
         with boxxyerror linetype line(i) notitle
