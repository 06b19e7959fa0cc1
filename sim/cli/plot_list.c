/* SPDX-License-Identifier: Apache-2.0 */
/* The listing of figures, for `list figures`: each with the claim at the head of its query. */
#include "sim/cli/plot_list.h"
#include "sim/cli/plot.h"
#include "sim/cli/wrap.h"

enum ra_status ra_list_figures(json_t *rows, const char *db, struct ra_error *err)
{
    (void)db;
    for (const struct ra_plot *plot = ra_plots; plot->name; plot++) {
        char claim[256];
        ra_plot_claim(plot, claim, sizeof claim);
        json_t *row = json_pack("{s:s, s:s, s:s}", "name", plot->name, "kind", ra_plot_kind(plot),
                                "claim", claim);
        if (!row || json_array_append_new(rows, row) != 0)
            return ra_fail(err, RA_ENOMEM, "no memory for a listing");
    }
    return RA_OK;
}

void ra_list_print_figures(const json_t *rows, int verbosity)
{
    (void)verbosity;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        int column = printf("%-10s ", json_string_value(json_object_get(row, "name")));
        ra_put_wrapped(column, 11, json_string_value(json_object_get(row, "claim")));
    }
}
