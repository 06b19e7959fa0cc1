/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A result's member "traffic" as bars, from what was predicted to what was measured; the last is
 * what is not explained.
 */
#ifndef RA_SIM_REPORT_WATERFALL_H
#define RA_SIM_REPORT_WATERFALL_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_WATERFALL_BARS = 12 };

enum ra_waterfall_kind { RA_WATERFALL_PART, RA_WATERFALL_MEASURED, RA_WATERFALL_UNEXPLAINED };

struct ra_waterfall_bar {
    const char *words;
    enum ra_waterfall_kind kind;
    double bytes; /* per step */
};

struct ra_waterfall {
    struct ra_waterfall_bar bars[RA_WATERFALL_BARS];
    int n;
    const char *missing; /* why there is only what was measured; borrowed; NULL: nothing is */
    bool is_emulated;    /* no card was there to measure */
    double measured;
    double share; /* "unexplained_share"; NaN when not known */
};

/* False: the result has no counters. Parts of no bytes are left out, as is a layer of L2 that was
 * not counted. */
bool ra_waterfall_open(struct ra_waterfall *waterfall, const json_t *result);

/* More than this share of what a step moves is a warning, either way. */
#define RA_WATERFALL_LIMIT 0.05
bool ra_waterfall_warns(const struct ra_waterfall *waterfall);

/* The bars as lines of text, and the warning. */
void ra_waterfall_text(FILE *out, const struct ra_waterfall *waterfall);

#ifdef __cplusplus
}
#endif

#endif
