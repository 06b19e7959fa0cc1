/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every command that reads, while memory is refused call by call and files cannot be read: an
 * error or the whole result, never a part of it, and the store is what it was.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/counters.h"
#include "profiler/store_migrate.h"
#include "tests/support/cupti_leaks.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/safetensors.h"

static char db[600], trace[600], saved[600], old_db[600], out_folder[600], out[640],
    index_folder[600];
static char figures[600], page_folder[600], page[640];
static size_t n_page;
static bool has_gnuplot;
static uint8_t *db_bytes, *old_bytes;
static size_t n_db, n_old;
static const char previous[] = "a report that was complete";

static void cli(const char *const *words, struct fault_outcome *outcome)
{
    *outcome = (struct fault_outcome){.code = -1};
    fault_cli(words, outcome);
}

static void run(void *context, struct fault_outcome *outcome)
{
    fault_cli(context, outcome);
}

static void check_same_store(void *context, const struct fault_outcome *outcome)
{
    (void)context;
    (void)outcome;
    size_t n;
    uint8_t *bytes = tmp_read(db, &n);
    assert_int_equal(n, n_db);
    assert_memory_equal(bytes, db_bytes, n);
    free(bytes);
}

#define WORDS(...) ((const char *[]){__VA_ARGS__, NULL})

static void sweep(const char *name, const char **words)
{
    static const char *const places[] = {
        "runs.db", "trace.safetensors", "saved.json", "sharded", "temporary", "gate:", NULL};
    struct fault_case c = {.name = name, .context = words, .run = run, .check = check_same_store};
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    c.places = places;
    fault_sweep(&c, FAULT_READ, EIO);
    fault_sweep(&c, FAULT_OPEN, EMFILE);
    fault_sweep(&c, FAULT_READ, EINTR);
    fault_sweep(&c, FAULT_READ, FAULT_SHORT);
}

static void test_store_readers(void **unused)
{
    (void)unused;
    sweep("report text", WORDS("report", db));
    fault_spare_sqlite(true);
    sweep("report csv", WORDS("report", db, "--format", "csv"));
    sweep("report json", WORDS("report", db, "--format", "json", "--run", "1"));
    sweep("list runs", WORDS("list", "runs", db));
    sweep("list runs json", WORDS("list", "runs", db, "--format", "json"));
    sweep("compare", WORDS("compare", db, "--run", "1", "--run", "1", "--format", "json"));
    sweep("export csv", WORDS("export", db, "--run", "1", "--as", "csv"));
    sweep("export perfetto", WORDS("export", db, "--run", "1", "--as", "perfetto", "-q"));
    fault_spare_sqlite(false);
}

static void test_trace_readers(void **unused)
{
    (void)unused;
    sweep("info --verify json", WORDS("info", trace, "--verify", "--format", "json"));
    sweep("info text", WORDS("info", trace));
    sweep("info, a folder", WORDS("info", index_folder, "--verify"));
    sweep("explain", WORDS("explain"));
    sweep("explain TRACE json", WORDS("explain", trace, "-p", "recycled:k=3,stride=2", "--layer",
                                      "0", "--head", "0", "--format", "json"));
    sweep("list policies json", WORDS("list", "policies", "--format", "json"));
    sweep("doctor json", WORDS("doctor", "--format", "json"));
    sweep("replay --dry-run",
          WORDS("replay", trace, "-p", "full", "--dry-run", "--format", "json"));
    sweep("replay --check FILE",
          WORDS("replay", "synth:case=integer,P=32,N=8", "-p", "recycled:k=8,stride=4", "--backend",
                "null", "-q", "--check", saved));
}

/* What schedules hold, and the scores that they ask for. */
static void test_schedules(void **unused)
{
    static const char *const policies[] = {"h2o:k=3",
                                           "tova:k=3,heads=layer",
                                           "adakv:k=4,window=2,early=1",
                                           "pyramidkv:k=4,window=2,evict=fifo",
                                           "quest:k=4,page=2",
                                           "triforce:k=4,chunk=2,gamma=1",
                                           "tidal:k=3,select=0",
                                           "unlimiformer:k=3",
                                           "longformer:window=3",
                                           "recycled:k=3,stride=2,k@0.1=5"};
    (void)unused;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct fault_case c = {.name = policies[i],
                               .context = WORDS("explain", trace, "-p", policies[i], "--layer", "0",
                                                "-q", "--steps", "0..3", "--format", "json"),
                               .run = run,
                               .check = check_same_store};
        assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    }
}

/* What CUPTI itself allocates is not ours to refuse. */
static void test_counters(void **unused)
{
    (void)unused;
    if (ra_counter_probe("GH100", NULL) != RA_OK)
        skip();
    sweep("metrics plan json", WORDS("metrics", "plan", "--chip", "GH100", "--metrics",
                                     "l2_hit_pct,dram_pct", "--format", "json"));
    sweep("list metrics csv", WORDS("list", "metrics", "--chip", "GH100", "--format", "csv"));
}

