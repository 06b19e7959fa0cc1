/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/report_eval.h"

#include <math.h>
#include <string.h>

#include "sim/report.h"
#include "sim/report_lines.h"

/* Rows of one table were decoded by the same program from the same texts. */
static bool same_table(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"task", "spelling", "model", "tool"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(ra_result_text(a, keys[i]), ra_result_text(b, keys[i])) != 0)
            return false;
    return true;
}

bool ra_eval_table_has(const struct ra_eval_table *table, const json_t *result)
{
    return same_table(table->head, result);
}

bool ra_eval_table_open(struct ra_eval_table *table, const json_t *results, size_t first)
{
    const json_t *head = json_array_get(results, first);
    *table = (struct ra_eval_table){.results = results, .head = head, .first = first};
    for (size_t i = 0; i < first; i++)
        if (same_table(json_array_get(results, i), head))
            return false;
    table->asks = json_object_get(head, "accuracy") != NULL;
    table->baseline = ra_result_number(head, "baseline_accuracy", NULL);
    table->is_gated = table->asks && !(table->baseline >= RA_EVAL_GATE);
    return true;
}

/* --- cells -------------------------------------------------------------------------------------
 */

const struct ra_eval_column ra_eval_columns[RA_EVAL_COLUMNS] = {
    {"", "NLL", 8, false, false},       {"delta", "NLL", 9, false, false},
    {"", "KL", 8, false, true},         {"", "ppl", 8, false, false},
    {"right", "%", 8, true, false},     {"delta", "right", 8, true, false},
    {"", "margin", 0, true, false},     {"keys", "% full", 7, false, false},
    {"eff.", "stride", 7, false, false}};

static void put_value(struct ra_eval_cell *cell, const char *format, double value)
{
    if (isnan(value))
        snprintf(cell->value, sizeof cell->value, "-");
    else
        snprintf(cell->value, sizeof cell->value, format, value);
}

static void put_interval(struct ra_eval_cell *cell, const char *format, const json_t *row,
                         const char *key, double scale)
{
    double low = scale * ra_result_number(row, key, "low"),
           high = scale * ra_result_number(row, key, "high");
    char from[20], to[20];
    put_value(cell, format, scale * ra_result_number(row, key, "mean"));
    if (isnan(low) || isnan(high))
        return;
    snprintf(from, sizeof from, format, low);
    snprintf(to, sizeof to, format, high);
    snprintf(cell->interval, sizeof cell->interval, "%s..%s", from, to);
}

void ra_eval_cells(const struct ra_eval_table *table, const json_t *row,
                   struct ra_eval_cell cells[RA_EVAL_COLUMNS])
{
    memset(cells, 0, RA_EVAL_COLUMNS * sizeof *cells);
    put_value(&cells[0], "%.4f", ra_result_number(row, "nll", NULL));
    put_interval(&cells[1], "%+.4f", row, "delta_nll", 1);
    put_interval(&cells[2], "%.4f", row, "kl", 1);
    put_value(&cells[3], "%.2f", ra_result_number(row, "ppl", NULL));
    put_value(&cells[4], "%.1f", 100 * ra_result_number(row, "accuracy", NULL));
    put_interval(&cells[5], "%+.1f", row, "delta_accuracy", 100);
    put_value(&cells[6], "%.2f", ra_result_number(row, "margin", NULL));
    put_value(&cells[7], "%.1f", 100 * ra_result_number(row, "keys_share", NULL));
    put_value(&cells[8], "%.4g", ra_result_number(row, "effective_stride", NULL));
    if (!table->is_gated)
        return;
    snprintf(cells[4].value, sizeof cells[4].value, "n/a");
    snprintf(cells[5].value, sizeof cells[5].value, "n/a");
    cells[5].interval[0] = '\0';
}

/* --- words -------------------------------------------------------------------------------------
 */

/* "P = 256", or "P = 200 to 256" where documents differ. */
static void put_range(const json_t *row, char letter, const char *key, ra_report_part_fn put,
                      void *context)
{
    const json_t *documents = json_object_get(row, "documents");
    double least = NAN, most = NAN;
    char part[96];
    for (size_t i = 0; i < json_array_size(documents); i++) {
        double n = ra_result_number(json_array_get(documents, i), key, NULL);
        least = fmin(least, n);
        most = fmax(most, n);
    }
    if (isnan(least))
        return;
    if (least == most)
        snprintf(part, sizeof part, "%c = %.0f", letter, least);
    else
        snprintf(part, sizeof part, "%c = %.0f to %.0f", letter, least, most);
    put(context, part);
}

