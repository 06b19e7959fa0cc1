/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cpu backend full of rows to time operations on: enough layers that going round them leaves no
 * row in any cache, one query each, and the same attention written plainly to check against.
 */
#ifndef RA_KERNELS_BENCH_BED_H
#define RA_KERNELS_BENCH_BED_H

#include "kernels/bench/bench.h"
#include "kernels/cpu/cpu.h"

struct ra_bed {
    struct ra_model model;
    struct ra_backend_config config;
    int32_t L, K;
    struct ra_cpu *cpu;
    int32_t *window; /* [n_layers] zeros */
    float *q;        /* [n_layers][Hq][D], values of the stored type */
    float *out;      /* [Hq][Dv] */
    int32_t *set[2]; /* [n_layers][Hkv][K] ascending; a quarter of the second is not in the first */
    int now;         /* which of the two C_r holds */
    char shape[96];
};

struct ra_bed_shape {
    int Hq, Hkv, D;
    int32_t L, K; /* K = 0: no C_r */
    enum ra_cache_mode cache;
    size_t bytes; /* of KV to rotate over, at least */
    int n_threads;
};

/* f16 rows from a fixed seed; C_r holds K positions at random. Exits when there is no memory, as
 * all of these do when an operation fails. */
void ra_bed_open(struct ra_bed *bed, const struct ra_bed_shape *shape);
void ra_bed_close(struct ra_bed *bed);

/* K and V of C_f, all layers; of one layer's attended set of n keys per KV head. */
size_t ra_bed_bytes(const struct ra_bed *bed);
size_t ra_bed_set_bytes(const struct ra_bed *bed, int32_t n);

/* Bring C_r of all layers to the other of its two sets; returns the rows moved. */
int64_t ra_bed_refresh(struct ra_bed *bed);

/* Rows that are in the other set and not in the present one. */
int64_t ra_bed_changes(const struct ra_bed *bed);

/* Query of a layer, [Hq][D]. */
const float *ra_bed_query(const struct ra_bed *bed, int layer);

/* Attention of all layers in turn over every row, over C_r and self. `bed` is a struct ra_bed. */
void ra_bed_attend_full(void *bed);
void ra_bed_attend_recycled(void *bed);

/* Worst relative error over layers and heads of `attend_full` (recycled: of `attend_recycled`)
 * against f64 sums written here. Exits when it is above the bound of the contract. */
double ra_bed_check(struct ra_bed *bed, bool recycled);

#endif
