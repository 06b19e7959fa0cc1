/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing two runs of a store, row by row, with the columns as a table. Both are read whole: a
 * run has one row per step and layer, which is little.
 */
#include "sim/verify.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum column_kind { COLUMN_BOOL, COLUMN_INT, COLUMN_REAL };

#define COLUMN(kind, member)                                                                       \
    {                                                                                              \
        kind, #member, offsetof(struct ra_layer_step_row, member)                                  \
    }
static const struct {
    enum column_kind kind;
    const char *name;
    size_t offset;
} columns[] = {
    COLUMN(COLUMN_BOOL, is_full),
    COLUMN(COLUMN_INT, keys_read),
    COLUMN(COLUMN_INT, kv_read_bytes),
    COLUMN(COLUMN_INT, kv_write_bytes),
    COLUMN(COLUMN_INT, refresh_entries),
    COLUMN(COLUMN_INT, refresh_bytes),
    COLUMN(COLUMN_INT, selection_bytes),
    COLUMN(COLUMN_REAL, mass_recovered_mean),
    COLUMN(COLUMN_REAL, mass_recovered_min),
    COLUMN(COLUMN_REAL, output_rel_err_mean),
    COLUMN(COLUMN_REAL, output_rel_err_max),
    COLUMN(COLUMN_REAL, topk_recall),
    COLUMN(COLUMN_REAL, refresh_overlap),
    COLUMN(COLUMN_REAL, query_cosine),
};
/* The last column is what one policy looked at on the way and another did not: it is compared where
 * the steps are the same in everything that was done. */
enum { N_COLUMNS = sizeof columns / sizeof *columns, N_DONE = N_COLUMNS - 1 };

/* What is kept of a run: its listing's texts are borrowed only until the callback returns. */
struct run {
    int64_t id;
    char policy[256], fingerprint[65], trace[65], state[16], kind[16];
    int seq;
    struct ra_layer_step_row *rows;
    size_t n, capacity;
};

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
}

static enum ra_status on_run(void *context, const struct ra_run_listing *listing,
                             struct ra_error *err)
{
    struct run *run = context;
    (void)err;
    run->id = listing->id;
    run->seq = listing->seq;
    copy_text(run->policy, sizeof run->policy, listing->policy);
    copy_text(run->fingerprint, sizeof run->fingerprint, listing->fingerprint);
    copy_text(run->trace, sizeof run->trace, listing->trace_sha256);
    copy_text(run->state, sizeof run->state, listing->state);
    copy_text(run->kind, sizeof run->kind, listing->kind);
    return RA_OK;
}

static enum ra_status on_row(void *context, const struct ra_layer_step_row *row,
                             struct ra_error *err)
{
    struct run *run = context;
    if (run->n == run->capacity) {
        size_t capacity = run->capacity ? 2 * run->capacity : 256;
        struct ra_layer_step_row *rows = realloc(run->rows, capacity * sizeof *rows);
        if (!rows)
            return ra_fail(err, RA_ENOMEM, "run %" PRId64 ": no memory for its rows", run->id);
        run->rows = rows;
        run->capacity = capacity;
    }
    run->rows[run->n++] = *row;
    return RA_OK;
}

static enum ra_status load(struct ra_store *store, const char *which, struct run *run,
                           struct ra_error *err)
{
    RA_TRY(ra_store_runs(store, which, on_run, run, err));
    if (strcmp(run->state, "complete") != 0)
        return ra_fail(err, RA_EUSAGE, "run %" PRId64 ": is %s; only complete runs can be compared",
                       run->id, run->state);
    if (strcmp(run->kind, "replay") != 0)
        return ra_fail(err, RA_EUSAGE, "run %" PRId64 ": expected a replay to compare, got %s",
                       run->id, run->kind);
    return ra_store_layer_steps(store, run->id, on_row, run, err);
}

static bool same_real(double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    double size = fabs(a) > fabs(b) ? fabs(a) : fabs(b);
    return a == b || fabs(a - b) <= RA_VERIFY_TOLERANCE * (1 + size);
}

static double real_at(const struct ra_layer_step_row *row, size_t offset)
{
    double value;
    memcpy(&value, (const char *)row + offset, sizeof value);
    return value;
}

