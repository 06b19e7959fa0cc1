/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random attention problem for backend tests: shape, rows, a query, an open backend, and a naive
 * f64 attention over any list of positions to hold it to. One seed, one case.
 */
#ifndef RA_TESTS_SUPPORT_BACKEND_CASE_H
#define RA_TESTS_SUPPORT_BACKEND_CASE_H

#include "kernels/backend.h"

/* splitmix64: the tests' own generator. */
uint64_t ra_case_random(uint64_t *state);
/* Uniform in 0..n-1. */
int32_t ra_case_below(uint64_t *state, int32_t n);
/* Roughly normal: mean 0, variance 1. */
float ra_case_normal(uint64_t *state);

struct ra_case {
    struct ra_model model;
    struct ra_backend_config config; /* fill n_threads, cache, ... before ra_case_open */
    int32_t window[4];
    uint64_t seed;
    char *k, *v;    /* [Hkv][max_rows][D], [Dv], stored */
    float *kf, *vf; /* the same, widened */
    float *q;       /* [Hq][D] */
    float *out;     /* [Hq][Dv] */
    const struct ra_backend_ops *ops;
    void *self;
};

/* Shape and rows; attn_scale = 1/sqrt(D). No backend yet. */
/* The same K for every KV head; borrowed until the next call. */
const int32_t *ra_case_each(int32_t K);

void ra_case_init(struct ra_case *c, enum ra_dtype dtype, int Hkv, int G, int D, int Dv,
                  int32_t max_rows, uint64_t seed);
void ra_case_fini(struct ra_case *c);

/* Replace rows by new random ones, scaled. */
void ra_case_fill(struct ra_case *c, float k_size, float v_size);

/* A new random query, rounded to the stored dtype as a recorder would. */
void ra_case_query(struct ra_case *c, float size);

/* Open cpu with c->config, and load rows 0..P-1 of every layer. */
void ra_case_open(struct ra_case *c, int32_t P);
void ra_case_close(struct ra_case *c);

/* Append row `row` of the case to a layer. */
void ra_case_append(struct ra_case *c, int layer, int32_t row);

/* Naive attention of one query head over n positions, unsorted or sorted; out [Dv], prob [n] or
 * NULL. */
void ra_case_attend(const struct ra_case *c, int head, const int32_t *pos, int32_t n, double *prob,
                    double *out);

/* Worst relative error of c->out over heads against the naive attention; head h attends to
 * pos[h / (Hq / n_lists)]. */
double ra_case_error(const struct ra_case *c, const struct ra_positions *lists, int n_lists);

#endif
