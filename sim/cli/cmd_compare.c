/* SPDX-License-Identifier: Apache-2.0 */
/* compare: two runs of one store; where they part first. Exit code 4 when they differ. */
#include <inttypes.h>
#include <stdio.h>

#include "sim/cli/commands.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"
#include "sim/verify.h"

struct values {
    const char *db;
    struct ra_option_texts runs;
};

static const struct ra_operand operands[] = {
    {"DB", 1, 1, offsetof(struct values, db), .help = "the store that holds both runs"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "run",
     .kind = RA_OPTION_TEXTS,
     .is_required = true,
     .offset = offsetof(struct values, runs),
     .argument = "RUN",
     .words = RA_WORDS_NONE,
     .help = "id, or a unique beginning of a uuid; given twice"},
    {.name = NULL},
};

static void put_run(char letter, int64_t id, const char *policy, const char *fingerprint)
{
    char brief[512];
    ra_report_short_policy(policy, brief, sizeof brief);
    ra_put_wrapped(printf("%c: run %" PRId64 ", ", letter, id), 3, brief);
    fputs("   fingerprint ", stdout);
    ra_put_safe(*fingerprint ? fingerprint : "-");
    putchar('\n');
}

static void put_value(char letter, const char *value)
{
    printf("\n   %c ", letter);
    ra_put_safe(*value ? value : "not measured");
}

static void put_place(const struct ra_comparison *comparison)
{
    if (comparison->step == -2)
        printf("first difference: %s", comparison->column);
    else if (comparison->step == -1)
        printf("first difference: prefill, layer %d, %s", comparison->layer, comparison->column);
    else
        printf("first difference: step %" PRId32 ", layer %d, %s", comparison->step,
               comparison->layer, comparison->column);
    put_value('A', comparison->value_a);
    put_value('B', comparison->value_b);
    putchar('\n');
}

static void put_text(const struct ra_comparison *comparison)
{
    put_run('A', comparison->id_a, comparison->policy_a, comparison->fingerprint_a);
    put_run('B', comparison->id_b, comparison->policy_b, comparison->fingerprint_b);
    if (comparison->is_equal)
        printf("equal: %" PRId64 " layer-steps\n", comparison->rows);
    else
        put_place(comparison);
}

static json_t *describe(int64_t id, const char *policy, const char *fingerprint, const char *value)
{
    json_t *object = json_object();
    json_object_set_new(object, "id", json_integer(id));
    json_object_set_new(object, "policy", ra_json_text(policy));
    json_object_set_new(object, "fingerprint", ra_json_text(*fingerprint ? fingerprint : NULL));
    json_object_set_new(object, "value", ra_json_text(value && *value ? value : NULL));
    return object;
}

static enum ra_status put_machine(const struct ra_comparison *comparison, enum ra_format format,
                                  struct ra_error *err)
{
    bool is_equal = comparison->is_equal, is_placed = !is_equal && comparison->step > -2;
    json_t *object = json_object();
    json_object_set_new(object, "equal", json_boolean(is_equal));
    json_object_set_new(object, "layer_steps_compared", json_integer(comparison->rows));
    json_object_set_new(object, "column", ra_json_text(is_equal ? NULL : comparison->column));
    json_object_set_new(object, "step", is_placed ? json_integer(comparison->step) : json_null());
    json_object_set_new(object, "layer", is_placed ? json_integer(comparison->layer) : json_null());
    json_object_set_new(object, "a",
                        describe(comparison->id_a, comparison->policy_a, comparison->fingerprint_a,
                                 is_equal ? NULL : comparison->value_a));
    json_object_set_new(object, "b",
                        describe(comparison->id_b, comparison->policy_b, comparison->fingerprint_b,
                                 is_equal ? NULL : comparison->value_b));
    json_t *rows = json_pack("[o]", object);
    if (!rows)
        return ra_fail(err, RA_ENOMEM, "no memory for a result");
    enum ra_status status = ra_report_write(
        stdout, rows, format == RA_FORMAT_CSV ? RA_REPORT_CSV : RA_REPORT_JSON, err);
    json_decref(rows);
    return status;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct ra_comparison comparison;
    struct ra_store *store;
    if (values->runs.n != 2)
        return ra_fail(err, RA_EUSAGE, "compare: expected --run twice, got it %d times",
                       values->runs.n);
    RA_TRY(ra_store_open(&store, values->db, RA_STORE_READ, err));
    enum ra_status status =
        ra_verify_runs(store, values->runs.text[0], values->runs.text[1], &comparison, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    if (status != RA_OK || closed != RA_OK)
        return status != RA_OK ? status : closed;
    if (cli->format == RA_FORMAT_TEXT)
        put_text(&comparison);
    else
        RA_TRY(put_machine(&comparison, cli->format, err));
    if (comparison.is_equal)
        return RA_OK;
    return ra_fail(err, RA_EDIVERGED, "%s: runs %" PRId64 " and %" PRId64 " differ in %s",
                   values->db, comparison.id_a, comparison.id_b, comparison.column);
}

const struct ra_command ra_cmd_compare = {
    .name = "compare",
    .summary = "two runs of a store: equal, or where they differ first",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "Exit code 0: equal; 4: they differ. Schedules, sets and counts must be equal, "
             "quality within 1e-12; times are not compared.",
};
