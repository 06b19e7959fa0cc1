# SPDX-License-Identifier: Apache-2.0
# All looks: size, fonts, colours, lines, and the places of title, key and caption. A page is 3.3
# inches wide, one column of a paper; svg and png are the same page enlarged, so that nothing moves.
# Set before: title, caption (n_title, n_caption: their lines), n_series, series_1.. and line_1..
# (name and line type of each), name, format.
# Colours: Okabe and Ito, told apart by colour-blind eyes; dashes and points repeat the difference.
# Terminals space labels differently: mark is a point's size; below, beside and
# near bring the labels of the x axis, the colour box and the y axis closer.
face = 'Liberation Sans'
if (format eq 'svg') {
    set terminal svg size 990,900 dynamic name name background 'white' noenhanced font face.',26' linewidth 2.5
    small = ',23'; tiny = ',19'; heading = ',29'; mark = 1; below = 0.75; beside = -1.8; near = 2
}
if (format eq 'png') {
    set terminal pngcairo size 990,900 noenhanced font face.',21' linewidth 2.5
    small = ',18'; tiny = ',15'; heading = ',22.5'; mark = 1.5; below = 0.4; beside = -0.8; near = 1.2
}
if (format eq 'pdf') {
    set terminal pdfcairo size 3.3in,3in noenhanced font face.',8.6' linewidth 0.6 pointscale 0.3
    small = ',7.4'; tiny = ',6.1'; heading = ',9.2'; mark = 1.5; below = 0.4; beside = -0.8; near = 1.2
}
set output name.'.'.format
set encoding utf8
set datafile separator tab
set datafile columnheaders
set datafile missing ''
data = name.'.tsv'

array colours = ['#000000', '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#7f7f7f']
do for [i = 1:32] {
    set linetype i linecolor rgb colours[(i - 1) % 8 + 1] linewidth 1 \
        dashtype 1 + (i - 1) / 8 pointtype 4 + (i - 1) % 11 pointsize 1
}
set palette defined (0 '#440154', 0.25 '#3b528b', 0.5 '#21918c', 0.75 '#5ec962', 1 '#fde725')
set border 3 linecolor rgb '#404040'
set tics nomirror out scale 0.5 textcolor rgb '#202020' font small
set grid linecolor rgb '#e4e4e4' linetype 1 linewidth 0.5

# Places, in fractions of the page: title at the top, then panels, key, caption at the bottom.
key_columns = 1
do for [i = 1:n_series] { if (n_series > 4 && i == 1) { key_columns = 2 } }
do for [i = 1:n_series] { if (strlen(value('series_'.i)) > 34) { key_columns = 1 } }
key_rows = (n_series + key_columns - 1) / key_columns
caption_top = 0.01 + 0.029 * n_caption
key_top = caption_top + 0.01 + 0.036 * key_rows
panel_top = 1 - 0.03 - 0.043 * n_title
panel_bottom = key_top + 0.115
panel_left = 0.135
panel_right = 0.97
set label 1 title at screen 0.02, screen 0.975 left font heading textcolor rgb '#000000'
set label 2 caption at screen 0.02, screen caption_top - 0.012 left font tiny textcolor rgb '#505050'
set key off
set lmargin at screen panel_left
set rmargin at screen panel_right
set tmargin at screen panel_top
set bmargin at screen panel_bottom

# The key is drawn by hand: swatch and name of series i, below the panels, never over data. With
# marks, a point stands on the swatch.
key_x(i) = 0.03 + 0.49 * ((i - 1) / key_rows)
key_y(i) = key_top - 0.036 * ((i - 1) % key_rows + 0.5)
with_marks = 0
draw_key = "do for [i = 1:n_series] { \
    set arrow 100 + i from screen key_x(i), screen key_y(i) to screen key_x(i) + 0.045, screen key_y(i) nohead linetype value('line_'.i) linewidth 2; \
    set label 100 + i value('series_'.i) at screen key_x(i) + 0.055, screen key_y(i) left font small; \
    if (with_marks) { set label 200 + i '' at screen key_x(i) + 0.0225, screen key_y(i) point linetype value('line_'.i) pointsize mark } }"
line(i) = int(value('line_'.i))
is(i) = strcol('series') eq value('series_'.i)
clear_labels = "unset label; unset arrow"
