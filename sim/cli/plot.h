/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures: a query and a gnuplot script of one name, compiled in from plots/. The query's rows
 * become NAME.tsv, the columns of its second statement become variables of the script (title,
 * caption, labels), and gnuplot draws NAME.gp. Looks stand in house.gp only.
 */
#ifndef RA_SIM_CLI_PLOT_H
#define RA_SIM_CLI_PLOT_H

#include <stdbool.h>
#include <stdio.h>

#include "profiler/store.h"

enum ra_plot_format { RA_PLOT_SVG, RA_PLOT_PNG, RA_PLOT_PDF };
#define RA_PLOT_FORMATS "svg|png|pdf" /* in the order of the enum */

/* One figure; a table ends with a NULL name. */
struct ra_plot {
    const char *name, *sql, *gp;
};
extern const struct ra_plot ra_plots[];
extern const char *const ra_plot_house_sql, *const ra_plot_house_gp;

/* The sentence at the head of a figure's query: what it supports. */
void ra_plot_claim(const struct ra_plot *plot, char *out, size_t size);

/* The line below it: what runs must hold to be drawn. */
void ra_plot_needs(const struct ra_plot *plot, char *out, size_t size);

/* Of which kind of runs it is, from the line below that: "replay" or "eval". */
const char *ra_plot_kind(const struct ra_plot *plot);

/* Where a figure goes: files NAME.tsv, NAME.gp and NAME.svg (png, pdf) in `folder`. */
struct ra_plot_target {
    const char *folder;
    enum ra_plot_format format;
};

/*
 * Query the store for `runs` (JSON list of {id, series, is_bound}, and what ra_plot_explain adds),
 * write NAME.tsv and NAME.gp. *has_rows is false, and nothing is written, when the store has
 * nothing for this figure. Errors: RA_ESTORE, RA_EIO naming the file.
 */
RA_MUST_CHECK enum ra_status ra_plot_write(struct ra_store *store, const struct ra_plot *plot,
                                           const char *runs, const struct ra_plot_target *target,
                                           bool *has_rows, struct ra_error *err);

/* Run gnuplot on NAME.gp, no shell between. RA_ENODEV naming the package when it is missing;
 * RA_EIO with what it said when it failed. */
RA_MUST_CHECK enum ra_status
ra_plot_draw(const struct ra_plot *plot, const struct ra_plot_target *target, struct ra_error *err);

#endif
