# SPDX-License-Identifier: Apache-2.0
# All looks: size, fonts, colours, lines, and the places of title, key and caption. A page is 3.3
# inches wide, one column of a paper, and as high as its words need; svg and png are the same page
# at 200 and 240 dots per inch, so that nothing moves. All lengths below are points of that page.
# Set before: title_1.. and caption_1.. (n_title, n_caption: their lines), series_1_1.. (n_series,
# n_series_1..: likewise) and line_1.. (name and line type of each), axis_X (label and unit of
# column X), panels or rows (bars with names), name, format. No text is placed by a terminal, which
# all space it differently.
# Colours: Okabe and Ito, told apart by colour-blind eyes; dashes and points repeat the difference.
face = 'sans-serif'
array key_row[n_series + 1]
array key_column[n_series + 1]
key_rows = 0
is_short = n_series > 4
do for [i = 1:n_series] {
    key_row[i] = key_rows
    key_column[i] = 0
    key_rows = key_rows + value('n_series_'.i)
    if (value('n_series_'.i) > 1 || strlen(value('series_'.i.'_1')) > 24) { is_short = 0 }
}
if (is_short) { key_rows = (n_series + 1) / 2 }
do for [i = 1:n_series] {
    if (is_short) { key_row[i] = (i - 1) % key_rows; key_column[i] = (i - 1) / key_rows }
}
panels = int(panels)
panel = panels > 1 ? 98 : 128
if (exists('rows')) { rows = int(rows); panel = 20 * rows + 4 }
top = 11 + 10.4 * n_title
bottom = top + panels * panel + (panels - 1) * 9
key_top = bottom + 28
caption_top = key_top + 9.4 * key_rows + (key_rows > 0 ? 4 : 0)
page = caption_top + 7.8 * n_caption + 4
left = 42
right = 226

if (format eq 'svg') {
    set terminal svg size 660,page * 660 / 237.6 fixed name name background 'white' noenhanced font face.',18' linewidth 1.7
    dots = 660 / 237.6; mark = 0.85
}
if (format eq 'png') {
    set terminal pngcairo size 792,page * 792 / 237.6 noenhanced fontscale 1 font face.',16' linewidth 2 pointscale 1
    dots = 792 / 237.6 * 0.75; mark = 1.6
}
if (format eq 'pdf') {
    set terminal pdfcairo size 3.3in,page / 72 * 1in noenhanced fontscale 1 font face.',5' linewidth 1.2 pointscale 0.45
    dots = 0.75; mark = 1.6
}
font_of(points) = sprintf('%s,%.4g', face, points * dots)
heading = font_of(8); plain = font_of(7); small = font_of(6.5); tiny = font_of(6)
if (!exists('part')) part = ''
set output name.'.'.format.part
set encoding utf8
set datafile separator tab
set datafile columnheaders
set datafile missing ''
data = name.'.tsv'

array colours = ['#000000', '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#7f7f7f']
array points = [5, 7, 9, 11, 13, 15, 4, 6, 8, 10, 12]
do for [i = 1:512] { # the second half, for bounds, is dotted
    set linetype i linecolor rgb colours[(i - 1) % 8 + 1] linewidth 1 \
        dashtype i > 256 ? 3 : 1 + (i - 1) / 8 % 5 pointtype points[(i - 1) % 256 % 11 + 1] pointsize mark
}
set palette defined (0 '#440154', 0.25 '#3b528b', 0.5 '#21918c', 0.75 '#5ec962', 1 '#fde725')
set border 3 linecolor rgb '#404040' linewidth 0.8
set tics nomirror out scale 0.4 textcolor rgb '#202020' font small
set grid linecolor rgb '#e4e4e4' linetype 1 linewidth 0.6

# Places, in fractions of the page: x from the left, y from the top.
x(points) = points / 237.6
y(points) = 1 - points / page
panel_top(i) = top + (i - 1) * (panel + 9)
place_panel = "set tmargin at screen y(panel_top(at_panel)); set bmargin at screen y(panel_top(at_panel) + panel)"
at_panel = 1
eval place_panel
set lmargin at screen x(left)
set rmargin at screen x(right)
set key off
do for [i = 1:n_title] { set label i value('title_'.i) at screen x(5), screen y(10.4 * i - 1) left font heading }
do for [i = 1:n_caption] {
    set label 100 + i value('caption_'.i) at screen x(5), screen y(caption_top + 7.8 * i - 4) left font tiny textcolor rgb '#505050'
}

# What the axes say: x_axis below the last panel, y_axis beside panel at_panel.
draw_axes = "set label 201 x_axis at screen x((left + right) / 2), screen y(bottom + 20) center font plain; \
    set label 202 y_axis at screen x(6), screen y(panel_top(at_panel) + panel / 2) center rotate by 90 font panels > 1 ? small : plain"

# Distance of tics, so that at most five fit: 1, 2 or 5 of a decade. Steps and ages have whole ones.
decade(most) = most > 0 ? 10.0 ** floor(log10(most / 5.0)) : 1
nice(most) = decade(most) * (most / 5.0 < 1.01 * decade(most) ? 1 : most / 5.0 < 2.01 * decade(most) ? 2 : most / 5.0 < 5.01 * decade(most) ? 5 : 10)
whole(most) = most > 5 ? nice(most) : 1

# A logarithmic axis only where zero would hide the differences: tics at 1, 2 and 5 of each decade,
# at decades alone when there are many. `low` and `high` are the ends of the data.
is_log(wide) = low > 0 && high > wide * low
log_tics(axis) = "do for [e = -9:15] { do for [m in (high > 300 * low ? '1' : '1 2 5')] { \
    set ".axis."tics add (sprintf('%g', m * 10.0 ** e) m * 10.0 ** e) } }"
log_axis(axis) = "set logscale ".axis."; set ".axis."range [low / 1.4:high * 1.4]; set ".axis."tics (); ".log_tics(axis)

# The key is drawn by hand: swatch and name of series i, below the panels, never over data. With
# marks, a point stands on the swatch.
key_x(i) = x(5 + 116 * key_column[i])
key_y(i, row) = y(key_top + 9.4 * (key_row[i] + row - 0.5))
with_marks = 0
draw_key = "do for [i = 1:n_series] { \
    set arrow 1000 + i from screen key_x(i), screen key_y(i, 1) to screen key_x(i) + x(13), screen key_y(i, 1) nohead linetype value('line_'.i) linewidth 2.2; \
    do for [j = 1:value('n_series_'.i)] { set label 1000 + 20 * i + j value('series_'.i.'_'.j) at screen key_x(i) + x(16), screen key_y(i, j) left font small }; \
    if (with_marks) { set label 1000 + 20 * i '' at screen key_x(i) + x(6.5), screen key_y(i, 1) point linetype value('line_'.i) } }"
line(i) = int(value('line_'.i))
is(i) = column('line') == i
# Equal lines are drawn one upon the other, the later the thinner, so that each can be seen.
nested(i) = n_series > 1 ? 2.2 - 1.4 * (i - 1) / (n_series - 1) : 1.2
clear_labels = "unset label; unset arrow"
