/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention against memory: a full step against a plain read of the same rows by the same threads,
 * and a recycled step, compact or gathered, against a full step beside the ratio of their bytes.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/bench/bed.h"
#include "sim/base/wide.h"

enum { READ_TASK = 128 << 10, ROTATE = 256 << 20 };

static volatile uint64_t sink;

/* A sum, so that no load can be left out; four chains, so that loads set the pace. */
RA_WIDE static uint64_t sum_words(const uint64_t *words, size_t n)
{
    uint64_t lane[16] = {0}, sum = 0;
    for (size_t i = 0; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            lane[j] += words[i + j];
    for (size_t j = 0; j < 16; j++)
        sum += lane[j];
    return sum;
}

struct read {
    const char *start;
    size_t bytes;
};

static void read_piece(void *context, size_t task, int worker)
{
    (void)worker;
    const struct read *read = context;
    size_t first = task * READ_TASK, left = read->bytes - first;
    const char *from = read->start + first;
    sink = sum_words((const void *)from, (left < READ_TASK ? left : READ_TASK) / sizeof(uint64_t));
}

static void read_rows(struct ra_bed *bed, const char *start)
{
    struct read read = {start, (size_t)(bed->model.Hkv * bed->L * bed->model.D) * 2};
    ra_pool_run(bed->cpu->pool, (read.bytes + READ_TASK - 1) / READ_TASK, read_piece, &read);
}

static void plain_read(void *context)
{
    struct ra_bed *bed = context;
    for (int layer = 0; layer < bed->config.n_layers; layer++) {
        read_rows(bed, ra_cpu_rows_k(bed->cpu, layer, 0));
        read_rows(bed, ra_cpu_rows_v(bed->cpu, layer, 0));
    }
}

static void describe(char *text, size_t size, double worst)
{
    snprintf(text, size, "every layer against f64: worst relative error %.1e", worst);
}

static void full_step(const struct ra_bed_shape *shape)
{
    struct ra_bed bed;
    char checked[96];
    ra_bed_open(&bed, shape);
    describe(checked, sizeof checked, ra_bed_check(&bed, false));
    double bytes = (double)ra_bed_bytes(&bed);
    struct ra_bench bench = {
        .name = "full step",
        .shape = bed.shape,
        .unit = "GB/s",
        .scale = 1e9,
        .a = {"full step", ra_bed_attend_full, &bed, bytes},
        .b = {"plain read", plain_read, &bed, bytes},
        .target = 0.7,
        .limit = "1: each row of K and V has to be read once",
        .checked = checked,
        .threads = ra_pool_threads(bed.cpu->pool),
        .working_set = ra_bed_bytes(&bed),
    };
    ra_bench_run(&bench);
    ra_bed_close(&bed);
}

static void recycled_step(struct ra_bed_shape shape, enum ra_cache_mode cache)
{
    struct ra_bed bed;
    char checked[96], limit[96];
    shape.K = 1024;
    shape.cache = cache;
    ra_bed_open(&bed, &shape);
    describe(checked, sizeof checked, ra_bed_check(&bed, true));
    size_t rest = strlen(bed.shape);
    snprintf(bed.shape + rest, sizeof bed.shape - rest, " K=%d", (int)bed.K);
    double full = (double)ra_bed_set_bytes(&bed, bed.L);
    double bytes = (double)ra_bed_set_bytes(&bed, bed.K + 1);
    snprintf(limit, sizeof limit, "%.2f: a full step reads so many times the bytes", full / bytes);
    struct ra_bench bench = {
        .name = cache == RA_CACHE_COMPACT ? "recycled step, compact" : "recycled step, gathered",
        .shape = bed.shape,
        .unit = "layer-steps/s",
        .scale = 1,
        .a = {"recycled step", ra_bed_attend_recycled, &bed, bed.config.n_layers},
        .b = {"full step", ra_bed_attend_full, &bed, bed.config.n_layers},
        .target = NAN,
        .limit = limit,
        .checked = checked,
        .threads = ra_pool_threads(bed.cpu->pool),
        .working_set = (size_t)bed.config.n_layers * (size_t)bytes,
    };
    ra_bench_run(&bench);
    ra_bed_close(&bed);
}

int main(void)
{
    static const struct ra_bed_shape shapes[] = {
        {.Hq = 9, .Hkv = 3, .D = 64, .L = 8192, .bytes = ROTATE},
        {.Hq = 32, .Hkv = 8, .D = 128, .L = 8192, .bytes = ROTATE},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        full_step(&shapes[i]);
        recycled_step(shapes[i], RA_CACHE_COMPACT);
        recycled_step(shapes[i], RA_CACHE_GATHER);
    }
    return 0;
}
