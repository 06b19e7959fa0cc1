/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verdict: of the schedules that move fewer bytes than full the one that keeps most attention,
 * in one sentence per table. Times differ when the slowest repeat of one is faster than the fastest
 * of the other; times of no device say nothing.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report.h"
#include "sim/report_html_part.h"
#include "sim/report_table.h"

enum { SHORT_MAX = 512 };

struct verdict {
    FILE *out;
    json_t *spans; /* by run.id: [fastest, slowest] repeat, ns */
    const json_t *ids;
    struct ra_report_table table;
    int n_schedules;
    const json_t *best, *least, *full; /* most mass; fewest bytes; NULL when there is none */
    const char *best_id, *full_id;
};

static enum ra_status on_span(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    if (row->n != 3 || !row->text[0] || !row->text[1] || !row->text[2])
        return RA_OK;
    json_t *span = json_pack("[f, f]", strtod(row->text[1], NULL), strtod(row->text[2], NULL));
    return json_object_set_new(context, row->text[0], span) == 0
               ? RA_OK
               : ra_fail(err, RA_ENOMEM, "no memory for the verdict");
}

/* Key of a run among the spans. */
static const json_t *span_of(const struct verdict *verdict, const json_t *row)
{
    for (size_t i = verdict->table.first; i < json_array_size(verdict->table.results); i++) {
        char key[32];
        if (json_array_get(verdict->table.results, i) != row)
            continue;
        snprintf(key, sizeof key, "%" JSON_INTEGER_FORMAT,
                 json_integer_value(json_array_get(verdict->ids, i)));
        return json_object_get(verdict->spans, key);
    }
    return NULL;
}

static double end_of(const json_t *span, size_t end)
{
    const json_t *value = json_array_get(span, end);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Full wins every comparison of what is kept, and so does what keeps all of it in fewer bits: that
 * loses by its error, which is not compared here. A bound could not be chosen. */
static void scan(struct verdict *verdict)
{
    const struct ra_report_table *table = &verdict->table;
    double most = NAN, fewest = NAN;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        const char *policy = ra_result_text(row, "policy");
        if (!ra_report_table_has(table, row))
            continue;
        if (strcmp(policy, "full") == 0)
            verdict->full = row;
        if (strcmp(policy, "full") == 0 || strchr(policy, '+') || ra_report_is_bound(policy))
            continue;
        verdict->n_schedules++;
        double bytes = ra_result_bytes(row), mass = ra_result_number(row, "mass_recovered", "mean");
        if (isnan(bytes) || bytes >= table->full_bytes)
            continue;
        if (!verdict->least || bytes < fewest) {
            verdict->least = row;
            fewest = bytes;
        }
        bool is_more = mass > most || (mass == most && bytes < ra_result_bytes(verdict->best));
        if (!isnan(mass) && (!verdict->best || is_more)) {
            verdict->best = row;
            most = mass;
        }
    }
}

static void put_policy(const struct verdict *verdict, const json_t *row)
{
    char name[SHORT_MAX];
    ra_report_short_policy(ra_result_text(row, "policy"), name, sizeof name);
    ra_html_code(verdict->out, name);
}

static void put_bytes(const struct verdict *verdict, const json_t *row)
{
    if (isnan(verdict->table.full_bytes))
        fputs("a cost against full attention that is not known, as full was not replayed with it",
              verdict->out);
    else
        fprintf(verdict->out, "%.1f&nbsp;%% of the bytes of full attention",
                100 * ra_result_bytes(row) / verdict->table.full_bytes);
}

static void put_method(const struct verdict *verdict, const json_t *row)
{
    FILE *out = verdict->out;
    double repeats = ra_result_number(row, "repeats", NULL);
    fputs(" (", out);
    ra_html_text(out, ra_result_text(json_object_get(row, "attention_ns"), "method"));
    fputs(", ", out);
    ra_html_text(out, ra_result_text(row, "backend"));
    fputs(" backend on ", out);
    ra_html_text(out, ra_result_text(row, "device"));
    if (repeats > 1)
        fprintf(out, ", median of %.0f repeats", repeats);
    else if (repeats == 1)
        fputs(", 1 repeat, so no range", out);
    if (json_is_true(json_object_get(row, "cache_resident")))
        fputs(", cache-resident", out);
    fputc(')', out);
}

static void put_time(const struct verdict *verdict, const json_t *row)
{
    FILE *out = verdict->out;
    const char *method = ra_result_text(json_object_get(row, "attention_ns"), "method");
    double speedup = ra_result_number(row, "speedup_attention", NULL);
    const json_t *mine = span_of(verdict, row), *full = span_of(verdict, verdict->full);
    if (!*method || isnan(ra_result_number(row, "attention_ns", "total"))) {
        fputs("; its time was not measured", out);
        return;
    }
    if (strcmp(method, "synthetic") == 0) {
        fputs("; its times are synthetic, of no device, and say nothing about speed", out);
        return;
    }
    if (isnan(speedup) || !(speedup > 0)) {
        fputs("; its time against full is not known", out);
    } else if (ra_result_number(row, "repeats", NULL) > 1 && end_of(mine, 0) <= end_of(full, 1) &&
               end_of(full, 0) <= end_of(mine, 1)) {
        fputs("; its attention time does not differ from that of full by more than the repeats of "
              "each do",
              out);
    } else {
        fprintf(out, "%s takes %.1f&nbsp;%% of the attention time of full",
                speedup > 1 ? ", and" : ", but", 100 / speedup);
    }
    put_method(verdict, row);
}

