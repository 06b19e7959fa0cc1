/* SPDX-License-Identifier: Apache-2.0 */
/* Timing in turn, medians, and the line of JSON. */
#include "kernels/bench/bench.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim/base/cache.h"
#include "sim/base/stats.h"

double ra_bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double seconds(const struct ra_bench_side *side)
{
    double start = ra_bench_now();
    side->run(side->context);
    return ra_bench_now() - start;
}

static double median(const double *values)
{
    double sorted[RA_BENCH_RUNS];
    for (int i = 0; i < RA_BENCH_RUNS; i++)
        sorted[i] = values[i];
    ra_sort(sorted, RA_BENCH_RUNS);
    return sorted[RA_BENCH_RUNS / 2];
}

static json_t *side_json(const struct ra_bench_side *side, const double *rates)
{
    json_t *list = json_array();
    for (int i = 0; i < RA_BENCH_RUNS; i++)
        json_array_append_new(list, json_real(rates[i]));
    return json_pack("{s:s, s:f, s:o}", "name", side->name, "median", median(rates), "runs", list);
}

void ra_bench_run(const struct ra_bench *bench)
{
    double a[RA_BENCH_RUNS], b[RA_BENCH_RUNS], ratio[RA_BENCH_RUNS];
    bench->a.run(bench->a.context);
    bench->b.run(bench->b.context);
    for (int i = 0; i < RA_BENCH_RUNS; i++) {
        a[i] = bench->a.amount / bench->scale / seconds(&bench->a);
        b[i] = bench->b.amount / bench->scale / seconds(&bench->b);
        ratio[i] = a[i] / b[i];
    }
    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:f, s:o, s:o, s:o, s:s, s:s, s:i, s:I, s:b}", "case", bench->name,
        "shape", bench->shape, "unit", bench->unit, "value", median(ratio), "target",
        isnan(bench->target) ? json_null() : json_real(bench->target), "a", side_json(&bench->a, a),
        "b", side_json(&bench->b, b), "limit", bench->limit, "checked", bench->checked, "threads",
        bench->threads, "working_set_bytes", (json_int_t)bench->working_set, "cache_resident",
        bench->working_set <= 2 * ra_cache_bytes());
    json_dumpf(line, stdout, JSON_REAL_PRECISION(5));
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

void ra_bench_stop(const char *name, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", name, why);
    exit(1);
}

uint64_t ra_bench_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

float ra_bench_uniform(uint64_t *state)
{
    return (float)(ra_bench_random(state) >> 40) * 0x1p-23F - 1;
}
