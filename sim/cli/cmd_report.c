/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report: results of a store as the replay printed them. Runs of one invocation share a table, as
 * they did then: a speed-up is only defined among them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/store.h"
#include "sim/base/json_memory.h"
#include "sim/cli/commands.h"
#include "sim/cli/out_file.h"
#include "sim/cli/output.h"
#include "sim/report.h"

struct values {
    const char *db, *out;
    struct ra_option_texts runs;
};

static const struct ra_operand operands[] = {
    {"DB", 1, 1, offsetof(struct values, db), .help = "the store"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "run",
     .kind = RA_OPTION_TEXTS,
     .offset = offsetof(struct values, runs),
     .argument = "RUN",
     .words = RA_WORDS_NONE,
     .help = "only this run: id, or a unique beginning of a uuid; may be repeated"},
    {.name = "output",
     .letter = 'o',
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, out),
     .argument = "FILE",
     .help = "write there instead of to standard output"},
    {.name = NULL},
};

/* The runs of one invocation, in id order. */
struct invocation {
    char uuid[64];
    int64_t passes;
    json_t *ids, *results; /* same order */
};

struct gathered {
    struct invocation *list;
    size_t n;
    int64_t n_without; /* runs that hold no result: running, failed, aborted */
};

/* NULL when memory runs out. */
static struct invocation *find_invocation(struct gathered *gathered, const char *uuid)
{
    for (size_t i = 0; i < gathered->n; i++)
        if (strcmp(gathered->list[i].uuid, uuid) == 0)
            return &gathered->list[i];
    struct invocation *list = realloc(gathered->list, (gathered->n + 1) * sizeof *list);
    if (!list)
        return NULL;
    gathered->list = list;
    struct invocation *added = &list[gathered->n++];
    *added = (struct invocation){.ids = json_array(), .results = json_array()};
    snprintf(added->uuid, sizeof added->uuid, "%s", uuid);
    return added;
}

/* A run named twice is shown once. */
static bool is_gathered(const struct gathered *gathered, int64_t id)
{
    for (size_t i = 0; i < gathered->n; i++)
        for (size_t j = 0; j < json_array_size(gathered->list[i].ids); j++)
            if (json_integer_value(json_array_get(gathered->list[i].ids, j)) == id)
                return true;
    return false;
}

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    struct gathered *gathered = context;
    json_error_t why;
    if (is_gathered(gathered, run->id))
        return RA_OK;
    if (!run->result_json) {
        gathered->n_without++;
        return RA_OK;
    }
    json_t *result = json_loads(run->result_json, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(result)) {
        bool starved = !result && ra_json_starved();
        const char *what = result ? "is no object" : starved ? "no memory" : why.text;
        json_decref(result);
        return ra_fail(err, starved ? RA_ENOMEM : RA_EFORMAT, "run %" PRId64 ": stored result: %s",
                       run->id, what);
    }
    struct invocation *invocation =
        find_invocation(gathered, run->invocation_uuid ? run->invocation_uuid : run->uuid);
    if (!invocation)
        json_decref(result);
    if (!invocation || json_array_append_new(invocation->results, result) != 0 ||
        json_array_append_new(invocation->ids, json_integer(run->id)) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for results");
    invocation->passes += run->n_passes_complete;
    return RA_OK;
}

