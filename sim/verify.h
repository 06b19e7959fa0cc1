/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are two results the same? Schedules, sets (through the fingerprint) and integer counts must be
 * equal, quality must agree to 1e-12; times, rounding of a backend and output bits are not
 * compared. Names the first thing that differs.
 */
#ifndef RA_SIM_VERIFY_H
#define RA_SIM_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How far two quality figures may be apart: absolute, plus the same share of their size. */
#define RA_VERIFY_TOLERANCE 1e-12

/* Outcome of comparing two stored runs. Texts are cut to fit. */
struct ra_comparison {
    bool is_equal;
    int64_t id_a, id_b;
    char policy_a[256], policy_b[256];
    char fingerprint_a[65], fingerprint_b[65]; /* "" when a run has none */
    int64_t rows; /* layer-step rows compared before the first difference */
    /* First difference; `column` is "" when there is none. Of a whole run: step and layer -2. A
     * value that was not measured is "". */
    char column[48], value_a[64], value_b[64];
    int32_t step;
    int layer;
};

/*
 * Compare two runs of one store by id or uuid prefix: state, policy, sequence, trace, every
 * layer_step row, fingerprint, in this order, but a difference of a layer_step is reported in
 * preference to one of the whole run, because it says where. RA_OK with is_equal either way; an
 * incomplete run, or one that is no replay, is RA_EUSAGE.
 */
RA_MUST_CHECK enum ra_status ra_verify_runs(struct ra_store *store, const char *a, const char *b,
                                            struct ra_comparison *out, struct ra_error *err);

/*
 * Check results of this invocation (an array of result objects) against expected ones (an object
 * or an array). Each expected object must have a counterpart with its policy and sequence and,
 * where several have, its trace, and agree with it. RA_EDIVERGED naming policy, key, expected and
 * got.
 */
RA_MUST_CHECK enum ra_status ra_verify_results(const json_t *results, const json_t *expected,
                                               const char *where, struct ra_error *err);

/*
 * The same with expected results by name: a JSON file when `what` ends in ".json", else a run of
 * `store`, which may be NULL (then RA_EUSAGE).
 */
RA_MUST_CHECK enum ra_status ra_verify_against(const json_t *results, struct ra_store *store,
                                               const char *what, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
