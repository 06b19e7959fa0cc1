/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many layer_step rows a second the store takes, commits included. First it checks that the
 * rows come back as they were written, on the very file it then times again. The headline order is
 * that of the engine, layer by layer with the store's own batches; a commit after each layer and
 * the order of the key stand beside it. stdout: one line of JSON a case; nothing is kept.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "profiler/bench/folder.h"
#include "profiler/clock.h"
#include "profiler/store.h"
#include "sim/base/stats.h"

enum { n_layers = 32, n_steps = 3125, n_rows = n_layers * n_steps, repeats = 7 };
enum order { by_layer, by_layer_committed, by_step };

static const struct {
    const char *name;
    enum order order;
} cases[] = {{"store_rows", by_layer},
             {"store_rows_layer_commits", by_layer_committed},
             {"store_rows_key_order", by_step}};

/* Values as a replay's: most counts repeat, every real is another one. */
static struct ra_layer_step_row make_row(int64_t run_id, int32_t step, int layer)
{
    bool full = step % 16 == 0;
    double x = (double)((step * 31 + layer * 7) % 1000) / 1000.0 + 1e-9 * step;
    return (struct ra_layer_step_row){.run_id = run_id,
                                      .step = step,
                                      .layer = layer,
                                      .is_full = full,
                                      .keys_read = 3 * (1000 + step),
                                      .kv_read_bytes = 3 * 256 * (1000 + step),
                                      .kv_write_bytes = 768,
                                      .refresh_entries = full ? 768 : 0,
                                      .refresh_bytes = full ? 196608 : 0,
                                      .selection_bytes = full ? 12288 : 0,
                                      .mass_recovered_mean = x,
                                      .mass_recovered_min = 0.9 * x,
                                      .output_rel_err_mean = 0.1 * x,
                                      .output_rel_err_max = 0.2 * x,
                                      .topk_recall = x / 3,
                                      .refresh_overlap = full ? x / 7 : NAN,
                                      .query_cosine = 1 - x};
}

static enum ra_status write_rows(struct ra_store *store, int64_t run_id, enum order order,
                                 struct ra_error *err)
{
    int inner = order == by_step ? n_layers : n_steps;
    for (int i = 0; i < n_rows; i++) {
        int a = i / inner, b = i % inner;
        struct ra_layer_step_row row =
            order == by_step ? make_row(run_id, a, b) : make_row(run_id, b, a);
        RA_TRY(ra_store_layer_step(store, &row, err));
        if (order == by_layer_committed && b == inner - 1)
            RA_TRY(ra_store_flush(store, err));
    }
    return ra_store_flush(store, err);
}

struct read_back {
    int n, n_wrong;
};

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static enum ra_status compare(void *context, const struct ra_layer_step_row *got,
                              struct ra_error *err)
{
    (void)err;
    struct read_back *back = context;
    struct ra_layer_step_row want = make_row(got->run_id, back->n / n_layers, back->n % n_layers);
    back->n++;
    back->n_wrong +=
        got->step != want.step || got->layer != want.layer || got->is_full != want.is_full ||
        got->keys_read != want.keys_read || got->kv_read_bytes != want.kv_read_bytes ||
        got->kv_write_bytes != want.kv_write_bytes ||
        got->refresh_entries != want.refresh_entries || got->refresh_bytes != want.refresh_bytes ||
        got->selection_bytes != want.selection_bytes ||
        !same(got->mass_recovered_mean, want.mass_recovered_mean) ||
        !same(got->mass_recovered_min, want.mass_recovered_min) ||
        !same(got->output_rel_err_mean, want.output_rel_err_mean) ||
        !same(got->output_rel_err_max, want.output_rel_err_max) ||
        !same(got->topk_recall, want.topk_recall) ||
        !same(got->refresh_overlap, want.refresh_overlap) ||
        !same(got->query_cosine, want.query_cosine);
    return RA_OK;
}

static uint64_t cpu_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000U +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000U;
}

/* A file of its own each time; wall and CPU time from the first row to the last commit. */
static enum ra_status time_once(const char *path, enum order order, double *per_s,
                                double *per_cpu_s, struct ra_error *err)
{
    struct ra_store *store = NULL;
    struct ra_run_row run = {.kind = "replay", .tool_version = RA_VERSION, .config_json = "{}"};
    struct read_back back = {0};
    int64_t run_id = 0;
    char uuid[37];
    unlink(path);
    RA_TRY(ra_store_open(&store, path, RA_STORE_APPEND, err));
    enum ra_status status = ra_store_run_begin(store, &run, &run_id, uuid, err);
    uint64_t wall = ra_clock_ns(), cpu = cpu_ns();
    if (status == RA_OK)
        status = write_rows(store, run_id, order, err);
    wall = ra_clock_ns() - wall;
    cpu = cpu_ns() - cpu;
    if (status == RA_OK)
        status = ra_store_layer_steps(store, run_id, compare, &back, err);
    if (status == RA_OK && (back.n != n_rows || back.n_wrong > 0))
        status = ra_fail(err, RA_EDIVERGED, "%s: expected %d rows, got %d, %d of them wrong", path,
                         n_rows, back.n, back.n_wrong);
    *per_s = n_rows / ((double)wall / 1e9);
    *per_cpu_s = n_rows / ((double)cpu / 1e9);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    return status == RA_OK ? closed : status;
}

static enum ra_status run(const char *path, struct ra_error *err)
{
    enum { n_cases = sizeof cases / sizeof cases[0] };
    double wall[n_cases][repeats], cpu[n_cases][repeats], unused[2];
    for (int i = 0; i < n_cases; i++) /* checked, and the file's blocks are warm, before timing */
        RA_TRY(time_once(path, cases[i].order, &unused[0], &unused[1], err));
    for (int r = 0; r < repeats; r++) /* alternating, so that a busy moment hits all cases */
        for (int i = 0; i < n_cases; i++)
            RA_TRY(time_once(path, cases[i].order, &wall[i][r], &cpu[i][r], err));
    for (int i = 0; i < n_cases; i++) {
        printf("{\"case\":\"%s\",\"rows\":%d", cases[i].name, n_rows);
        double median = bench_print_list("rows_per_s", wall[i], repeats);
        double cpu_median = bench_print_list("rows_per_cpu_s", cpu[i], repeats);
        printf(",\"median\":%.0f,\"cpu_median\":%.0f,\"cpu_us_per_row\":%.3f}\n", median,
               cpu_median, 1e6 / cpu_median);
    }
    return RA_OK;
}

int main(int argc, char **argv)
{
    return bench_in_folder("bench_store", argc, argv, run);
}
