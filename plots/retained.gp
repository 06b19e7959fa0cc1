# SPDX-License-Identifier: Apache-2.0
# A few positions stay in the recycled cache for good; most come and go.
# What stays is drawn thicker than one position, or it could not be seen.
do for [i = 1:n_series] { eval sprintf("line_%d = %d", i, value('series_'.i) eq 'stays throughout' ? 3 : 2) }
eval draw_key
half(i) = line(i) == 3 ? 6 : 0.5
unset grid
set style fill solid noborder
set xlabel 'Decode step (-1: prefill)' offset 0,below
set ylabel 'Position (token)' offset 1.5 * near - 0.8,0
set xrange [-1.5:*]
set yrange [-10:*]
plot for [i = 1:n_series] data using (is(i) ? column('first_step') : NaN):'pos':(column('first_step') - 0.5):(column('last_step') + 0.5):(column('pos') - half(i)):(column('pos') + half(i)) \
         with boxxyerror linetype line(i) notitle
