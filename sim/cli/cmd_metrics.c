/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics: what counting on a GPU would take. `plan` names each metric in CUPTI's words and says
 * how many executions of the same work give them all; no GPU is needed for that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "sim/cli/commands.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"

struct values {
    const char *what, *chip, *metrics;
};

static const struct ra_operand operands[] = {
    {"WHAT", 1, 1, offsetof(struct values, what), .help = "what is done", .choices = "plan"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "chip",
     .kind = RA_OPTION_TEXT,
     .is_required = true,
     .offset = offsetof(struct values, chip),
     .argument = "NAME",
     .words = RA_WORDS_NONE,
     .help = "the GPU's chip, as CUPTI calls it"},
    {.name = "metrics",
     .kind = RA_OPTION_TEXT,
     .is_required = true,
     .offset = offsetof(struct values, metrics),
     .argument = "LIST",
     .words = RA_WORDS_NONE,
     .help = "names from 'list metrics --chip', sets (core, hit, miss) and CUPTI's own names, "
             "joined by commas"},
    {.name = NULL},
};

/* Metrics by CUPTI names and, for each, its run; for each run, its passes. */
struct plan {
    const char *chip;
    size_t n, n_passes, n_runs;
    struct ra_counter_choice *choices;
    const char **cupti_names;
    size_t *run_of, *passes;
};

static void plan_fini(struct plan *plan)
{
    free(plan->choices);
    free((void *)plan->cupti_names);
    free(plan->run_of);
    free(plan->passes);
}

static enum ra_status make(struct plan *plan, const char *list, struct ra_error *err)
{
    struct ra_counter_plan *all;
    RA_TRY(ra_counter_probe(plan->chip, err));
    RA_TRY(ra_counter_choose(plan->chip, list, &plan->choices, &plan->n, err));
    plan->cupti_names = calloc(plan->n, sizeof *plan->cupti_names);
    plan->run_of = calloc(plan->n, sizeof *plan->run_of);
    plan->passes = calloc(plan->n, sizeof *plan->passes);
    if (!plan->cupti_names || !plan->run_of || !plan->passes)
        return ra_fail(err, RA_ENOMEM, "no memory for a plan");
    for (size_t i = 0; i < plan->n; i++)
        plan->cupti_names[i] = plan->choices[i].cupti_name;
    RA_TRY(ra_counter_plan_open(&all, plan->chip, NULL, plan->cupti_names, plan->n, err));
    plan->n_passes = all->n_passes;
    ra_counter_plan_close(all);
    if (plan->n_passes > 1)
        return ra_counter_split(plan->chip, plan->cupti_names, plan->n, plan->run_of, plan->passes,
                                &plan->n_runs, err);
    plan->n_runs = 1;
    plan->passes[0] = plan->n_passes;
    return RA_OK;
}

/* One row a metric: {name, cupti_name, hw_unit, additive}. */
static enum ra_status describe(const struct plan *plan, json_t *rows, struct ra_error *err)
{
    for (size_t i = 0; i < plan->n; i++) {
        struct ra_counter_info info;
        RA_TRY(ra_counter_describe(plan->chip, plan->cupti_names[i], &info, err));
        json_t *row = json_object();
        json_object_set_new(row, "name", ra_json_text(plan->choices[i].name));
        json_object_set_new(row, "cupti_name", ra_json_text(plan->cupti_names[i]));
        json_object_set_new(row, "hw_unit", ra_json_text(info.unit));
        json_object_set_new(row, "additive", json_boolean(info.is_additive));
        if (!row || json_array_append_new(rows, row) != 0)
            return ra_fail(err, RA_ENOMEM, "no memory for a plan");
    }
    return RA_OK;
}

static enum ra_status put_json(const struct plan *plan, json_t *rows, struct ra_error *err)
{
    json_t *object = json_object(), *runs = json_array(), *passes = json_array();
    for (size_t run = 0; run < plan->n_runs; run++) {
        json_t *names = json_array();
        for (size_t i = 0; i < plan->n; i++)
            if (plan->run_of[i] == run)
                json_array_append_new(names, ra_json_text(plan->choices[i].name));
        json_array_append_new(runs, names);
        json_array_append_new(passes, json_integer((json_int_t)plan->passes[run]));
    }
    json_object_set_new(object, "chip", ra_json_text(plan->chip));
    json_object_set(object, "metrics", rows);
    json_object_set_new(object, "passes", json_integer((json_int_t)plan->n_passes));
    json_object_set_new(object, "runs", runs);
    json_object_set_new(object, "run_passes", passes);
    enum ra_status status =
        object ? ra_put_json(object, err) : ra_fail(err, RA_ENOMEM, "no memory for a plan");
    json_decref(object);
    return status;
}

/* Runs count from 1, as people do. */
static enum ra_status put_csv(const struct plan *plan, json_t *rows, struct ra_error *err)
{
    for (size_t i = 0; i < plan->n; i++) {
        json_t *row = json_array_get(rows, i);
        size_t run = plan->run_of[i];
        json_object_set_new(row, "run", json_integer((json_int_t)run + 1));
        json_object_set_new(row, "run_passes", json_integer((json_int_t)plan->passes[run]));
    }
    return ra_report_csv(stdout, rows, err);
}

static void put_runs(const struct plan *plan)
{
    for (size_t run = 0; run < plan->n_runs; run++) {
        int column = printf("run %zu: ", run + 1);
        struct ra_wrap wrap = {stdout, column, column, false};
        for (size_t i = 0; i < plan->n; i++)
            if (plan->run_of[i] == run)
                ra_wrap_words(&wrap, plan->choices[i].name);
        if (plan->passes[run] > 1)
            ra_wrap_words(&wrap, "(several passes even alone)");
        putchar('\n');
    }
}

static void put_text(const struct plan *plan, const json_t *rows)
{
    printf("%s, all together: %zu pass%s\n\n%-20s  %-10s  %s\n", plan->chip, plan->n_passes,
           plan->n_passes == 1 ? "" : "es", "name", "unit", "CUPTI's name");
    for (size_t i = 0; i < plan->n; i++) {
        const json_t *unit = json_object_get(json_array_get(rows, i), "hw_unit");
        bool is_raw = strcmp(plan->choices[i].name, plan->cupti_names[i]) == 0;
        printf("%-20s  %-10s  %s\n", is_raw ? "-" : plan->choices[i].name, json_string_value(unit),
               plan->cupti_names[i]);
    }
    putchar('\n');
    put_runs(plan);
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct plan plan = {.chip = values->chip};
    if (strcmp(values->what, "plan") != 0)
        return ra_fail(err, RA_EUSAGE, "metrics: nothing called '%s'; expected 'plan'",
                       values->what);
    json_t *rows = json_array();
    enum ra_status status = make(&plan, values->metrics, err);
    if (status == RA_OK)
        status = describe(&plan, rows, err);
    if (status == RA_OK && cli->format == RA_FORMAT_TEXT)
        put_text(&plan, rows);
    else if (status == RA_OK)
        status =
            cli->format == RA_FORMAT_CSV ? put_csv(&plan, rows, err) : put_json(&plan, rows, err);
    json_decref(rows);
    plan_fini(&plan);
    return status;
}

const struct ra_command ra_cmd_metrics = {
    .name = "metrics",
    .summary = "how many executions counting metrics on a GPU takes",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "Needs CUPTI, but no GPU. What takes several passes is shared out to runs of one pass "
             "each, since a second pass would find caches as the first left them. A100 is GA100, "
             "H100 GH100; RTX 30, 40 and 50 are GA10x, AD10x and GB20x.",
};