static enum ra_status gather(const struct values *values, struct gathered *gathered,
                             struct ra_error *err)
{
    struct ra_store *store;
    RA_TRY(ra_store_open(&store, values->db, RA_STORE_READ, err));
    enum ra_status status = RA_OK;
    if (values->runs.n == 0)
        status = ra_store_runs(store, NULL, on_run, gathered, err);
    for (int i = 0; i < values->runs.n && status == RA_OK; i++)
        status = ra_store_runs(store, values->runs.text[i], on_run, gathered, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    return status != RA_OK ? status : closed;
}

/* "run 3", "runs 1 to 5", "runs 2, 4". */
static void put_ids(FILE *out, const json_t *ids)
{
    size_t n = json_array_size(ids);
    json_int_t first = json_integer_value(json_array_get(ids, 0)),
               last = json_integer_value(json_array_get(ids, n - 1));
    fprintf(out, "run%s %" JSON_INTEGER_FORMAT, n == 1 ? "" : "s", first);
    if (n > 1 && last - first == (json_int_t)n - 1) {
        fprintf(out, " to %" JSON_INTEGER_FORMAT, last);
        return;
    }
    for (size_t i = 1; i < n; i++)
        fprintf(out, ", %" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(ids, i)));
}

static enum ra_status put_text(FILE *out, const struct gathered *gathered, struct ra_error *err)
{
    for (size_t i = 0; i < gathered->n; i++) {
        const struct invocation *invocation = &gathered->list[i];
        fputs(i ? "\n" : "", out);
        put_ids(out, invocation->ids);
        fprintf(out, ": %" PRId64 " complete pass%s\n\n", invocation->passes,
                invocation->passes == 1 ? "" : "es");
        RA_TRY(ra_report_write(out, invocation->results, RA_REPORT_TEXT, err));
    }
    if (gathered->n == 0)
        fputs("no results\n", out);
    return RA_OK;
}

static enum ra_status put_machine(FILE *out, const struct gathered *gathered,
                                  enum ra_report_format format, struct ra_error *err)
{
    json_t *all = json_array();
    if (!all)
        return ra_fail(err, RA_ENOMEM, "no memory for results");
    enum ra_status status = RA_OK;
    for (size_t i = 0; i < gathered->n && status == RA_OK; i++)
        if (json_array_extend(all, gathered->list[i].results) != 0)
            status = ra_fail(err, RA_ENOMEM, "no memory for results");
    if (status == RA_OK)
        status = ra_report_write(out, all, format, err);
    json_decref(all);
    return status;
}

static enum ra_status put(FILE *out, enum ra_format format, const struct gathered *gathered,
                          struct ra_error *err)
{
    if (format == RA_FORMAT_TEXT)
        return put_text(out, gathered, err);
    return put_machine(out, gathered, format == RA_FORMAT_CSV ? RA_REPORT_CSV : RA_REPORT_JSON,
                       err);
}

static enum ra_status put_file(const char *path, enum ra_format format,
                               const struct gathered *gathered, struct ra_error *err)
{
    struct ra_out_file file;
    RA_TRY(ra_out_open(&file, path, err));
    enum ra_status status = put(file.stream, format, gathered, err);
    if (status == RA_OK && ra_json_starved())
        status = ra_fail(err, RA_ENOMEM, "%s: no memory for results", path);
    return ra_out_close(&file, status, err);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct gathered gathered = {0};
    if (values->out && ends_with(values->out, ".html"))
        return ra_fail(err, RA_ENODEV, "report -o %s: pages in HTML: not in this version",
                       values->out);
    enum ra_status status = gather(values, &gathered, err);
    if (status == RA_OK)
        status = values->out ? put_file(values->out, cli->format, &gathered, err)
                             : put(stdout, cli->format, &gathered, err);
    if (status == RA_OK && values->out && !cli->is_quiet)
        fprintf(stderr, "rattn-sim: wrote %s\n", values->out);
    if (status == RA_OK && gathered.n_without > 0 && !cli->is_quiet)
        fprintf(stderr,
                "rattn-sim: %" PRId64 " run%s without a result left out: 'list runs' tells why\n",
                gathered.n_without, gathered.n_without == 1 ? "" : "s");
    for (size_t i = 0; i < gathered.n; i++) {
        json_decref(gathered.list[i].results);
        json_decref(gathered.list[i].ids);
    }
    free(gathered.list);
    return status;
}

const struct ra_command ra_cmd_report = {
    .name = "report",
    .summary = "results in a store, as the replay printed them",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
};
