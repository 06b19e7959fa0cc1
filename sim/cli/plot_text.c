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

/* Second line of the query, without the comment's dashes and the full stop. */
void ra_plot_claim(const struct ra_plot *plot, char *out, size_t size)
{
    const char *line = strchr(plot->sql, '\n');
    line = line ? line + 1 : "";
    line += strspn(line, "- ");
    size_t n = strcspn(line, ".\n");
    snprintf(out, size, "%.*s", (int)n, line);
}
