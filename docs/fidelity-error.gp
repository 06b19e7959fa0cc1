# SPDX-License-Identifier: Apache-2.0
# Offline error against loss in the closed loop, one point a schedule, one colour a band of equal bytes.
set terminal svg size 660,460 fixed name 'fidelity_error' background 'white' noenhanced font 'sans-serif,15'
set output name.'.svg'
set datafile separator tab
set title 'Schedules: error in the replay, loss of the model' font 'sans-serif,16'
set xlabel 'mean output error in the replay'
set ylabel 'NLL above full attention (nat)'
set key right bottom title 'bytes, of full' samplen 1
set grid linecolor rgb '#e4e4e4'
set border 3
set tics nomirror
array colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9']
stats name.'.tsv' using 1 nooutput
n = STATS_blocks - 1
plot for [i = 0:n - 1] name.'.tsv' index i using 1:2 with points pointtype 7 + 2 * (i % 3) pointsize 1.1 \
     linecolor rgb colours[i % 6 + 1] title columnheader(1)
