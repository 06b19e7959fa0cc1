/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing traces while memory, disk and signals fail. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/check.h"
#include "traces/safetensors.h"

static void take(struct fault_outcome *outcome, enum ra_status status, const struct ra_error *err)
{
    outcome->code = (int)status;
    snprintf(outcome->said, sizeof outcome->said, "%s", status == RA_OK ? "" : err->msg);
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* Every row of every part as stored, after everything was checked. */
static enum ra_status read_all(struct ra_trace *trace, char *out, size_t *n, struct ra_error *err)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    struct ra_trace_check_result result;
    *n = 0;
    RA_TRY(ra_trace_check(trace, &result, NULL, NULL, err));
    for (int part = RA_TRACE_K; part <= RA_TRACE_Q; part++) {
        int heads = part == RA_TRACE_Q ? info->model.Hq : info->model.Hkv;
        int32_t rows = part == RA_TRACE_Q ? info->seqs[0].N : info->seqs[0].P;
        for (int head = 0; head < heads; head++) {
            struct ra_trace_slice slice = {
                .part = (enum ra_trace_part)part, .head = head, .n = rows};
            RA_TRY(ra_trace_read(trace, &slice, out + *n, err));
            *n += (size_t)rows * (size_t)info->model.D * ra_dtype_bytes(info->model.dtype);
        }
    }
    return RA_OK;
}

static void run_read(void *context, struct fault_outcome *outcome)
{
    struct ra_error err = {RA_OK, ""};
    struct ra_trace *trace = NULL;
    static char bytes[1 << 16];
    size_t n = 0;
    memset(bytes, 0, sizeof bytes);
    fault_go();
    enum ra_status st = ra_trace_open(&trace, context, &err);
    if (st == RA_OK)
        st = read_all(trace, bytes, &n, &err);
    ra_trace_close(trace);
    fault_halt();
    take(outcome, st, &err);
    outcome->n = st == RA_OK ? n : 0;
    outcome->result = malloc(sizeof bytes);
    memcpy(outcome->result, bytes, sizeof bytes);
}

static void reading(const char *name, char *path, const char *const *places)
{
    const struct fault_case c = {.name = name, .context = path, .run = run_read, .places = places};
    static const struct {
        enum fault_op op;
        int error;
    } faults[] = {
        {FAULT_MEMORY, ENOMEM}, {FAULT_OPEN, EMFILE}, {FAULT_STAT, EIO}, {FAULT_READ, EIO}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct fault_tally tally = fault_sweep(&c, faults[i].op, faults[i].error);
        assert_true(tally.n_failed > 0);
        assert_int_equal(tally.n_tolerated, 0);
    }
    static const int transient[] = {EINTR, FAULT_SHORT};
    for (int i = 0; i < 2; i++)
        assert_true(fault_sweep(&c, FAULT_READ, transient[i]).n_tolerated > 3);
    assert_true(fault_sweep(&c, FAULT_OPEN, EINTR).n_tolerated > 0);
}

static void test_read(void **unused)
{
    (void)unused;
    static const char *const places[] = {"trace.safetensors", NULL};
    static char path[600];
    struct tiny_trace t = tiny_trace_default();
    t.n_check = 2;
    t.has_acc = true;
    t.n_layers = 2;
    snprintf(path, sizeof path, "%s", tmp_path(tmp_dir, "trace.safetensors"));
    tiny_trace_write(path, &t);
    reading("trace: open, check, read", path, places);
}

static void test_generated(void **unused)
{
    (void)unused;
    static const char *const places[] = {"synth:case=needle", "generator", NULL};
    static char name[] = "synth:case=needle,P=32,N=4";
    const struct fault_case c = {
        .name = "trace: generate", .context = name, .run = run_read, .places = places};
    struct fault_tally tally = fault_sweep(&c, FAULT_MEMORY, ENOMEM);
    assert_true(tally.n_failed > 0);
    assert_int_equal(tally.n_tolerated, 0);
}

/* --- writing -----------------------------------------------------------------------------------
 */

static const char old_text[] = "what was there before and was complete";

struct writing {
    char folder[600], path[640];
};

static void prepare_write(void *context)
{
    struct writing *w = context;
    tmp_write(w->path, old_text, sizeof old_text);
}

