/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codes of a key that queries notice least. What a key's error e does to a logit is e times a
 * query, so that errors of channels may cancel: e H e is least, H the sum of q q' over queries. Not
 * the nearest codes then, and as many of them. Keys and queries before RoPE; H at their positions.
 */
#ifndef RA_SIM_TRANSFORM_SETTLE_H
#define RA_SIM_TRANSFORM_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of one KV head. */
struct ra_settling {
    int D;                    /* even, at most 256 */
    const float *frequencies; /* [D / 2]; borrowed */
    const double *H;          /* [D][D]; borrowed */
    double damp;              /* share of H's mean diagonal that is added to it */
    int sweeps;
};

/* Queries [G][W][D] as recorded at the W positions before P, and how far they are turned. */
struct ra_settling_queries {
    const float *q;
    int G, W;
    int32_t P, ahead;
};

/*
 * H [D][D]: each query is turned to P, P + 1, ..., P + ahead - 1, where it may come again, and all
 * of that is summed. Of `settling`, D and frequencies are looked at; room is [3][D][D].
 */
void ra_settling_form(const struct ra_settling *settling, const struct ra_settling_queries *queries,
                      double *room, double *H);

/* The nearest of what entry d of a key can be read as. */
typedef double (*ra_settling_choose)(void *context, int d, double wanted);

/*
 * From what the key at `pos` is read as with its nearest codes to what it should be read as: each
 * entry in turn takes the code that makes the error least, `sweeps` times over all.
 *   exact, read  [D] before RoPE; read is changed
 *   fixed        [D] entries that have no code
 */
void ra_settling_row(const struct ra_settling *settling, int32_t pos, const double *exact,
                     const bool *fixed, ra_settling_choose choose, void *context, double *read);

#ifdef __cplusplus
}
#endif

#endif
