/* SPDX-License-Identifier: Apache-2.0 */
/* Figures for the page of a report, drawn in a temporary folder that is gone afterwards. */
#ifndef RA_SIM_CLI_REPORT_FIGURES_H
#define RA_SIM_CLI_REPORT_FIGURES_H

#include "profiler/store.h"
#include "sim/cli/options.h"
#include "sim/report_html.h"

struct ra_figure_slot {
    char claim[256], missing[600];
    char *svg;
};

struct ra_figures {
    struct ra_html_figure *list;  /* [n_named] of all kinds that there are runs of, drawn or not */
    struct ra_figure_slot *slots; /* [n] what the list borrows */
    size_t n, n_named;
    char of[256], of_eval[256]; /* which runs they show, for the page */
    bool lacks_gnuplot;         /* so that none is drawn */
};

/*
 * Draw what the runs hold: see ra_plot_choose for which of them. A figure that cannot be drawn says
 * why in its place. RA_ESTORE, RA_ENOMEM, RA_EIO when there is no place for temporary files. Closed
 * by the caller, also when this fails.
 */
RA_MUST_CHECK enum ra_status ra_figures_draw(struct ra_figures *figures, struct ra_store *store,
                                             const struct ra_option_texts *runs,
                                             struct ra_error *err);
void ra_figures_close(struct ra_figures *figures);

#endif
