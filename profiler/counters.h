/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of a GPU: what CUPTI calls them on which chip, and how many executions they need. All of
 * it works without a GPU and without a driver, for every chip the library knows; only the data to
 * evaluate come from one. The first call loads two libraries and takes a third of a second.
 *
 * Every call that asks CUPTI returns RA_ENODEV, naming what is missing, where CUPTI was not there
 * when this was built or is not there now.
 */
#ifndef RA_PROFILER_COUNTERS_H
#define RA_PROFILER_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- ours: counters.def ------------------------------------------------------------------------
 */

/* A metric of metrics.def as some chips have it. Values are in hw_unit, which is the metric's unit
 * in CUPTI's words. */
struct ra_counter {
    const char *name; /* of metrics.def */
    const char *cupti_name, *hw_unit;
    bool is_additive;  /* values of ranges that follow each other may be summed; never a ratio */
    unsigned families; /* bits of counters.c */
};

/* All of them; the last has a NULL name. A name has several rows where chips call it differently;
 * they are neighbours. */
extern const struct ra_counter ra_counters[];

/* Metrics that one execution gives together on each chip from Turing on with memory of its own. */
struct ra_counter_set {
    const char *name;         /* "core" */
    const char *const *names; /* of metrics.def; ends with NULL */
};
extern const struct ra_counter_set ra_counter_sets[]; /* the last has a NULL name */

/* The row of a metric on a chip; NULL where the chip lacks it or either is unknown here. */
const struct ra_counter *ra_counter_find(const char *chip, const char *name);

enum { RA_COUNTER_NAME_MAX = 128 };
struct ra_counter_choice {
    char name[RA_COUNTER_NAME_MAX]; /* of metrics.def, or the CUPTI name where it was given */
    char cupti_name[RA_COUNTER_NAME_MAX];
};

/*
 * Take a list apart: names of metrics, of sets, and CUPTI names ("core,dram_pct,lts__t_bytes.sum"),
 * each metric once, in the order of their first mention. The caller frees *choices. Whether CUPTI
 * knows its own names is not asked.
 * Errors: RA_EUSAGE for what nothing is called, with the nearest name; RA_ENODEV for a metric the
 * chip lacks; RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_counter_choose(const char *chip, const char *list,
                                               struct ra_counter_choice **choices, size_t *n,
                                               struct ra_error *err);

/* --- CUPTI's -----------------------------------------------------------------------------------
 */

/* The chips that CUPTI lists, borrowed for good. Not all of them can be used: ra_counter_probe. */
RA_MUST_CHECK enum ra_status ra_counter_chips(const char *const **chips, size_t *n,
                                              struct ra_error *err);

/* Whether CUPTI has counters for a chip. RA_EUSAGE with the nearest names where it does not know
 * it; RA_ENODEV where it only lists it. */
RA_MUST_CHECK enum ra_status ra_counter_probe(const char *chip, struct ra_error *err);

struct ra_counter_info {
    char block[32];  /* part of the chip: "dram", "lts" */
    char unit[48];   /* "byte", "l2_sector" */
    char text[256];  /* CUPTI's description, cut to fit */
    bool is_counter; /* not a ratio, nor a throughput, which is the largest of many ratios */
    bool is_additive;
};

/* What CUPTI says of a metric, by its CUPTI name. RA_EUSAGE with the nearest name where the chip
 * has none of that name. */
RA_MUST_CHECK enum ra_status ra_counter_describe(const char *chip, const char *cupti_name,
                                                 struct ra_counter_info *info,
                                                 struct ra_error *err);

/* Metrics that are counted together. Made and freed here; for reading only. */
struct ra_counter_plan {
    void *host;
    char **cupti_names; /* [n_metrics] */
    size_t n_metrics;
    uint8_t *config; /* what a range profiler is configured with */
    size_t config_bytes;
    size_t n_passes; /* executions needed */
};

/*
 * Plan for n > 0 metrics, each given once, by CUPTI names. `availability` is the image that
 * cuptiProfilerGetCounterAvailability filled on the device, or NULL: whatever the chip can count.
 * The caller closes *plan.
 * Errors: as ra_counter_describe and ra_counter_probe; RA_EUSAGE for a metric given twice, which
 * CUPTI would count twice; RA_EDEVICE for anything else that CUPTI refuses, with its words.
 */
RA_MUST_CHECK enum ra_status ra_counter_plan_open(struct ra_counter_plan **plan, const char *chip,
                                                  const uint8_t *availability,
                                                  const char *const *cupti_names, size_t n,
                                                  struct ra_error *err);
void ra_counter_plan_close(struct ra_counter_plan *plan); /* accepts NULL */

/* Decoded counter data, borrowed. */
struct ra_counter_data {
    const uint8_t *image;
    size_t bytes;
};

/* Values of a range, [n_metrics] in the order of the plan; NaN where CUPTI has none, which must not
 * become 0. */
RA_MUST_CHECK enum ra_status ra_counter_plan_evaluate(const struct ra_counter_plan *plan,
                                                      struct ra_counter_data data, size_t range,
                                                      double *values, struct ra_error *err);

/* The name that the range was given when it was pushed; RA_ERANGE where it does not fit. */
RA_MUST_CHECK enum ra_status ra_counter_range_name(struct ra_counter_data data, size_t range,
                                                   char *name, size_t size, struct ra_error *err);

/*
 * Share metrics out to as few executions as putting each into the first one it fits gives: run_of
 * [n] is filled with each one's, from 0 and without gaps, passes [n_runs] (room for n) with what
 * each needs: 1, or more for a metric that needs several by itself and then has it alone.
 */
RA_MUST_CHECK enum ra_status ra_counter_split(const char *chip, const char *const *cupti_names,
                                              size_t n, size_t *run_of, size_t *passes,
                                              size_t *n_runs, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
