/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot: figures of a store. The runs of one choice share trace, sequence, backend, device and
 * method, those of eval model, task and decoder, so that no figure mixes what cannot be compared; a
 * series is named by its policy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "sim/base/json_memory.h"
#include "sim/base/text.h"
#include "sim/cli/commands.h"
#include "sim/cli/output.h"
#include "sim/cli/plot.h"
#include "sim/cli/plot_choice.h"
#include "sim/cli/plot_traffic.h"
#include "sim/cli/wrap.h"

enum { MANY = 16 }; /* series: more are hard to tell apart */

struct values {
    const char *db, *folder;
    struct ra_option_texts figures, runs;
    int format;
};

static const struct ra_operand operands[] = {
    {"DB", 1, 1, offsetof(struct values, db), .help = "the store"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "folder",
     .letter = 'o',
     .kind = RA_OPTION_TEXT,
     .is_required = true,
     .offset = offsetof(struct values, folder),
     .argument = "DIR",
     .words = RA_WORDS_FOLDERS,
     .help = "where the figures go; made when missing"},
    {.name = "figure",
     .kind = RA_OPTION_TEXTS,
     .offset = offsetof(struct values, figures),
     .argument = "NAME",
     .words = RA_WORDS_FIGURES,
     .help = "only this figure, see 'list figures'; may be repeated"},
    {.name = "output",
     .kind = RA_OPTION_CHOICE,
     .offset = offsetof(struct values, format),
     .choices = RA_PLOT_FORMATS,
     .fallback = "svg",
     .argument = "FORMAT",
     .help = "file format of the figures"},
    {.name = "run",
     .kind = RA_OPTION_TEXTS,
     .offset = offsetof(struct values, runs),
     .argument = "RUN",
     .words = RA_WORDS_NONE,
     .help = "only this run: id, or a unique beginning of a uuid; may be repeated"},
    {.name = NULL},
};

static bool is_wanted(const struct values *values, const char *name)
{
    for (int i = 0; i < values->figures.n; i++)
        if (strcmp(values->figures.text[i], name) == 0)
            return true;
    return values->figures.n == 0;
}

static enum ra_status check_figures(const struct values *values, struct ra_error *err)
{
    const char *names[32];
    char hint[RA_HINT_MAX];
    size_t n = 0;
    for (; n < sizeof names / sizeof *names && ra_plots[n].name; n++)
        names[n] = ra_plots[n].name;
    for (int i = 0; i < values->figures.n; i++) {
        struct ra_span word = ra_span_of(values->figures.text[i]);
        bool is_known = false;
        for (size_t j = 0; j < n; j++)
            if (strcmp(names[j], values->figures.text[i]) == 0)
                is_known = true;
        if (!is_known)
            return ra_fail(err, RA_EUSAGE, "--figure: no figure named '%.*s'; %s", RA_SPAN(word),
                           ra_text_hint(word, names, n, sizeof *names, hint));
    }
    return RA_OK;
}

static void say_left_out(const struct ra_plot *plot, const char *needs)
{
    char text[384];
    snprintf(text, sizeof text, "figure %s left out: the runs lack %s", plot->name, needs);
    ra_complain(text);
}

static enum ra_status draw(const struct ra_cli *cli, const struct values *values,
                           struct ra_store *store, const char *kind, const char *runs,
                           struct ra_error *err)
{
    static const char *const extensions[] = {"svg", "png", "pdf"};
    struct ra_plot_target target = {values->folder, (enum ra_plot_format)values->format};
    for (const struct ra_plot *plot = ra_plots; plot->name; plot++) {
        char needs[256];
        bool has_rows = false;
        if (!is_wanted(values, plot->name) || strcmp(ra_plot_kind(plot), kind) != 0)
            continue;
        RA_TRY(ra_plot_write(store, plot, runs, &target, &has_rows, err));
        ra_plot_needs(plot, needs, sizeof needs);
        if (!has_rows && values->figures.n > 0)
            return ra_fail(err, RA_EFORMAT, "%s: the runs lack what figure %s needs: %s",
                           values->db, plot->name, needs);
        if (has_rows)
            RA_TRY(ra_plot_draw(plot, &target, err));
        if (has_rows)
            printf("%s/%s.%s\n", values->folder, plot->name, extensions[values->format]);
        else if (!cli->is_quiet)
            say_left_out(plot, needs);
    }
    return RA_OK;
}

static enum ra_status draw_choice(const struct ra_cli *cli, const struct values *values,
                                  struct ra_store *store, const struct ra_plot_choice *choice,
                                  struct ra_error *err)
{
    if (choice->n_other > 0 && !cli->is_quiet)
        fprintf(stderr, "rattn-sim: %d run%s of another %s left out\n", choice->n_other,
                choice->n_other == 1 ? "" : "s",
                strcmp(choice->kind, "eval") == 0 ? "model, task or decoder"
                                                  : "trace, sequence, device or method");
    if (json_array_size(choice->runs) > MANY && !cli->is_quiet)
        fprintf(stderr, "rattn-sim: %zu series in one figure are hard to tell apart: see --run\n",
                json_array_size(choice->runs));
    if (mkdir(values->folder, 0777) != 0 && errno != EEXIST)
        return ra_fail(err, RA_EIO, "%s: %s", values->folder, strerror(errno));
    if (is_wanted(values, "waterfall"))
        RA_TRY(ra_plot_explain(store, choice->runs, err));
    char *runs = ra_json_dump(choice->runs, JSON_COMPACT);
    if (!runs)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    enum ra_status status = draw(cli, values, store, choice->kind, runs, err);
    free(runs);
    return status;
}

/* A figure that was asked for, of a kind that no run has. */
static enum ra_status check_kind(const struct values *values, const char *kind,
                                 struct ra_error *err)
{
    for (const struct ra_plot *plot = ra_plots; plot->name && values->figures.n > 0; plot++) {
        char needs[256];
        ra_plot_needs(plot, needs, sizeof needs);
        if (is_wanted(values, plot->name) && strcmp(ra_plot_kind(plot), kind) == 0)
            return ra_fail(err, RA_EFORMAT, "%s: the runs lack what figure %s needs: %s",
                           values->db, plot->name, needs);
    }
    return RA_OK;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    static const char *const kinds[] = {"replay", "eval"};
    const struct values *values = arguments;
    struct ra_store *store;
    struct ra_plot_choice choices[2] = {{.runs = NULL}};
    size_t n = 0;
    RA_TRY(check_figures(values, err));
    RA_TRY(ra_store_open(&store, values->db, RA_STORE_READ, err));
    enum ra_status status = RA_OK;
    for (int i = 0; i < 2 && status == RA_OK; i++) {
        status = ra_plot_choose(store, &values->runs, kinds[i], true, &choices[i], err);
        n += json_array_size(choices[i].runs);
    }
    if (status == RA_OK && n == 0)
        status = ra_fail(err, RA_EFORMAT, "%s: no complete replay or eval to draw", values->db);
    for (int i = 0; i < 2 && status == RA_OK; i++)
        status = json_array_size(choices[i].runs) > 0
                     ? draw_choice(cli, values, store, &choices[i], err)
                     : check_kind(values, kinds[i], err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    for (int i = 0; i < 2; i++)
        ra_plot_choice_close(&choices[i]);
    return status != RA_OK ? status : closed;
}

const struct ra_command ra_cmd_plot = {
    .name = "plot",
    .summary = "figures of a store, with the tables they are drawn from",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes =
        "Draws the last replay and the last eval unless --run says otherwise. Beside each "
        "figure stand NAME.tsv, its numbers, and NAME.gp, which draws it again. Needs gnuplot.",
};
