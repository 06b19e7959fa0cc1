# SPDX-License-Identifier: Apache-2.0
# What a schedule saves in keys the model pays for when it decodes: which one pays least.
stats data using 'low' nooutput name 'below'
stats data using 'high' nooutput name 'above'
least = below_min < 0 ? below_min : 0
most = above_max > 0 ? above_max : 0
reach = most > least ? most - least : 1
with_marks = 1
x_axis = axis_keys_share
y_axis = axis_delta_nll
set xrange [0:1.04]
set xtics 0.2
set yrange [least - 0.06 * reach:most + 0.06 * reach]
set ytics nice(reach)
eval draw_key
eval draw_axes
set arrow 300 from graph 0, first 0 to graph 1, first 0 nohead linecolor rgb '#909090' linewidth 0.8
plot for [i = 1:n_series] data using (is(i) ? column('keys_share') : NaN):'delta_nll':'low':'high' \
         with yerrorbars linetype line(i) linewidth nested(i) notitle