void ra_eval_head(const struct ra_eval_table *table, ra_report_part_fn put, void *context)
{
    const json_t *row = table->head;
    double texts = ra_result_number(row, "texts", NULL);
    char part[1024];
    snprintf(part, sizeof part, "task %s: %s", ra_result_text(row, "task"),
             ra_result_text(row, "model"));
    put(context, part);
    snprintf(part, sizeof part, "%.0f %s%s", texts, table->asks ? "prompt" : "text",
             texts == 1 ? "" : "s");
    put(context, part);
    put_range(row, 'P', "prompt_len", put, context);
    put_range(row, 'N', "steps", put, context);
    if (!*ra_result_text(row, "tool"))
        return;
    snprintf(part, sizeof part, "decoded by %s %s and imported", ra_result_text(row, "tool"),
             ra_result_text(row, "tool_version"));
    put(context, part);
}

void ra_eval_notes(const struct ra_eval_table *table, ra_report_part_fn put, void *context)
{
    double texts = ra_result_number(table->head, "texts", NULL);
    char note[384], baseline[32] = "no baseline";
    put(context, *ra_result_text(table->head, "tool")
                     ? "closed loop, decoded elsewhere: how, the other program must say"
                     : "closed loop: the model decoded under each schedule, from the same dense "
                       "prefill, and was told the true tokens");
    if (texts > 1)
        snprintf(note, sizeof note,
                 "delta: less full attention's, in nats per token; an interval is the middle 95 %% "
                 "of a paired bootstrap over the %.0f %s",
                 texts, table->asks ? "prompts" : "texts");
    else
        snprintf(note, sizeof note,
                 "delta: less full attention's, in nats per token; of one %s there is no interval",
                 table->asks ? "prompt" : "text");
    put(context, note);
    if (!table->asks) {
        put(context, "KL: divergence of full attention's prediction from the schedule's, nats per "
                     "token");
        return;
    }
    if (!isnan(table->baseline))
        snprintf(baseline, sizeof baseline, "baseline %.1f %%", 100 * table->baseline);
    snprintf(note, sizeof note,
             "gate: answers count only where full attention gets %.0f %% of the prompts right; "
             "here%s (%s)",
             100 * RA_EVAL_GATE, table->is_gated ? " right is n/a" : " it does", baseline);
    put(context, note);
}

bool ra_eval_has_since(const json_t *row)
{
    const json_t *bins = json_object_get(row, "by_since");
    size_t n = json_array_size(bins);
    return n > 0 && ra_result_number(json_array_get(bins, n - 1), "from", NULL) > 0;
}

void ra_eval_since(const json_t *row, ra_report_part_fn put, void *context)
{
    const json_t *bins = json_object_get(row, "by_since");
    for (size_t i = 0; i < json_array_size(bins); i++) {
        const json_t *bin = json_array_get(bins, i);
        double from = ra_result_number(bin, "from", NULL), to = ra_result_number(bin, "to", NULL);
        char steps[48], part[128];
        if (from == to)
            snprintf(steps, sizeof steps, "%.0f", from);
        else if (isnan(to))
            snprintf(steps, sizeof steps, "from %.0f", from);
        else
            snprintf(steps, sizeof steps, "%.0f-%.0f", from, to);
        snprintf(part, sizeof part, "%s: %+.4f (%.0f)", steps,
                 ra_result_number(bin, "delta_nll", NULL), ra_result_number(bin, "n", NULL));
        put(context, part);
    }
}

/* --- text --------------------------------------------------------------------------------------
 */

static bool is_shown(const struct ra_eval_table *table, int column)
{
    const struct ra_eval_column *c = &ra_eval_columns[column];
    return c->width > 0 && (table->asks ? !c->of_texts : !c->of_answers);
}

static void put_columns(FILE *out, const struct ra_eval_table *table)
{
    fprintf(out, "%*s", RA_REPORT_POLICY, "");
    for (int i = 0; i < RA_EVAL_COLUMNS; i++)
        if (is_shown(table, i))
            fprintf(out, "%*s", ra_eval_columns[i].width, ra_eval_columns[i].above);
    fprintf(out, "\n%-*s", RA_REPORT_POLICY, "policy");
    for (int i = 0; i < RA_EVAL_COLUMNS; i++)
        if (is_shown(table, i))
            fprintf(out, "%*s", ra_eval_columns[i].width, ra_eval_columns[i].below);
    fputc('\n', out);
}

/* The second line of a row, from its first character: intervals, each ending where its column does.
 * Returns where the first begins, 0 when there is none. */
