# SPDX-License-Identifier: Apache-2.0
# What a recycled cache holds of the attention fades with the steps since it was rebuilt.
# A schedule that is full at every other step has one age, hence one point.
stats data using 'age' nooutput
with_marks = 1
x_axis = axis_age
y_axis = axis_mass_recovered
eval draw_key
eval draw_axes
set xrange [1:STATS_max > 1 ? STATS_max : 2]
set xtics whole(STATS_max)
set xtics add (1)
set yrange [0:1]
set style fill transparent solid (n_series > 3 ? 0.09 : 0.18) noborder
every_point = ceil(STATS_max / 20.0)
plot for [i = 1:n_series] data using 'age':(is(i) ? column('p25') : NaN):'p75' with filledcurves linetype line(i) notitle, \
     for [i = 1:n_series] data using 'age':(is(i) ? column('mass_recovered') : NaN) with linespoints linetype line(i) \
         linewidth nested(i) pointsize 0.6 * mark pointinterval every_point notitle