/* --- report -o ---------------------------------------------------------------------------------
 */

static void prepare_report(void *context)
{
    (void)context;
    tmp_write(out, previous, sizeof previous);
}

static void check_report(void *context, const struct fault_outcome *outcome)
{
    (void)context;
    static size_t whole;
    size_t n;
    uint8_t *bytes = tmp_read(out, &n);
    assert_int_equal(tmp_dir_count(out_folder), 1);
    if (outcome->code != 0) {
        assert_int_equal(n, sizeof previous);
        assert_memory_equal(bytes, previous, n);
    } else {
        whole = whole ? whole : n;
        assert_int_equal(n, whole);
    }
    free(bytes);
}

static void test_report_file(void **unused)
{
    (void)unused;
    static const char *const places[] = {"runs.db", "report.json", NULL};
    struct fault_case c = {.name = "report -o",
                           .context = WORDS("report", db, "--format", "json", "-q", "-o", out),
                           .prepare = prepare_report,
                           .run = run,
                           .check = check_report};
    fault_spare_sqlite(true);
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    fault_spare_sqlite(false);
    c.places = places;
    assert_true(fault_sweep(&c, FAULT_OPEN, EMFILE).n_failed > 0);
    assert_true(fault_sweep(&c, FAULT_RENAME, EXDEV).n_failed > 0);
}

/* --- export -o ---------------------------------------------------------------------------------
 */

static void prepare_export(void *context)
{
    (void)context;
    unlink(out);
}

/* Whole under its name, or nothing at all; what it holds is checked on the command line. */
static void check_export(void *context, const struct fault_outcome *outcome)
{
    check_same_store(context, outcome);
    assert_int_equal(tmp_dir_count(out_folder), outcome->code == 0);
    if (outcome->code == 0)
        assert_true(store_ask(out, "SELECT count(*) FROM NVTX_EVENTS") > 0);
}

static void test_export_database(void **unused)
{
    (void)unused;
    static const char *const places[] = {"runs.db", "report.json", NULL};
    struct fault_case c = {.name = "export nsys",
                           .context =
                               WORDS("export", db, "--run", "1", "--as", "nsys", "-q", "-o", out),
                           .prepare = prepare_export,
                           .run = run,
                           .check = check_export};
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    c.places = places;
    assert_true(fault_sweep(&c, FAULT_OPEN, EMFILE).n_failed > 0);
    assert_true(fault_sweep(&c, FAULT_WRITE, ENOSPC).n_failed > 0);
    assert_true(fault_sweep(&c, FAULT_RENAME, EXDEV).n_failed > 0);
    unlink(out);
}

/* --- plot --------------------------------------------------------------------------------------
 */

static void check_figures(void *context, const struct fault_outcome *outcome)
{
    static const char *const names[] = {"mass.tsv", "mass.gp", "mass.svg"};
    (void)context;
    size_t n = 0;
    for (int i = 0; i < 3; i++)
        n += access(tmp_path(figures, names[i]), F_OK) == 0;
    assert_int_equal(tmp_dir_count(figures), n); /* nothing under another name */
    assert_true(outcome->code != 0 || n == 3);
    struct stat info;
    assert_true(stat(tmp_path(figures, names[2]), &info) != 0 || info.st_size == 51);
}

static void prepare_figures(void *context)
{
    (void)context;
    tmp_dir_remove(figures);
    assert_int_equal(mkdir(figures, 0777), 0);
}

/* gnuplot itself is not needed to see what becomes of its output. */
static void test_plot(void **unused)
{
    static const char script[] = "#!/bin/sh\nprintf '<svg>%40s</svg>' >\"${4%.gp}.svg.part\"\n";
    static const char *const places[] = {"runs.db", "mass.", "temporary file", NULL};
    char path[5000];
    (void)unused;
    snprintf(figures, sizeof figures, "%s", tmp_path(tmp_dir, "figures"));
    assert_int_equal(mkdir(figures, 0777), 0);
    assert_int_equal(mkdir(tmp_path(tmp_dir, "bin"), 0777), 0);
    tmp_write(tmp_path(tmp_dir, "bin/gnuplot"), script, sizeof script - 1);
    assert_int_equal(chmod(tmp_path(tmp_dir, "bin/gnuplot"), 0755), 0);
    snprintf(path, sizeof path, "%s:%s", tmp_path(tmp_dir, "bin"), getenv("PATH"));
    setenv("PATH", path, 1);
    struct fault_case c = {.name = "plot",
                           .context = WORDS("plot", db, "-o", figures, "--figure", "mass", "-q"),
                           .prepare = prepare_figures,
                           .run = run,
                           .check = check_figures};
    fault_spare_sqlite(true);
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    fault_spare_sqlite(false);
    c.places = places;
    static const enum fault_op ops[] = {FAULT_OPEN, FAULT_TEMP, FAULT_RENAME, FAULT_READ};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        assert_true(fault_sweep(&c, ops[i], EIO).n_failed > 0);
}