static enum ra_status declare(struct ra_st_writer *w, size_t index[3], struct ra_error *err)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    RA_TRY(ra_st_writer_metadata(w, "content.sha256", zeros, err));
    RA_TRY(ra_st_writer_metadata(w, "model", "a \"model\"", err));
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        RA_TRY(
            ra_st_writer_tensor(w, name, RA_ST_F32, 2, (const uint64_t[]){64, 16}, &index[i], err));
    }
    return ra_st_writer_begin(w, err);
}

/* Rows in falling order, so that the written ranges are many for a while. */
static enum ra_status write_all(struct ra_st_writer *w, struct ra_error *err)
{
    size_t index[3];
    RA_TRY(declare(w, index, err));
    for (int tensor = 0; tensor < 3; tensor++)
        for (int row = 62; row >= 0; row -= 2) {
            float values[32];
            for (int i = 0; i < 32; i++)
                values[i] = (float)(tensor * 1000 + row * 16 + i);
            RA_TRY(
                ra_st_writer_put(w, index[tensor], (uint64_t)row * 64, values, sizeof values, err));
        }
    return ra_st_writer_commit(w, err);
}

static void run_write(void *context, struct fault_outcome *outcome)
{
    struct writing *writing = context;
    struct ra_error err = {RA_OK, ""};
    struct ra_st_writer *w = NULL;
    fault_go();
    enum ra_status st = ra_st_writer_open(&w, writing->path, &err);
    if (st == RA_OK)
        st = write_all(w, &err);
    ra_st_writer_close(w);
    fault_halt();
    take(outcome, st, &err);
    if (st == RA_OK)
        outcome->result = (char *)tmp_read(writing->path, &outcome->n);
}

/* The old file, or the new one in full; and nothing beside it. */
static void check_write(void *context, const struct fault_outcome *outcome)
{
    struct writing *w = context;
    assert_int_equal(tmp_dir_count(w->folder), 1);
    if (outcome->code == 0)
        return;
    size_t n;
    uint8_t *bytes = tmp_read(w->path, &n);
    assert_int_equal(n, sizeof old_text);
    assert_memory_equal(bytes, old_text, n);
    free(bytes);
}

static void test_write(void **unused)
{
    (void)unused;
    static const char *const places[] = {"out.safetensors", NULL};
    struct writing w;
    snprintf(w.folder, sizeof w.folder, "%s", tmp_path(tmp_dir, "writing"));
    assert_int_equal(mkdir(w.folder, 0777), 0);
    snprintf(w.path, sizeof w.path, "%s/out.safetensors", w.folder);
    const struct fault_case c = {.name = "safetensors: write",
                                 .context = &w,
                                 .prepare = prepare_write,
                                 .run = run_write,
                                 .check = check_write,
                                 .places = places};
    /* After the rename the folder is opened and synced as far as that goes: the file is whole. */
    static const struct {
        enum fault_op op;
        int error;
        long tolerated;
    } faults[] = {{FAULT_MEMORY, ENOMEM, 1}, {FAULT_OPEN, EACCES, 1},  {FAULT_READ, EIO, 0},
                  {FAULT_WRITE, ENOSPC, 0},  {FAULT_WRITE, EIO, 0},    {FAULT_SYNC, EIO, 1},
                  {FAULT_SYNC, ENOSPC, 1},   {FAULT_RENAME, EXDEV, 0}, {FAULT_ROOM, ENOSPC, 0},
                  {FAULT_ROOM, EIO, 0}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct fault_tally tally = fault_sweep(&c, faults[i].op, faults[i].error);
        assert_true(tally.n_failed > 0);
        assert_int_equal(tally.n_tolerated, faults[i].tolerated);
    }
    static const enum fault_op again[] = {FAULT_OPEN, FAULT_READ, FAULT_WRITE, FAULT_SYNC,
                                          FAULT_ROOM};
    for (size_t i = 0; i < sizeof again / sizeof *again; i++)
        assert_true(fault_sweep(&c, again[i], EINTR).n_tolerated > 0);
    assert_true(fault_sweep(&c, FAULT_WRITE, FAULT_SHORT).n_tolerated > 3);
    assert_true(fault_sweep(&c, FAULT_READ, FAULT_SHORT).n_tolerated > 0);
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_generated),
        cmocka_unit_test(test_write),
    };
    fault_init();
    return cmocka_run_group_tests_name("fault_trace", tests, tmp_dir_setup, tmp_dir_teardown);
}
