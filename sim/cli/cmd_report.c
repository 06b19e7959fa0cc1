/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report: results of a store as the replay printed them. Runs of one invocation share a table, as
 * they did then: a speed-up is only defined among them. A file whose name ends in .html is a page.
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
#include "sim/cli/report_figures.h"
#include "sim/report.h"
#include "sim/report_eval.h"
#include "sim/report_html.h"
#include "sim/report_traffic.h"

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
     .help = "write there instead of to standard output; *.html: a page with figures"},
    {.name = NULL},
};

/* The runs of one invocation and kind, in id order. */
struct invocation {
    char uuid[64], kind[16];
    int64_t passes;
    json_t *ids, *results; /* same order */
};

struct gathered {
    struct invocation *list;
    size_t n;
    json_t *runs;      /* {id, series} of all, for the queries of a page */
    int64_t n_without; /* runs that hold no result: running, failed, aborted */
};

/* NULL when memory runs out. */
static struct invocation *find_invocation(struct gathered *gathered, const char *uuid,
                                          const char *kind)
{
    for (size_t i = 0; i < gathered->n; i++)
        if (strcmp(gathered->list[i].uuid, uuid) == 0 && strcmp(gathered->list[i].kind, kind) == 0)
            return &gathered->list[i];
    struct invocation *list = realloc(gathered->list, (gathered->n + 1) * sizeof *list);
    if (!list)
        return NULL;
    gathered->list = list;
    struct invocation *added = &list[gathered->n++];
    *added = (struct invocation){.ids = json_array(), .results = json_array()};
    snprintf(added->uuid, sizeof added->uuid, "%s", uuid);
    snprintf(added->kind, sizeof added->kind, "%s", kind);
    return added;
}

/* A run named twice is shown once. */
static bool is_gathered(const struct gathered *gathered, int64_t id)
{
    for (size_t i = 0; i < json_array_size(gathered->runs); i++)
        if (json_integer_value(json_object_get(json_array_get(gathered->runs, i), "id")) == id)
            return true;
    return false;
}

