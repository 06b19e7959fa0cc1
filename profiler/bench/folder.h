/* SPDX-License-Identifier: Apache-2.0 */
/* What benchmarks of the store share: a folder of their own, which goes when they end, and how they
 * print. */
#ifndef RA_PROFILER_BENCH_FOLDER_H
#define RA_PROFILER_BENCH_FOLDER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/error.h"
#include "sim/base/stats.h"

/* ,"NAME":[values]; sorts them, returns their median. */
static inline double bench_print_list(const char *name, double *values, size_t n)
{
    printf(",\"%s\":[", name);
    for (size_t i = 0; i < n; i++)
        printf("%s%.0f", i ? "," : "", values[i]);
    putchar(']');
    ra_sort(values, n);
    return ra_percentile(values, n, 50);
}

/* main of a benchmark that takes --json alone: run it on a store's path that is not there yet. */
static inline int bench_in_folder(const char *name, int argc, char **argv,
                                  enum ra_status (*run)(const char *path, struct ra_error *err))
{
    struct ra_error err = {.msg = ""};
    char dir[200], path[224], lock[232];
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json") != 0)) {
        fprintf(stderr, "usage: %s [--json]\n", name);
        return 2;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/%s.XXXXXX", tmp ? tmp : "/tmp", name);
    if (!mkdtemp(dir)) {
        fprintf(stderr, "%s: no folder to write to\n", name);
        return 1;
    }
    snprintf(path, sizeof path, "%s/rows.db", dir);
    snprintf(lock, sizeof lock, "%s.lock", path);
    enum ra_status status = run(path, &err);
    unlink(path);
    unlink(lock);
    rmdir(dir);
    if (status != RA_OK)
        fprintf(stderr, "%s: %s\n", name, err.msg);
    return status == RA_OK && fflush(stdout) == 0 ? 0 : 1;
}

#endif
