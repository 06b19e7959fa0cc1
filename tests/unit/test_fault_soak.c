/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many replays into one store from one process: what the process holds after a tenth of them it
 * holds after all, and every run in the store is whole. RA_SOAK says how many.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"
#include "tests/support/tmp_dir.h"

enum { MAY_GROW_HEAP = 64 << 10, MAY_GROW_RESIDENT = 2 << 20 };

struct held {
    size_t heap, resident, files;
};

/* What is free is given back first: SQLite caches up to 8 MiB of a store while it is open. */
static struct held look(void)
{
    malloc_trim(0);
    long pages[2] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages[0], &pages[1]), 2);
    fclose(file);
    return (struct held){mallinfo2().uordblks, (size_t)pages[1] * (size_t)sysconf(_SC_PAGESIZE),
                         tmp_dir_count("/proc/self/fd")};
}

static void replay(const char *db, const char *exported)
{
    struct fault_outcome outcome = {.code = -1};
    const char *const words[] = {"replay",   "synth:case=integer,P=64,N=16",
                                 "-p",       "full",
                                 "-p",       "recycled:k=8,stride=4",
                                 "--repeat", "1",
                                 "-j",       "2",
                                 "-q",       "--format",
                                 "json",     "--db",
                                 db,         "--export",
                                 exported,   NULL};
    fault_cli_with(words, &(struct fault){.op = FAULT_OPS, .at = 1}, &outcome);
    if (outcome.code != 0)
        fail_msg("%d: %s", outcome.code, outcome.said);
    free(outcome.result);
}

static void test_soak(void **unused)
{
    (void)unused;
    const char *wanted = getenv("RA_SOAK");
    int n = wanted ? atoi(wanted) : 50;
    char db[600], exported[600], sql[400];
    snprintf(db, sizeof db, "%s", tmp_path(tmp_dir, "soak.db"));
    snprintf(exported, sizeof exported, "%s", tmp_path(tmp_dir, "exports"));
    struct held early = {0}, late;
    for (int i = 1; i <= n; i++) {
        replay(db, exported);
        if (i == n / 10)
            early = look();
    }
    late = look();
    print_message(
        "%d replays: heap %zu -> %zu bytes, resident %.1f -> %.1f MiB, files %zu -> %zu\n", n,
        early.heap, late.heap, (double)early.resident / 0x1p20, (double)late.resident / 0x1p20,
        early.files, late.files);
    assert_int_equal(early.files, late.files);
    assert_true(late.heap <= early.heap + MAY_GROW_HEAP);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed for a while */
    assert_true(late.resident <= early.resident + MAY_GROW_RESIDENT);
#endif
    snprintf(
        sql, sizeof sql,
        "SELECT (SELECT count(*) FROM run WHERE state = 'complete' AND result_json IS NOT NULL)"
        " = %d AND (SELECT count(*) FROM pass WHERE state = 'complete') = %d AND"
        " (SELECT min(n) = max(n) AND count(*) = %d FROM (SELECT count(*) n FROM layer_step"
        " GROUP BY run_id)) AND (SELECT count(DISTINCT fingerprint) FROM run) = 2",
        2 * n, 2 * n, 2 * n);
    assert_int_equal(store_ask(db, sql), 1);
    assert_int_equal(store_ask(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_soak)};
    fault_init();
    return cmocka_run_group_tests_name("fault_soak", tests, tmp_dir_setup, tmp_dir_teardown);
}
