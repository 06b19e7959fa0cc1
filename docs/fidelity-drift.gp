# SPDX-License-Identifier: Apache-2.0
# Loss in the closed loop by steps since the last full step, one line a schedule of one band.
set terminal svg size 660,600 fixed name 'fidelity_drift' background 'white' noenhanced font 'sans-serif,15'
set output name.'.svg'
set datafile separator tab
set title 'Loss by steps since the last full step' font 'sans-serif,16'
set xlabel 'steps since the last full step (leftmost: at full steps)'
set ylabel 'NLL above full (nat)'
set key below left maxcols 2 font 'sans-serif,12'
set logscale x 2
set grid linecolor rgb '#e4e4e4'
set border 3
set tics nomirror
array colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#7f7f7f']
stats name.'.tsv' using 1 nooutput
n = STATS_blocks - 1
plot for [i = 0:n - 1] name.'.tsv' index i using 1:2 with linespoints pointtype 5 + 2 * (i % 4) pointsize 0.7 \
     linecolor rgb colours[i % 8 + 1] title columnheader(1)
