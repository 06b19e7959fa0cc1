/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a policy through a made-up decoding run as the engine does: plan, learn, attend, advance,
 * with seeded scores and queries in place of a trace. Keeps what the last step attended to.
 */
#ifndef RA_TESTS_SUPPORT_DRIVE_H
#define RA_TESTS_SUPPORT_DRIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/policy.h"

enum { DRIVE_LAYERS = 4, DRIVE_HEADS = 8, DRIVE_ROWS = 160, DRIVE_D = 8 };

struct drive {
    /* Set before drive_open; drive_init gives them ordinary values. */
    struct ra_model model;
    int32_t P, N;
    int n_layers;
    int layer_ids[DRIVE_LAYERS];
    uint64_t seed;
    int levels;       /* scores are whole numbers below it, so that ties abound; 0: reals */
    bool by_install;  /* hand the policy its choices through install, as a backend would */
    bool step_major;  /* drive_all: all layers of a step, then the next step */
    int phase, of;    /* of the sequence, among those of its batch; 0 of 0: alone */
    const int *heads; /* [Hkv] permutation of KV heads in the scores; NULL: none */

    struct ra_policy_spec *spec;
    struct ra_policy *policy;
    struct ra_policy_env env;
    struct ra_queries queries;
    double mean[DRIVE_LAYERS * DRIVE_ROWS * DRIVE_D];
    double prob[DRIVE_HEADS * DRIVE_ROWS];

    /* Of the last step. */
    struct ra_step step;
    struct ra_plan plan;
    int n_sets;
    int32_t n_attended[DRIVE_HEADS];
    int32_t attended[DRIVE_HEADS][DRIVE_ROWS]; /* ascending, self last */
};

/* P = 12, N = 20, two layers 0 and 1, Hq = 4, Hkv = 2, random queries, no rotation. */
void drive_init(struct drive *d, uint64_t seed);

/* Random queries in place of d->mean; `jitter` is the share that changes from step to step. */
void drive_queries(struct drive *d, double jitter);

/* Parse and open; queries are offered if the policy needs them. */
enum ra_status drive_open(struct drive *d, const char *spelling, struct ra_error *err);
void drive_close(struct drive *d);

/* Full scores [Hq][L] of a (layer, step), the same whenever asked. */
const double *drive_scores(struct drive *d, int layer, int32_t t);

/* One (layer, t): everything from plan to advance. */
void drive_step(struct drive *d, int layer, int32_t t);

/* Prefill and all steps of all layers; `each` is called after every decode step. */
void drive_all(struct drive *d, void (*each)(struct drive *d, void *context), void *context);

/* Uniform in [0, n); a function of the state alone. */
uint32_t drive_random(uint64_t *state, uint32_t n);

#endif
