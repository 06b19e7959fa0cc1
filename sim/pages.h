/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of keys and what is kept of each, in f64: enough to tell which pages a query may want
 * without reading their keys. And the choice among pages. Of one layer at a time.
 * Sources: Quest, arXiv:2406.10774, section 3.2 (bounds); TriForce, arXiv:2404.11912, section 4.1
 * (means).
 */
#ifndef RA_SIM_PAGES_H
#define RA_SIM_PAGES_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_pages;

/* For at most max_rows keys of each KV head. `model` is borrowed until close. RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_pages_open(struct ra_pages **pages, const struct ra_model *model,
                                           int32_t page, enum ra_page_digest digest,
                                           int32_t max_rows, struct ra_error *err);
void ra_pages_close(struct ra_pages *pages); /* accepts NULL */

/* Are they of that kind? */
bool ra_pages_are(const struct ra_pages *pages, int32_t page, enum ra_page_digest digest);

/* Forget all rows: another layer begins. */
void ra_pages_restart(struct ra_pages *pages);

/* Take in the rows of KV head `kv` up to L keys; those taken in before are not read again.
 * k [rows][D] as stored, position 0 first. */
void ra_pages_extend(struct ra_pages *pages, int kv, const void *k, int32_t L);

/* Pages that L keys fill, the last perhaps in part. */
int32_t ra_pages_count(int32_t L, int32_t page);

/* Keys that lie in pages by `rule`, of L; and pages to choose among `n` of them. */
int32_t ra_pages_rows(const struct ra_page_rule *rule, int32_t L);
int32_t ra_pages_wanted(const struct ra_page_rule *rule, int32_t n);

/*
 * Score all pages of KV head `kv` for its group's queries q [G][D] f32.
 *
 *   out  filled: [G][n], row stride n = pages taken in
 */
void ra_pages_score(const struct ra_pages *pages, int kv, const float *q, double *out);

/*
 * Choose for one KV head.
 *
 *   scores   [G][n], row stride n = ra_pages_count(L, rule->page)
 *   L        keys that lie in pages
 *   order    [L] filled: every position of the chosen pages in the order in which they would be
 *            evicted: the lowest-ranked page first, within a page the highest position first.
 *            Pages that are always chosen rank best, the newest above page 0.
 *   scratch  [2 * n] f64
 *
 * Ranks by (score descending, page ascending). Returns the number of positions.
 */
int32_t ra_pages_choose(const struct ra_page_rule *rule, const double *scores, int G, int32_t L,
                        int32_t *order, double *scratch);

#ifdef __cplusplus
}
#endif

#endif
