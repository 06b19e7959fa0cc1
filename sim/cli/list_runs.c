/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of a store, oldest first. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "profiler/store.h"
#include "sim/cli/list.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"

static json_t *time_text(int64_t unix_ns)
{
    char text[32];
    struct tm parts;
    time_t seconds = (time_t)(unix_ns / 1000000000);
    if (unix_ns <= 0 || !gmtime_r(&seconds, &parts) ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        return json_null();
    return json_string(text);
}

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    json_t *row = json_object();
    const struct {
        const char *key;
        json_t *value;
    } members[] = {
        {"id", json_integer(run->id)},
        {"uuid", ra_json_text(run->uuid)},
        {"state", ra_json_text(run->state)},
        {"kind", ra_json_text(run->kind)},
        {"policy", ra_json_text(run->policy)},
        {"trace", ra_json_text(run->trace_path)},
        {"sequence", run->seq < 0 ? json_null() : json_integer(run->seq)},
        {"model", ra_json_text(run->model_id)},
        {"backend", ra_json_text(run->backend)},
        {"device", ra_json_text(run->device)},
        {"method", ra_json_text(run->method)},
        {"started", time_text(run->started_unix_ns)},
        {"ended", time_text(run->ended_unix_ns)},
        {"passes_complete", json_integer(run->n_passes_complete)},
        {"layer_steps", json_integer(run->n_layer_steps)},
        {"fingerprint", ra_json_text(run->fingerprint)},
        {"invocation", ra_json_text(run->invocation_uuid)},
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        failed |= json_object_set_new(row, members[i].key, members[i].value);
    failed |= json_array_append_new(context, row);
    return failed ? ra_fail(err, RA_ENOMEM, "no memory for a list of runs") : RA_OK;
}

enum ra_status ra_list_runs(json_t *rows, const char *db, struct ra_error *err)
{
    struct ra_store *store;
    RA_TRY(ra_store_open(&store, db, RA_STORE_READ, err));
    enum ra_status status = ra_store_runs(store, NULL, on_run, rows, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    return status != RA_OK ? status : closed;
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? text : "-";
}

/* Text of the store is foreign: it may hold what moves a cursor. Returns the characters put. */
static int put_padded(const char *text, int width)
{
    int n = (int)strlen(text);
    ra_put_safe(text);
    return n + printf("%*s  ", n < width ? width - n : 0, "");
}

static void put_details(const json_t *row)
{
    char text[1024];
    fputs("       ", stdout);
    ra_put_safe(text_of(row, "uuid"));
    char sequence[48] = "";
    if (json_is_integer(json_object_get(row, "sequence")))
        snprintf(sequence, sizeof sequence, ", sequence %" JSON_INTEGER_FORMAT,
                 json_integer_value(json_object_get(row, "sequence")));
    snprintf(text, sizeof text, "%s %s%s, %s backend, %s", text_of(row, "kind"),
             text_of(row, "trace"), sequence, text_of(row, "backend"), text_of(row, "device"));
    fputs("\n       ", stdout);
    ra_put_wrapped(7, 7, text);
    printf("       %" JSON_INTEGER_FORMAT " layer-steps, %" JSON_INTEGER_FORMAT
           " complete passes, fingerprint ",
           json_integer_value(json_object_get(row, "layer_steps")),
           json_integer_value(json_object_get(row, "passes_complete")));
    snprintf(text, 17, "%s", text_of(row, "fingerprint"));
    ra_put_safe(text);
    putchar('\n');
}

void ra_list_print_runs(const json_t *rows, int verbosity)
{
    if (json_array_size(rows) == 0)
        puts("no runs");
    else
        printf("%5s  %-8s  %-20s  %s\n", "id", "state", "started", "policy");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        char policy[512];
        ra_report_short_policy(text_of(row, "policy"), policy, sizeof policy);
        printf("%5" JSON_INTEGER_FORMAT "  ", json_integer_value(json_object_get(row, "id")));
        int column = 7 + put_padded(text_of(row, "state"), 8);
        column += put_padded(text_of(row, "started"), 20);
        ra_put_wrapped(column, column, policy);
        if (verbosity > 0)
            put_details(row);
    }
}
