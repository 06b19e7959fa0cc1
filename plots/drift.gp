# SPDX-License-Identifier: Apache-2.0
# In closed loop the loss of a schedule grows with the steps since it last looked at everything.
stats data using 'bin' nooutput name 'bin'
stats data using 'delta_nll' nooutput name 'delta'
least = delta_min < 0 ? delta_min : 0
most = delta_max > 0 ? delta_max : 0
reach = most > least ? most - least : 1
with_marks = 1
x_axis = axis_age
y_axis = axis_delta_nll
set xrange [bin_min - 0.3:bin_max + 0.3]
set xtics ('full' 0, '1' 1)
do for [i = 2:bin_max] { set xtics add (sprintf('%d-', 2 ** (i - 1)) i) }
set yrange [least - 0.06 * reach:most + 0.06 * reach]
set ytics nice(reach)
eval draw_key
eval draw_axes
set arrow 300 from graph 0, first 0 to graph 1, first 0 nohead linecolor rgb '#909090' linewidth 0.8
plot for [i = 1:n_series] data using 'bin':(is(i) ? column('delta_nll') : NaN) with linespoints linetype line(i) \
         linewidth nested(i) pointsize 0.6 * mark notitle
