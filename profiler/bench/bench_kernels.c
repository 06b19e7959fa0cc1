/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many kernel rows a second the store takes, commits included: with the indexes made at the end
 * of the pass, as a pass of many rows does, and with the indexes in place. What the end of the pass
 * takes, indexes included, stands apart. First it checks that the rows come back as they were
 * written, on the very file it then times again. stdout: one line of JSON a case; nothing is kept.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "profiler/bench/folder.h"
#include "profiler/clock.h"
#include "profiler/store_kernel.h"
#include "profiler/store_pass.h"
#include "sim/base/stats.h"

/* As a decode of 32 layers: seven kernels a layer and step, one after the other. */
enum { n_kernels = 7, n_layers = 32, n_rows = n_kernels * n_layers * 1000, repeats = 7 };

static const struct {
    const char *name;
    bool waits;
} cases[] = {{"kernel_rows", true}, {"kernel_rows_indexed", false}};
enum { n_cases = sizeof cases / sizeof cases[0] };

struct timing {
    double row_ns, row_cpu_ns, end_ns; /* of all rows; of the pass's end */
};

static struct ra_kernel_row make_row(int64_t pass_id, int64_t i)
{
    static const char *const names[n_kernels] = {
        "append_f16",     "void attend_split<__half, 128, 128>(attend_args)",
        "attend_combine", "void pool_max<7>(float const*, float*, int)",
        "select_radix",   "refresh_gather",
        "evict",
    };
    int64_t kind = i % n_kernels;
    return (struct ra_kernel_row){.pass_id = pass_id,
                                  .scope_id = 1 + i / n_kernels,
                                  .correlation_id = 1000 + (uint64_t)i * 3,
                                  .start_ns = UINT64_C(1795552190110756767) + (uint64_t)i * 4096,
                                  .end_ns = UINT64_C(1795552190110759000) + (uint64_t)i * 4099,
                                  .context_id = 1,
                                  .stream_id = 7,
                                  .name = names[kind],
                                  .grid = {8, 1 + (int)kind, 1},
                                  .block = {128, 1, 1},
                                  .cluster = {-1, -1, -1},
                                  .registers = 40 + (int)kind,
                                  .smem_static_bytes = 1024,
                                  .smem_dynamic_bytes = 0,
                                  .smem_executed_bytes = 32768,
                                  .local_total_bytes = 0,
                                  .graph_id = 3,
                                  .graph_node_id = UINT64_C(0x8000000000000000) + (uint64_t)kind};
}

static enum ra_status compare(void *context, const struct ra_store_cells *got, struct ra_error *err)
{
    int64_t *n = context;
    struct ra_kernel_row want = make_row(1, *n);
    char text[512];
    snprintf(text, sizeof text,
             "%" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %d %d %d %d %" PRId64 " %" PRId64,
             want.scope_id, want.correlation_id, want.start_ns, want.end_ns, want.name,
             want.grid[0], want.grid[1], want.block[0], want.registers, want.smem_executed_bytes,
             (int64_t)want.graph_node_id);
    if (strcmp(text, got->text[0]) != 0)
        return ra_fail(err, RA_EDIVERGED, "row %" PRId64 ": expected %s, got %s", *n, text,
                       got->text[0]);
    ++*n;
    return RA_OK;
}

static enum ra_status check(struct ra_store *store, struct ra_error *err)
{
    const char *sql =
        "SELECT scope_id || ' ' || correlation_id || ' ' || start_ns || ' ' || end_ns || ' ' ||"
        " value || ' ' || grid_x || ' ' || grid_y || ' ' || block_x || ' ' || registers || ' ' ||"
        " smem_executed_bytes || ' ' || graph_node_id FROM kernel k JOIN string_ids n"
        " ON n.id = k.name_id ORDER BY k.id";
    int64_t n = 0;
    RA_TRY(ra_store_select(store, &sql, NULL, compare, &n, err));
    return n == n_rows ? RA_OK
                       : ra_fail(err, RA_EDIVERGED, "expected %d rows, got %" PRId64, n_rows, n);
}

static uint64_t cpu_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000U +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000U;
}

static enum ra_status write_pass(struct ra_store *store, int64_t pass_id, bool waits,
                                 struct timing *timing, struct ra_error *err)
{
    uint64_t from = ra_clock_ns(), cpu = cpu_ns();
    if (waits)
        RA_TRY(ra_store_expect_rows(store, n_rows, err));
    for (int64_t i = 0; i < n_rows; i++) {
        struct ra_kernel_row row = make_row(pass_id, i);
        RA_TRY(ra_store_kernel(store, &row, err));
    }
    RA_TRY(ra_store_flush(store, err));
    uint64_t written = ra_clock_ns();
    timing->row_ns = (double)(written - from);
    timing->row_cpu_ns = (double)(cpu_ns() - cpu);
    RA_TRY(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, err));
    timing->end_ns = (double)(ra_clock_ns() - written);
    return RA_OK;
}

/* A file of its own each time. */
static enum ra_status time_once(const char *path, bool waits, bool checks, struct timing *timing,
                                struct ra_error *err)
{
    struct ra_store *store = NULL;
    struct ra_run_row run = {.kind = "replay", .tool_version = RA_VERSION, .config_json = "{}"};
    int64_t run_id = 0, pass_id = 0;
    char uuid[37];
    unlink(path);
    RA_TRY(ra_store_open(&store, path, RA_STORE_APPEND, err));
    enum ra_status status = ra_store_run_begin(store, &run, &run_id, uuid, err);
    if (status == RA_OK)
        status = ra_store_pass_begin(store, run_id, 0, "timing", &pass_id, err);
    if (status == RA_OK)
        status = write_pass(store, pass_id, waits, timing, err);
    if (status == RA_OK && checks)
        status = check(store, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    return status == RA_OK ? closed : status;
}

static void print_case(const char *name, const struct timing *timings)
{
    double per_s[repeats], cpu_ns_row[repeats], with_end[repeats];
    for (int i = 0; i < repeats; i++) {
        per_s[i] = n_rows / (timings[i].row_ns / 1e9);
        cpu_ns_row[i] = timings[i].row_cpu_ns / n_rows;
        with_end[i] = n_rows / ((timings[i].row_ns + timings[i].end_ns) / 1e9);
    }
    printf("{\"case\":\"%s\",\"rows\":%d", name, n_rows);
    double median = bench_print_list("rows_per_s", per_s, repeats);
    double cpu = bench_print_list("cpu_ns_per_row", cpu_ns_row, repeats);
    double whole = bench_print_list("rows_per_s_with_end", with_end, repeats);
    printf(",\"median\":%.0f,\"cpu_us_per_row\":%.3f,\"with_end_median\":%.0f}\n", median,
           cpu / 1e3, whole);
}

static enum ra_status run(const char *path, struct ra_error *err)
{
    static struct timing timings[n_cases][repeats];
    struct timing unused;
    for (int i = 0; i < n_cases; i++) /* checked, and the file's blocks are warm, before timing */
        RA_TRY(time_once(path, cases[i].waits, true, &unused, err));
    for (int r = 0; r < repeats; r++) /* alternating, so that a busy moment hits all cases */
        for (int i = 0; i < n_cases; i++)
            RA_TRY(time_once(path, cases[i].waits, false, &timings[i][r], err));
    for (int i = 0; i < n_cases; i++)
        print_case(cases[i].name, timings[i]);
    return RA_OK;
}

int main(int argc, char **argv)
{
    return bench_in_folder("bench_kernels", argc, argv, run);
}