/* --- a page ------------------------------------------------------------------------------------
 */

/* Whole, or the one before; no figure is left behind. */
static void check_page(void *context, const struct fault_outcome *outcome)
{
    static const char end[] = "</html>\n";
    (void)context;
    size_t n;
    uint8_t *bytes = tmp_read(page, &n);
    assert_int_equal(tmp_dir_count(page_folder), 1);
    assert_int_equal(tmp_dir_count(figures), 0);
    if (outcome->code != 0) {
        assert_int_equal(n, sizeof previous);
        assert_memory_equal(bytes, previous, n);
    } else {
        n_page = n_page ? n_page : n;
        assert_memory_equal(bytes + n - sizeof end + 1, end, sizeof end - 1);
        assert_true(has_gnuplot || n == n_page);
    }
    free(bytes);
}

static void prepare_page(void *context)
{
    (void)context;
    tmp_write(page, previous, sizeof previous);
}

/* Without gnuplot the page is always the same; with it a figure's place may say what failed. */
static void test_page(void **unused)
{
    static const char *const places[] = {"runs.db", "page.html", "/figures/rattn-sim-",
                                         "temporary file", NULL};
    (void)unused;
    prepare_figures(NULL);
    setenv("TMPDIR", figures, 1);
    snprintf(page_folder, sizeof page_folder, "%s", tmp_path(tmp_dir, "pages"));
    assert_int_equal(mkdir(page_folder, 0777), 0);
    snprintf(page, sizeof page, "%s/page.html", page_folder);
    struct fault_case c = {.name = "report -o page.html",
                           .context = WORDS("report", db, "-q", "-o", page),
                           .prepare = prepare_page,
                           .run = run,
                           .check = check_page,
                           .places = places};
    has_gnuplot = true;
    static const enum fault_op ops[] = {FAULT_OPEN, FAULT_TEMP, FAULT_RENAME, FAULT_READ};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        assert_true(fault_sweep(&c, ops[i], EIO).n_faults > 0);
    has_gnuplot = false;
    n_page = 0;
    setenv("PATH", "/nowhere", 1);
    c.places = NULL;
    fault_spare_sqlite(true);
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    fault_spare_sqlite(false);
}

/* --- migration ---------------------------------------------------------------------------------
 */

static void prepare_old(void *context)
{
    const char *const suffixes[] = {"-wal", "-shm", "-journal", ".lock", ".v1.bak", ".v1.bak.part"};
    char path[640];
    (void)context;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(path, sizeof path, "%s%s", old_db, suffixes[i]);
        unlink(path);
    }
    tmp_write(old_db, old_bytes, n_old);
}