static enum ra_status name_run(struct gathered *gathered, const struct ra_run_listing *run,
                               struct ra_error *err)
{
    char series[512];
    ra_report_short_policy(run->policy ? run->policy : run->kind, series, sizeof series);
    json_t *row =
        json_pack("{s:I, s:o}", "id", (json_int_t)run->id, "series", ra_json_text(series));
    if (!row || json_array_append_new(gathered->runs, row) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    return RA_OK;
}

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    struct gathered *gathered = context;
    json_error_t why;
    if (is_gathered(gathered, run->id))
        return RA_OK;
    RA_TRY(name_run(gathered, run, err));
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
    struct invocation *invocation = find_invocation(
        gathered, run->invocation_uuid ? run->invocation_uuid : run->uuid, run->kind);
    if (!invocation)
        json_decref(result);
    if (!invocation || json_array_append_new(invocation->results, result) != 0 ||
        json_array_append_new(invocation->ids, json_integer(run->id)) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for results");
    invocation->passes += run->n_passes_complete;
    return RA_OK;
}

static enum ra_status gather(struct ra_store *store, const struct values *values,
                             struct gathered *gathered, struct ra_error *err)
{
    gathered->runs = json_array();
    if (!gathered->runs)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    if (values->runs.n == 0)
        return ra_store_runs(store, NULL, on_run, gathered, err);
    for (int i = 0; i < values->runs.n; i++)
        RA_TRY(ra_store_runs(store, values->runs.text[i], on_run, gathered, err));
    return RA_OK;
}

static bool is_kind(const struct invocation *invocation, const char *kind)
{
    return strcmp(invocation->kind, kind) == 0;
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
        if (is_kind(invocation, "eval") || is_kind(invocation, "record")) {
            fprintf(out, ": %s\n\n", invocation->kind);
            (is_kind(invocation, "eval") ? ra_report_eval
                                         : ra_report_recorded)(out, invocation->results);
            continue;
        }
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

static enum ra_status put_page(FILE *out, const struct ra_cli *cli, const struct values *values,
                               struct ra_store *store, const struct gathered *gathered,
                               struct ra_error *err)
{
    struct ra_figures figures;
    char *runs = ra_json_dump(gathered->runs, JSON_COMPACT);
    struct ra_html_invocation *invocations = calloc(gathered->n + 1, sizeof *invocations);
    size_t n_replays = 0, n_evals = 0;
    enum ra_status status = ra_figures_draw(&figures, store, &values->runs, err);
    if (status == RA_OK && (!runs || !invocations))
        status = ra_fail(err, RA_ENOMEM, "no memory for the runs");
    for (size_t i = 0; i < gathered->n && invocations; i++) {
        const struct invocation *one = &gathered->list[i];
        if (!is_kind(one, "eval") && !is_kind(one, "record"))
            invocations[n_replays++] = (struct ra_html_invocation){one->ids, one->results};
    }
    for (size_t i = 0; i < gathered->n && invocations; i++) {
        const struct invocation *one = &gathered->list[i];
        if (is_kind(one, "eval"))
            invocations[n_replays + n_evals++] =
                (struct ra_html_invocation){one->ids, one->results};
    }
    const struct ra_html_source source = {.store = store,
                                          .name = values->db,
                                          .runs = runs,
                                          .invocations = invocations,
                                          .n_invocations = n_replays,
                                          .evals = invocations ? invocations + n_replays : NULL,
                                          .n_evals = n_evals,
                                          .figures = figures.list,
                                          .n_figures = figures.n_named,
                                          .figures_of = figures.of,
                                          .eval_figures_of = figures.of_eval};
    if (status == RA_OK)
        status = ra_report_html(out, &source, err);
    if (status == RA_OK && figures.lacks_gnuplot && !cli->is_quiet)
        fputs("rattn-sim: the page has no figures: gnuplot is not in PATH\n", stderr);
    ra_figures_close(&figures);
    free(invocations);
    free(runs);
    return status;
}

static bool is_page(const struct values *values)
{
    static const char end[] = ".html";
    size_t n = values->out ? strlen(values->out) : 0;
    return n >= sizeof end - 1 && strcmp(values->out + n - (sizeof end - 1), end) == 0;
}

static enum ra_status put_file(const struct ra_cli *cli, const struct values *values,
                               struct ra_store *store, const struct gathered *gathered,
                               struct ra_error *err)
{
    struct ra_out_file file;
    RA_TRY(ra_out_open(&file, values->out, err));
    enum ra_status status = is_page(values)
                                ? put_page(file.stream, cli, values, store, gathered, err)
                                : put(file.stream, cli->format, gathered, err);
    if (status == RA_OK && ra_json_starved())
        status = ra_fail(err, RA_ENOMEM, "%s: no memory for results", values->out);
    return ra_out_close(&file, status, err);
}

static void forget(struct gathered *gathered)
{
    for (size_t i = 0; i < gathered->n; i++) {
        json_decref(gathered->list[i].results);
        json_decref(gathered->list[i].ids);
    }
    free(gathered->list);
    json_decref(gathered->runs);
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct gathered gathered = {0};
    struct ra_store *store;
    RA_TRY(ra_store_open(&store, values->db, RA_STORE_READ, err));
    enum ra_status status = gather(store, values, &gathered, err);
    for (size_t i = 0; i < gathered.n && status == RA_OK; i++)
        status = ra_report_traffic(store, gathered.list[i].ids, gathered.list[i].results, err);
    if (status == RA_OK)
        status = values->out ? put_file(cli, values, store, &gathered, err)
                             : put(stdout, cli->format, &gathered, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    status = status != RA_OK ? status : closed;
    if (status == RA_OK && values->out && !cli->is_quiet)
        fprintf(stderr, "rattn-sim: wrote %s\n", values->out);
    if (status == RA_OK && gathered.n_without > 0 && !cli->is_quiet)
        fprintf(stderr,
                "rattn-sim: %" PRId64 " run%s without a result left out: 'list runs' tells why\n",
                gathered.n_without, gathered.n_without == 1 ? "" : "s");
    forget(&gathered);
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