static void put_part(void *context, const char *part)
{
    fputs(", ", context);
    ra_html_text(context, part);
}

static void put_best(const struct verdict *verdict)
{
    FILE *out = verdict->out;
    const json_t *row = verdict->best;
    double p05 = ra_result_number(row, "mass_recovered", "p05"),
           error = ra_result_number(row, "output_rel_err", "p95");
    put_policy(verdict, row);
    if (verdict->n_schedules > 1)
        fprintf(out, " keeps the most attention of %d schedules", verdict->n_schedules);
    else
        fputs(" keeps part of the attention", out);
    fprintf(out, ": %.1f&nbsp;%% of its mass on average",
            100 * ra_result_number(row, "mass_recovered", "mean"));
    if (!isnan(p05))
        fprintf(out, " and %.1f&nbsp;%% at the 5th percentile", 100 * p05);
    if (!isnan(error))
        fprintf(out, ", with a relative output error of %.3g at the 95th", error);
    fputs(", for ", out);
    put_bytes(verdict, row);
    put_time(verdict, row);
}

static void put_sentence(const struct verdict *verdict)
{
    FILE *out = verdict->out;
    const json_t *row = verdict->best ? verdict->best : verdict->least;
    if (verdict->n_schedules == 0) {
        fputs("No schedule was replayed that could be chosen over full attention.", out);
        return;
    }
    if (!row) {
        fprintf(out, "Keep full attention: %s moves fewer bytes.",
                verdict->n_schedules == 1 ? "the one schedule does not show that it"
                                          : "none of the schedules");
        return;
    }
    if (verdict->best) {
        put_best(verdict);
    } else {
        put_policy(verdict, row);
        fputs(" moves least, at ", out);
        put_bytes(verdict, row);
        put_time(verdict, row);
        fputs("; what it keeps was not measured", out);
    }
    ra_report_layout(row, put_part, out);
    if (*ra_result_text(row, "synthetic"))
        fputs(", on a synthetic trace", out);
    fputs("; open loop: exact for this recording, later drift is not included.", out);
}

static void put_where(const struct verdict *verdict)
{
    const struct ra_report_table *table = &verdict->table;
    int n = 0;
    for (size_t i = table->first; i < json_array_size(table->results); i++)
        n += ra_report_table_has(table, json_array_get(table->results, i));
    const char *before = n == 1 ? "Run " : "Runs ";
    for (size_t i = table->first; i < json_array_size(table->results); i++)
        if (ra_report_table_has(table, json_array_get(table->results, i))) {
            fprintf(verdict->out, "%s%" JSON_INTEGER_FORMAT, before,
                    json_integer_value(json_array_get(verdict->ids, i)));
            before = ", ";
        }
    fputs(": ", verdict->out);
}

static int count_tables(const struct ra_html_source *source)
{
    int n = 0;
    struct ra_report_table table;
    for (size_t i = 0; i < source->n_invocations; i++)
        for (size_t j = 0; j < json_array_size(source->invocations[i].results); j++)
            n += ra_report_table_open(&table, source->invocations[i].results, j);
    return n;
}

static void put_all(struct ra_html *html, json_t *spans)
{
    int n_tables = count_tables(html->source);
    for (size_t i = 0; i < html->source->n_invocations; i++) {
        const struct ra_html_invocation *invocation = &html->source->invocations[i];
        for (size_t j = 0; j < json_array_size(invocation->results); j++) {
            struct verdict verdict = {.out = html->out, .spans = spans, .ids = invocation->ids};
            if (!ra_report_table_open(&verdict.table, invocation->results, j))
                continue;
            scan(&verdict);
            fputs("<p>", html->out);
            if (n_tables > 1)
                put_where(&verdict);
            put_sentence(&verdict);
            fputs("</p>\n", html->out);
        }
    }
    if (n_tables == 0)
        fputs(
            html->source->n_evals > 0
                ? "<p>Nothing was replayed. What a model loses that decodes under these schedules "
                  "stands under <a href=\"#eval\">closed loop</a>.</p>\n"
                : "<p>The runs hold no result.</p>\n",
            html->out);
    else
        fputs(
            "<p class=\"soft\">Named is the schedule that keeps the most mass on average of those "
            "that move fewer bytes than full; bounds, which know the future, are no "
            "schedules.</p>\n",
            html->out);
    ra_html_unexplained(html);
}

enum ra_status ra_html_verdict(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_verdict_sql;
    json_t *spans = json_object();
    if (!spans)
        return ra_fail(err, RA_ENOMEM, "no memory for the verdict");
    enum ra_status status =
        ra_store_select(html->source->store, &sql, html->source->runs, on_span, spans, err);
    if (status == RA_OK)
        put_all(html, spans);
    json_decref(spans);
    return status;
}