static int64_t int_at(const struct ra_layer_step_row *row, enum column_kind kind, size_t offset)
{
    const char *at = (const char *)row + offset;
    if (kind == COLUMN_BOOL) {
        bool value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    int64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void differ(struct ra_comparison *out, const char *column, int32_t step, int layer)
{
    out->is_equal = false;
    out->step = step;
    out->layer = layer;
    copy_text(out->column, sizeof out->column, column);
}

/* Texts that differ: keep both, cut to fit. */
static void differ_text(struct ra_comparison *out, const char *column, const char *a, const char *b)
{
    differ(out, column, -2, -2);
    snprintf(out->value_a, sizeof out->value_a, "%.63s", a);
    snprintf(out->value_b, sizeof out->value_b, "%.63s", b);
}

/* What was not measured has no text. */
static void real_text(double value, char *out, size_t size)
{
    out[0] = '\0';
    if (!isnan(value))
        snprintf(out, size, "%.17g", value);
}

/* False when the rows of one (step, layer) differ in a column of [first, end); *out says where. */
static bool compare_rows(const struct ra_layer_step_row *a, const struct ra_layer_step_row *b,
                         size_t first, size_t end, struct ra_comparison *out)
{
    for (size_t i = first; i < end; i++) {
        size_t offset = columns[i].offset;
        if (columns[i].kind == COLUMN_REAL) {
            double real_a = real_at(a, offset), real_b = real_at(b, offset);
            if (same_real(real_a, real_b))
                continue;
            real_text(real_a, out->value_a, sizeof out->value_a);
            real_text(real_b, out->value_b, sizeof out->value_b);
        } else {
            int64_t int_a = int_at(a, columns[i].kind, offset),
                    int_b = int_at(b, columns[i].kind, offset);
            if (int_a == int_b)
                continue;
            snprintf(out->value_a, sizeof out->value_a, "%" PRId64, int_a);
            snprintf(out->value_b, sizeof out->value_b, "%" PRId64, int_b);
        }
        differ(out, columns[i].name, a->step, a->layer);
        return false;
    }
    return true;
}

/* Rows ascend by (step, layer): the first place where one run has a row and the other has not, or
 * has another one. */
static void compare_steps(const struct run *a, const struct run *b, struct ra_comparison *out)
{
    size_t n = a->n < b->n ? a->n : b->n;
    for (size_t i = 0; i < n; i++) {
        const struct ra_layer_step_row *row_a = &a->rows[i], *row_b = &b->rows[i];
        if (row_a->step == row_b->step && row_a->layer == row_b->layer) {
            if (!compare_rows(row_a, row_b, 0, N_DONE, out))
                return;
            out->rows++;
            continue;
        }
        bool a_first = row_a->step < row_b->step ||
                       (row_a->step == row_b->step && row_a->layer < row_b->layer);
        const struct ra_layer_step_row *lone = a_first ? row_a : row_b;
        differ(out, "row", lone->step, lone->layer);
        copy_text(out->value_a, sizeof out->value_a, a_first ? "present" : "missing");
        copy_text(out->value_b, sizeof out->value_b, a_first ? "missing" : "present");
        return;
    }
    if (a->n != b->n) {
        const struct run *longer = a->n > b->n ? a : b;
        differ(out, "row", longer->rows[n].step, longer->rows[n].layer);
        copy_text(out->value_a, sizeof out->value_a, longer == a ? "present" : "missing");
        copy_text(out->value_b, sizeof out->value_b, longer == b ? "present" : "missing");
    }
}

/* Of runs whose rows are the same in what was done. */
static void compare_looks(const struct run *a, const struct run *b, struct ra_comparison *out)
{
    for (size_t i = 0; i < a->n; i++)
        if (!compare_rows(&a->rows[i], &b->rows[i], N_DONE, N_COLUMNS, out))
            return;
}

static void compare_runs(const struct run *a, const struct run *b, struct ra_comparison *out)
{
    out->is_equal = true;
    out->step = out->layer = -2;
    out->id_a = a->id;
    out->id_b = b->id;
    copy_text(out->policy_a, sizeof out->policy_a, a->policy);
    copy_text(out->policy_b, sizeof out->policy_b, b->policy);
    copy_text(out->fingerprint_a, sizeof out->fingerprint_a, a->fingerprint);
    copy_text(out->fingerprint_b, sizeof out->fingerprint_b, b->fingerprint);
    compare_steps(a, b, out);
    if (out->is_equal)
        compare_looks(a, b, out);
    if (!out->is_equal)
        return;
    char seq_a[16], seq_b[16];
    snprintf(seq_a, sizeof seq_a, "%d", a->seq);
    snprintf(seq_b, sizeof seq_b, "%d", b->seq);
    if (strcmp(a->policy, b->policy) != 0)
        differ_text(out, "policy", a->policy, b->policy);
    else if (strcmp(a->trace, b->trace) != 0)
        differ_text(out, "trace_sha256", a->trace, b->trace);
    else if (a->seq != b->seq)
        differ_text(out, "sequence", seq_a, seq_b);
    else if (strcmp(a->fingerprint, b->fingerprint) != 0)
        differ_text(out, "fingerprint", a->fingerprint, b->fingerprint);
}

enum ra_status ra_verify_runs(struct ra_store *store, const char *a, const char *b,
                              struct ra_comparison *out, struct ra_error *err)
{
    struct run run_a = {0}, run_b = {0};
    memset(out, 0, sizeof *out);
    enum ra_status status = load(store, a, &run_a, err);
    if (status == RA_OK)
        status = load(store, b, &run_b, err);
    if (status == RA_OK)
        compare_runs(&run_a, &run_b, out);
    free(run_a.rows);
    free(run_b.rows);
    return status;
}
