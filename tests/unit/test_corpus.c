/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile and odd files (tests/corpus): each row of EXPECTED.tsv is a test of its own, which opens
 * the file, checks it if it opens, and compares status and message. Files without a row, rows
 * without a file, and memory that follows a lie in a header are failures too.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"
#include "traces/check.h"
#include "traces/shards.h"

/* The sanitizers keep freed memory and shadow it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MAX_GROWTH_KIB = 1 << 20 };
#else
enum { MAX_GROWTH_KIB = 48 << 10 };
#endif

enum { MAX_ROWS = 512 };

struct row {
    const char *file, *command, *exit_code, *status, *message;
};

static char folder[512];
static char *table;
static struct row rows[MAX_ROWS];
static size_t n_rows;

/* Tests have their names from the table, so it is read before they run. */
static void read_table(void)
{
    size_t n;
    table = (char *)tmp_read("tests/corpus/EXPECTED.tsv", &n);
    char *rest = table, *line;
    while ((line = strsep(&rest, "\n"))) {
        if (line[0] == '#' || line[0] == '\0')
            continue;
        assert_true(n_rows < MAX_ROWS);
        struct row *row = &rows[n_rows++];
        row->file = strsep(&line, "\t");
        row->command = strsep(&line, "\t");
        row->exit_code = strsep(&line, "\t");
        row->status = strsep(&line, "\t");
        row->message = line ? line : "";
        assert_non_null(row->status);
    }
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct ra_error err = {RA_OK, ""};
    struct ra_trace *trace;
    struct ra_trace_check_result result;
    bool verify = strcmp(row->command, "info --verify") == 0;
    const char *path = tmp_path(folder, row->file);
    enum ra_status st = ra_trace_open(&trace, path, &err);
    if (verify && st != RA_OK)
        fail_msg("expected to open, got %s: %s", ra_status_name(st), err.msg);
    if (st == RA_OK)
        st = ra_trace_check(trace, &result, NULL, NULL, &err);
    else
        assert_null(trace);
    ra_trace_close(trace);
    if (strcmp(ra_status_name(st), row->status) != 0 || !strstr(err.msg, row->message))
        fail_msg("expected %s with '%s', got %s: %s", row->status, row->message, ra_status_name(st),
                 err.msg);
    const char *code = st == RA_OK ? "0" : st == RA_EDIVERGED ? "4" : "1";
    assert_string_equal(row->exit_code, code);
    if (st != RA_OK && !strstr(err.msg, row->file))
        fail_msg("does not name the file: %s", err.msg);
    for (const char *c = err.msg; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static int by_file(const void *key, const void *element)
{
    return strcmp(key, ((const struct row *)element)->file);
}

static void test_rows_and_files(void **unused)
{
    (void)unused;
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (size_t i = 1; i < n_rows; i++)
        if (strcmp(rows[i - 1].file, rows[i].file) >= 0)
            fail_msg("EXPECTED.tsv: %s is out of order or twice", rows[i].file);
    size_t n_files = 0;
    for (const struct dirent *entry; (entry = readdir(listing));) {
        if (entry->d_name[0] == '.')
            continue;
        n_files++;
        if (!bsearch(entry->d_name, rows, n_rows, sizeof rows[0], by_file))
            fail_msg("%s has no row in EXPECTED.tsv", entry->d_name);
    }
    closedir(listing);
    assert_int_equal(n_files, n_rows);
}

/* Two shards: sequences, tensors and checksums of both, as one trace. */
static void test_folder(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_trace *trace;
    struct ra_st_file *file;
    struct ra_sha256 hash;
    char hex[RA_SHA256_HEX], path[1024];
    ra_sha256_init(&hash);
    snprintf(path, sizeof path, "%s/", tmp_path(folder, "folder-valid"));
    ra_assert_ok(ra_trace_open(&trace, path, &err));
    const struct ra_trace_info *info = ra_trace_info(trace);
    assert_int_equal(info->n_seq, 2);
    int32_t tokens[8];
    for (int seq = 0; seq < 2; seq++) {
        assert_true(info->seqs[seq].has_tokens && info->seqs[seq].n_check == 2);
        ra_assert_ok(ra_trace_tokens(trace, seq, tokens, &err));
        assert_true(tokens[7] == 7);
        snprintf(path, sizeof path, "%s/%s", tmp_path(folder, "folder-valid"),
                 seq ? "b.safetensors" : "a.safetensors");
        ra_assert_ok(ra_st_open(&file, path, &err));
        ra_assert_ok(ra_st_digest(file, hex, &err));
        ra_sha256_bytes(&hash, hex, 64);
        ra_st_close(file);
    }
    ra_sha256_hex(&hash, hex);
    assert_string_equal(info->sha256, hex);
    ra_trace_close(trace);
}

static void test_memory(void **state)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    long growth = usage.ru_maxrss - *(const long *)*state;
    if (growth > MAX_GROWTH_KIB)
        fail_msg("memory grew by %ld KiB, at most %d", growth, MAX_GROWTH_KIB);
}

static int make_corpus(void **state)
{
    (void)state;
    char command[1024];
    snprintf(folder, sizeof folder, "%s", tmp_dir_make());
    snprintf(command, sizeof command,
             "PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/corpus/make_corpus.py '%s'", folder);
    return system(command);
}

static int remove_corpus(void **state)
{
    (void)state;
    tmp_dir_remove(folder);
    return 0;
}

int main(void)
{
    static struct CMUnitTest tests[MAX_ROWS + 3];
    static long resident;
    struct rusage usage;
    size_t n = 0;
    read_table();
    for (size_t i = 0; i < n_rows; i++)
        tests[n++] = (struct CMUnitTest){rows[i].file, test_row, NULL, NULL, &rows[i]};
    getrusage(RUSAGE_SELF, &usage);
    resident = usage.ru_maxrss;
    tests[n++] = (struct CMUnitTest){"memory", test_memory, NULL, NULL, &resident};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_rows_and_files);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_folder);
    int failed = _cmocka_run_group_tests("corpus", tests, n, make_corpus, remove_corpus);
    free(table);
    return failed;
}
