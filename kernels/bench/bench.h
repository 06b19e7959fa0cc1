/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every micro-benchmark here shares: two things timed in turn, several times over, and one
 * line of JSON that says how they compare. The caller checks results before it times them.
 */
#ifndef RA_KERNELS_BENCH_BENCH_H
#define RA_KERNELS_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RA_BENCH_RUNS = 7 };

/* One side of a comparison: `run` does `amount` units of work in one call. */
struct ra_bench_side {
    const char *name;
    void (*run)(void *context);
    void *context;
    double amount; /* units per call */
};

/*
 * Each call of `a` is followed by one of `b`; the value is the median over the runs of a's rate
 * divided by b's rate in the same run, so that a machine that slows down slows both.
 */
struct ra_bench {
    const char *name;  /* of the case, kebab-case */
    const char *shape; /* what was run, in the letters of the project */
    const char *unit;  /* of both rates: "GB/s", "rows/s" */
    double scale;      /* units of `unit` per unit of amount */
    struct ra_bench_side a, b;
    double target;       /* of the value; NAN: none was set */
    const char *limit;   /* what the value cannot exceed, and why */
    const char *checked; /* what was compared before timing, with the worst figure */
    int threads;
    size_t working_set; /* bytes the runs rotate over */
};

/* Monotonic, in seconds. */
double ra_bench_now(void);

/* Both sides once untimed, then in turn; prints the line. */
void ra_bench_run(const struct ra_bench *bench);

/* Print why a case could not run, and exit 1. */
__attribute__((noreturn)) void ra_bench_stop(const char *name, const char *why);

/* splitmix64, and a number in [-1, 1) from it. */
uint64_t ra_bench_random(uint64_t *state);
float ra_bench_uniform(uint64_t *state);

#endif
