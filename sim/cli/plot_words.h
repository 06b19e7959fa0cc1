/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text of a store on its way into a figure. It is foreign: it reaches a script only inside quotes
 * that it cannot leave, a table only in cells that it cannot leave, and is UTF-8 without control
 * characters in both, as the formats of figures ask.
 */
#ifndef RA_SIM_CLI_PLOT_WORDS_H
#define RA_SIM_CLI_PLOT_WORDS_H

#include <stdio.h>

/* A cell of a table: no tab, line end, quote or backslash, which gnuplot would read as marks of its
 * own. */
void ra_plot_put_cell(FILE *out, const char *text);

/* name = 'text', a gnuplot string. */
void ra_plot_put_text(FILE *out, const char *name, const char *text);

/* name_1 = 'line', name_2 ... and n_name, the number of lines at most `width` wide, in hundredths
 * of the size of their font. */
void ra_plot_put_lines(FILE *out, const char *name, const char *text, size_t width);

#endif
