/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of plots/, which travel inside the binary; the build makes plots_text.h of them. */
#include <string.h>

#include "sim/cli/plot.h"

#include "plots_text.h"

const char *const ra_plot_house_sql = house_sql, *const ra_plot_house_gp = house_gp;

const struct ra_plot ra_plots[] = {
#define RA_PLOT(name) {#name, name##_sql, name##_gp},
    RA_PLOTS
#undef RA_PLOT
    {NULL, NULL, NULL},
};

/* A line of the query, from 0, without the comment's dashes, `skip` and the full stop. */
static void line_of(const struct ra_plot *plot, int number, size_t skip, char *out, size_t size)
{
    const char *line = plot->sql;
    for (int i = 0; line && i < number; i++) {
        line = strchr(line, '\n');
        line += line != NULL;
    }
    line = line ? line : "";
    line += strspn(line, "- ");
    size_t n = strcspn(line, ".\n");
    snprintf(out, size, "%.*s", (int)(n - (skip < n ? skip : n)), line + (skip < n ? skip : n));
}

void ra_plot_claim(const struct ra_plot *plot, char *out, size_t size)
{
    line_of(plot, 1, 0, out, size);
}

void ra_plot_needs(const struct ra_plot *plot, char *out, size_t size)
{
    line_of(plot, 2, strlen("Needs "), out, size);
}

const char *ra_plot_kind(const struct ra_plot *plot)
{
    char line[64];
    line_of(plot, 3, 0, line, sizeof line);
    return strcmp(line, "Of runs of eval") == 0 ? "eval" : "replay";
}
