/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results as one page of HTML that needs nothing beside itself: no network, script or font. What it
 * says comes from the results of the runs and from queries of the store, which it shows; text of
 * the store is foreign and is escaped wherever it stands.
 */
#ifndef RA_SIM_REPORT_HTML_H
#define RA_SIM_REPORT_HTML_H

#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A figure: its query, the sentence at the query's head, and either the drawing, an SVG document
 * whose text is escaped, or why there is none. */
struct ra_html_figure {
    const char *name, *kind, *claim, *sql; /* kind: of runs, "replay" or "eval" */
    const char *svg, *missing;             /* one of them is NULL */
};

/* Results of one invocation: a speed-up is only defined among them. Same order. */
struct ra_html_invocation {
    const json_t *ids, *results; /* lists of run.id and of result objects */
};

/* All borrowed. */
struct ra_html_source {
    struct ra_store *store;
    const char *name; /* of the store, as the user gave it */
    const char *runs; /* JSON list of {id, series} of all runs reported, without results included */
    const struct ra_html_invocation *invocations;
    size_t n_invocations;                   /* of replays */
    const struct ra_html_invocation *evals; /* [n_evals] of `eval` */
    size_t n_evals;
    const struct ra_html_figure *figures;
    size_t n_figures;
    const char *figures_of, *eval_figures_of; /* which runs they show, or why there is none */
};

/* Write the page to the caller's stream; the caller checks the stream for errors. Errors:
 * RA_EFORMAT for results that are no objects, RA_ESTORE naming the file, RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_report_html(FILE *out, const struct ra_html_source *source,
                                            struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