/* The old schema untouched, or the new one with every row; a copy of the old one is whole. */
static void check_old(void *context, const struct fault_outcome *outcome)
{
    char backup[640];
    (void)context;
    int64_t version = store_ask(old_db, "PRAGMA user_version");
    assert_int_equal(store_ask(old_db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
    assert_true(version >= 1 && version <= 3);
    assert_true(outcome->code != 0 || version == 3);
    if (version > 1)
        assert_int_equal(store_ask(old_db, "SELECT count(*) FROM run WHERE note = 'lifted'"),
                         *(const long *)context);
    if (version > 2)
        assert_int_equal(store_ask(old_db, "SELECT count(*) FROM extra"), *(const long *)context);
    assert_true(version == 1 || store_exists(old_db, ".v1.bak"));
    assert_int_equal(store_ask(old_db, "SELECT count(*) FROM run"),
                     (int64_t) * (const long *)context);
    assert_false(store_exists(old_db, ".v1.bak.part"));
    if (!store_exists(old_db, ".v1.bak"))
        return;
    snprintf(backup, sizeof backup, "%s.v1.bak", old_db);
    assert_int_equal(store_ask(backup, "PRAGMA user_version"), 1);
    assert_int_equal(store_ask(backup, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
}

/* From the first schema over two steps, which exist only here. */
static void run_migration(void *context, struct fault_outcome *outcome)
{
    static const struct ra_migration steps[] = {
        {1, "ALTER TABLE run ADD COLUMN note TEXT; UPDATE run SET note = 'lifted'"},
        {2, "CREATE TABLE extra(id INTEGER PRIMARY KEY) STRICT; INSERT INTO extra SELECT id FROM "
            "run"}};
    struct ra_error err = {RA_OK, ""};
    struct ra_store_schema schema = *ra_store_schema_current();
    struct ra_store *store = NULL;
    (void)context;
    schema.version = 3;
    schema.steps = steps;
    schema.n_steps = 2;
    fault_go();
    enum ra_status st = ra_store_open_schema(&store, old_db, RA_STORE_READ, &schema, &err);
    (void)!ra_store_close(store, NULL);
    fault_halt();
    outcome->code = (int)st;
    snprintf(outcome->said, sizeof outcome->said, "%s", err.msg);
}

static void test_migration(void **unused)
{
    (void)unused;
    static const char *const places[] = {"old.db", NULL};
    size_t n;
    snprintf(old_db, sizeof old_db, "%s", tmp_path(tmp_dir, "old.db"));
    char *sql = (char *)tmp_read("tests/golden/store_v1.sql", &n);
    store_exec(old_db, sql);
    free(sql);
    long n_runs = (long)store_ask(old_db, "SELECT count(*) FROM run");
    assert_true(n_runs > 0);
    old_bytes = tmp_read(old_db, &n_old);
    struct fault_case c = {.name = "migration",
                           .context = &n_runs,
                           .prepare = prepare_old,
                           .run = run_migration,
                           .check = check_old};
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 0);
    c.places = places;
    static const struct {
        enum fault_op op;
        int error;
    } faults[] = {{FAULT_WRITE, ENOSPC},
                  {FAULT_SYNC, EIO},
                  {FAULT_READ, EIO},
                  {FAULT_OPEN, EMFILE},
                  {FAULT_RENAME, EXDEV}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        assert_true(fault_sweep(&c, faults[i].op, faults[i].error).n_failed > 0);
        assert_true(fault_sweep_lasting(&c, faults[i].op, faults[i].error).n_failed > 0);
    }
    fault_sweep(&c, FAULT_WRITE, FAULT_SHORT);
    fault_sweep(&c, FAULT_READ, EINTR);
    free(old_bytes);
}

static void make_folder(void)
{
    struct ra_st_file *file;
    struct ra_error err;
    char path[660], index[4096] = "{\"weight_map\": {";
    snprintf(path, sizeof path, "%s/a.safetensors", index_folder);
    size_t n, used = strlen(index);
    uint8_t *bytes = tmp_read(trace, &n);
    tmp_write(path, bytes, n);
    free(bytes);
    ra_assert_ok(ra_st_open(&file, path, &err));
    for (size_t i = 0; i < ra_st_count(file); i++)
        used += (size_t)snprintf(index + used, sizeof index - used, "%s\"%s\": \"a.safetensors\"",
                                 i ? ", " : "", ra_st_at(file, i)->name);
    used += (size_t)snprintf(index + used, sizeof index - used, "}}");
    ra_st_close(file);
    snprintf(path, sizeof path, "%s/trace.index.json", index_folder);
    tmp_write(path, index, used);
}

/* A store with one run, its result as JSON, a trace, and the same trace as a folder of files. */
static int setup(void **state)
{
    struct fault_outcome outcome;
    tmp_dir_setup(state);
    snprintf(db, sizeof db, "%s", tmp_path(tmp_dir, "runs.db"));
    snprintf(trace, sizeof trace, "%s", tmp_path(tmp_dir, "trace.safetensors"));
    snprintf(saved, sizeof saved, "%s", tmp_path(tmp_dir, "saved.json"));
    snprintf(out_folder, sizeof out_folder, "%s", tmp_path(tmp_dir, "out"));
    snprintf(out, sizeof out, "%s/report.json", out_folder);
    snprintf(index_folder, sizeof index_folder, "%s", tmp_path(tmp_dir, "sharded"));
    mkdir(out_folder, 0777);
    mkdir(index_folder, 0777);
    cli(WORDS("replay", "synth:case=integer,P=32,N=8", "-p", "recycled:k=8,stride=4", "--backend",
              "null", "-q", "--format", "json", "--db", db),
        &outcome);
    assert_int_equal(outcome.code, 0);
    tmp_write(saved, outcome.result, outcome.n);
    free(outcome.result);
    db_bytes = tmp_read(db, &n_db);
    struct tiny_trace t = tiny_trace_default();
    t.n_check = 2;
    t.has_acc = true;
    tiny_trace_write(trace, &t);
    make_folder();
    return 0;
}

static int teardown(void **state)
{
    free(db_bytes);
    return tmp_dir_teardown(state);
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_readers), cmocka_unit_test(test_trace_readers),
        cmocka_unit_test(test_schedules),     cmocka_unit_test(test_counters),
        cmocka_unit_test(test_report_file),   cmocka_unit_test(test_export_database),
        cmocka_unit_test(test_plot),          cmocka_unit_test(test_page),
        cmocka_unit_test(test_migration),
    };
    fault_init();
    return cmocka_run_group_tests_name("fault_commands", tests, setup, teardown);
}
