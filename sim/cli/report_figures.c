/* SPDX-License-Identifier: Apache-2.0 */
/* Query, draw, read back, remove: one figure after the other. */
#include "sim/cli/report_figures.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/json_memory.h"
#include "sim/base/text.h"
#include "sim/cli/plot.h"
#include "sim/cli/plot_choice.h"
#include "sim/cli/plot_traffic.h"

static enum ra_status make_folder(char *folder, size_t size, struct ra_error *err)
{
    const char *place = getenv("TMPDIR");
    int n = snprintf(folder, size, "%s/rattn-sim-XXXXXX", place && *place ? place : "/tmp");
    if (n < 0 || (size_t)n >= size)
        return ra_fail(err, RA_EIO, "TMPDIR: path too long");
    if (!mkdtemp(folder))
        return ra_fail(err, RA_EIO, "%s: %s", folder, strerror(errno));
    return RA_OK;
}

/* The file's text, for free(). */
static enum ra_status read_text(const char *path, char **text, struct ra_error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    enum ra_status status = RA_OK;
    rewind(file);
    *text = size < 0 ? NULL : malloc((size_t)size + 1);
    if (!*text)
        status = size < 0 ? ra_fail(err, RA_EIO, "%s: cannot be read again", path)
                          : ra_fail(err, RA_ENOMEM, "no memory for a figure");
    else if (fread(*text, 1, (size_t)size, file) != (size_t)size)
        status = ra_fail(err, RA_EIO, "%s: cannot be read again", path);
    else
        (*text)[size] = '\0';
    fclose(file);
    return status;
}

static void path_of(const char *folder, const char *name, const char *extension, char *path)
{
    snprintf(path, PATH_MAX, "%s/%s.%s", folder, name, extension);
}

static void remove_files(const char *folder, const char *name)
{
    static const char *const extensions[] = {"tsv", "gp", "svg"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        path_of(folder, name, extensions[i], path);
        unlink(path);
    }
}

/* What gnuplot cannot do is said in the figure's place. */
static enum ra_status draw(struct ra_figures *figures, size_t at, const struct ra_plot *plot,
                           struct ra_store *store, const char *runs, const char *folder,
                           struct ra_error *err)
{
    struct ra_plot_target target = {folder, RA_PLOT_SVG};
    struct ra_figure_slot *slot = &figures->slots[at];
    struct ra_error why = {0};
    char needs[256], path[PATH_MAX];
    bool has_rows = false;
    RA_TRY(ra_plot_write(store, plot, runs, &target, &has_rows, err));
    ra_plot_needs(plot, needs, sizeof needs);
    if (!has_rows) {
        snprintf(slot->missing, sizeof slot->missing, "the runs lack %s", needs);
        return RA_OK;
    }
    enum ra_status status = ra_plot_draw(plot, &target, &why);
    path_of(folder, plot->name, "svg", path);
    if (status == RA_OK)
        status = read_text(path, &slot->svg, &why);
    remove_files(folder, plot->name);
    if (status == RA_ENOMEM)
        return ra_fail(err, status, "%s", why.msg);
    if (status != RA_OK)
        snprintf(slot->missing, sizeof slot->missing, "%s", why.msg);
    figures->lacks_gnuplot |= status == RA_ENODEV;
    return RA_OK;
}

static enum ra_status draw_all(struct ra_figures *figures, struct ra_store *store,
                               const struct ra_plot_choice *choice, struct ra_error *err)
{
    char folder[PATH_MAX - 64];
    RA_TRY(ra_plot_explain(store, choice->runs, err));
    char *runs = ra_json_dump(choice->runs, JSON_COMPACT);
    if (!runs)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    enum ra_status status = make_folder(folder, sizeof folder, err);
    if (status == RA_OK) {
        for (size_t i = 0; i < figures->n && status == RA_OK; i++) {
            if (strcmp(ra_plot_kind(&ra_plots[i]), choice->kind) != 0)
                continue;
            status = draw(figures, i, &ra_plots[i], store, runs, folder, err);
            remove_files(folder, ra_plots[i].name);
        }
        rmdir(folder);
    }
    free(runs);
    return status;
}

static void name_runs(const struct ra_plot_choice *choice, char *of, size_t size)
{
    struct ra_writer writer = {of, size, 0};
    bool is_eval = strcmp(choice->kind, "eval") == 0;
    size_t n = json_array_size(choice->runs);
    if (n == 0) {
        ra_write(&writer, "No complete %s to draw.", is_eval ? "closed loop" : "replay");
        return;
    }
    ra_write(&writer, "Drawn from %zu run%s of the last invocation reported, ids", n,
             n == 1 ? "" : "s");
    for (size_t i = 0; i < n && i < 16; i++)
        ra_write(&writer, "%s %" JSON_INTEGER_FORMAT, i ? "," : "",
                 json_integer_value(json_object_get(json_array_get(choice->runs, i), "id")));
    ra_write(&writer, "%s, which share %s.", n > 16 ? ", ..." : "",
             is_eval ? "model, task and decoder" : "trace, sequence, device and method");
    if (choice->n_other > 0)
        ra_write(&writer, " %d more %s left out.", choice->n_other,
                 choice->n_other == 1 ? "is" : "are");
}

/* Of one kind of runs; figures of a kind that there is no run of are left without a name. */
static enum ra_status draw_kind(struct ra_figures *figures, struct ra_store *store,
                                const struct ra_option_texts *runs, const char *kind, char *of,
                                size_t size, struct ra_error *err)
{
    struct ra_plot_choice choice;
    enum ra_status status = ra_plot_choose(store, runs, kind, false, &choice, err);
    bool has_runs = status == RA_OK && json_array_size(choice.runs) > 0;
    if (status == RA_OK)
        name_runs(&choice, of, size);
    if (has_runs)
        status = draw_all(figures, store, &choice, err);
    ra_plot_choice_close(&choice);
    for (size_t i = 0; i < figures->n && status == RA_OK; i++) {
        struct ra_figure_slot *slot = &figures->slots[i];
        if (!has_runs || strcmp(ra_plot_kind(&ra_plots[i]), kind) != 0)
            continue;
        ra_plot_claim(&ra_plots[i], slot->claim, sizeof slot->claim);
        figures->list[i] =
            (struct ra_html_figure){ra_plots[i].name, kind,      slot->claim,
                                    ra_plots[i].sql,  slot->svg, slot->svg ? NULL : slot->missing};
    }
    return status;
}

enum ra_status ra_figures_draw(struct ra_figures *figures, struct ra_store *store,
                               const struct ra_option_texts *runs, struct ra_error *err)
{
    *figures = (struct ra_figures){0};
    while (ra_plots[figures->n].name)
        figures->n++;
    figures->list = calloc(figures->n, sizeof *figures->list);
    figures->slots = calloc(figures->n, sizeof *figures->slots);
    if (!figures->list || !figures->slots)
        return ra_fail(err, RA_ENOMEM, "no memory for figures");
    RA_TRY(draw_kind(figures, store, runs, "replay", figures->of, sizeof figures->of, err));
    RA_TRY(draw_kind(figures, store, runs, "eval", figures->of_eval, sizeof figures->of_eval, err));
    figures->n_named = 0;
    for (size_t i = 0; i < figures->n; i++)
        if (figures->list[i].name)
            figures->list[figures->n_named++] = figures->list[i];
    return RA_OK;
}

void ra_figures_close(struct ra_figures *figures)
{
    for (size_t i = 0; figures->slots && i < figures->n; i++)
        free(figures->slots[i].svg);
    free(figures->slots);
    free(figures->list);
    *figures = (struct ra_figures){0};
}