static int intervals(const struct ra_eval_table *table,
                     const struct ra_eval_cell cells[RA_EVAL_COLUMNS], char *line, size_t size)
{
    int end = RA_REPORT_POLICY, at = 0, first = 0;
    for (int i = 0; i < RA_EVAL_COLUMNS; i++) {
        if (!is_shown(table, i))
            continue;
        end += ra_eval_columns[i].width;
        int length = (int)strlen(cells[i].interval);
        if (length == 0 || ra_eval_columns[i].of_texts)
            continue;
        int from = end - length > at ? end - length : at + 1;
        first = first ? first : from;
        snprintf(line + at, size - (size_t)at, "%*s%s", from - at, "", cells[i].interval);
        at = (int)strlen(line);
    }
    return first;
}

static void put_row(FILE *out, const struct ra_eval_table *table, const json_t *row)
{
    char policy[RA_REPORT_SHORT], line[256];
    struct ra_eval_cell cells[RA_EVAL_COLUMNS];
    int n;
    ra_report_short_policy(ra_result_text(row, "policy"), policy, sizeof policy);
    const char *rest = ra_report_put_policy(out, policy, RA_REPORT_POLICY, &n);
    fprintf(out, "%*s", RA_REPORT_POLICY - n, "");
    ra_eval_cells(table, row, cells);
    for (int i = 0; i < RA_EVAL_COLUMNS; i++)
        if (is_shown(table, i))
            fprintf(out, "%*s", ra_eval_columns[i].width, cells[i].value);
    fputc('\n', out);
    int first = intervals(table, cells, line, sizeof line);
    while (rest || first) {
        n = 0;
        if (rest) {
            fputs("  ", out);
            rest = ra_report_put_policy(out, rest, RA_REPORT_POLICY - 2, &n);
            n += 2;
        }
        if (n < first) {
            fputs(line + n, out);
            first = 0;
        }
        fputc('\n', out);
    }
}

static void put_since(FILE *out, const struct ra_eval_table *table)
{
    bool has_heading = false;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        struct ra_report_line line = {out, 0};
        char policy[RA_REPORT_SHORT];
        int n;
        if (!ra_eval_table_has(table, row) || !ra_eval_has_since(row))
            continue;
        if (!has_heading) {
            fputc('\n', out);
            ra_report_put_words(out, RA_EVAL_SINCE);
        }
        has_heading = true;
        ra_report_short_policy(ra_result_text(row, "policy"), policy, sizeof policy);
        for (const char *rest = policy; rest; fputc('\n', out))
            rest = ra_report_put_policy(out, rest, RA_REPORT_LINE, &n);
        fputs("  ", out);
        ra_eval_since(row, ra_report_put_part, &line);
        fputc('\n', out);
    }
}

static void put_note(void *context, const char *note)
{
    ra_report_put_words(context, note);
}

void ra_report_eval(FILE *out, const json_t *results)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        struct ra_eval_table table;
        struct ra_report_line line = {out, 0};
        if (!ra_eval_table_open(&table, results, i))
            continue;
        if (i > 0)
            fputc('\n', out);
        ra_eval_head(&table, ra_report_put_part, &line);
        fputs("\n\n", out);
        put_columns(out, &table);
        for (size_t j = i; j < json_array_size(results); j++)
            if (ra_eval_table_has(&table, json_array_get(results, j)))
                put_row(out, &table, json_array_get(results, j));
        fputc('\n', out);
        ra_eval_notes(&table, put_note, out);
        put_since(out, &table);
    }
}

void ra_report_recorded(FILE *out, const json_t *results)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *row = json_array_get(results, i);
        struct ra_report_line line = {out, 0};
        char part[1024];
        snprintf(part, sizeof part, "recorded %s: %s", ra_result_text(row, "trace"),
                 ra_result_text(row, "model"));
        ra_report_put_part(&line, part);
        snprintf(part, sizeof part, "layers %.0f of %.0f", ra_result_number(row, "layers", NULL),
                 ra_result_number(row, "n_layers", NULL));
        ra_report_put_part(&line, part);
        snprintf(part, sizeof part, "P = %.0f prompt tokens",
                 ra_result_number(row, "prompt_len", NULL));
        ra_report_put_part(&line, part);
        snprintf(part, sizeof part, "N = %.0f steps", ra_result_number(row, "steps", NULL));
        ra_report_put_part(&line, part);
        snprintf(part, sizeof part, "perplexity %.3f under %s",
                 ra_result_number(row, "perplexity", NULL), ra_result_text(row, "policy"));
        ra_report_put_part(&line, part);
        fputc('\n', out);
    }
}
