/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: the rows of metrics.def, from which figures take labels and units and `list metrics` its
 * table. Measured values carry the name of their row; nothing here measures.
 */
#ifndef RA_PROFILER_METRICS_H
#define RA_PROFILER_METRICS_H

#ifdef __cplusplus
extern "C" {
#endif

enum ra_better { RA_BETTER_NONE, RA_BETTER_LOWER, RA_BETTER_HIGHER };

struct ra_metric {
    const char *name;  /* column of the store or of a figure's table, or member of a result */
    const char *tag;   /* place among all metrics, "attn/time/step" */
    const char *label; /* what an axis says */
    const char *unit;  /* "" for a plain number */
    enum ra_better better;
    const char *help; /* one line, no full stop */
};

/* All of them; the last has a NULL name. */
extern const struct ra_metric ra_metrics[];

/* NULL when there is none of that name. */
const struct ra_metric *ra_metric_find(const char *name);

/* "lower", "higher", or "-" where neither is better. */
const char *ra_better_name(enum ra_better better);

#ifdef __cplusplus
}
#endif

#endif
