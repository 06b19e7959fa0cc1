/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/report_waterfall.h"

#include <math.h>
#include <string.h>

#include "sim/report_table.h"
#include "sim/traffic.h"

static void add(struct ra_waterfall *w, const char *words, enum ra_waterfall_kind kind,
                double bytes)
{
    w->bars[w->n++] = (struct ra_waterfall_bar){words, kind, bytes};
}

bool ra_waterfall_open(struct ra_waterfall *w, const json_t *result)
{
    const json_t *traffic = json_object_get(result, "traffic");
    const json_t *bytes = json_object_get(traffic, "bytes_per_step");
    double explained = 0;
    *w = (struct ra_waterfall){
        .missing = json_string_value(json_object_get(traffic, "missing")),
        .is_emulated = strcmp(ra_result_text(traffic, "method"), "emulated") == 0,
        .measured = ra_result_number(bytes, "measured", NULL),
        .share = ra_result_number(traffic, "unexplained_share", NULL),
    };
    if (isnan(w->measured))
        return false;
    for (int part = 0; part < RA_TRAFFIC_PARTS && !w->missing; part++) {
        double x = ra_result_number(bytes, ra_traffic_name((enum ra_traffic_part)part), NULL);
        if (isnan(x) || x == 0)
            continue;
        add(w, ra_traffic_words((enum ra_traffic_part)part), RA_WATERFALL_PART, x);
        explained += x;
    }
    double hits = ra_result_number(bytes, "l2_hits", NULL);
    if (!isnan(hits) && !w->missing) {
        add(w, "read, but L2 had it", RA_WATERFALL_PART, hits);
        explained += hits;
    }
    add(w, w->is_emulated ? "emulated: read and written" : "measured: DRAM read and written",
        RA_WATERFALL_MEASURED, w->measured);
    if (!w->missing)
        add(w, "unexplained", RA_WATERFALL_UNEXPLAINED, w->measured - explained);
    return true;
}

bool ra_waterfall_warns(const struct ra_waterfall *w)
{
    return fabs(w->share) > RA_WATERFALL_LIMIT;
}

void ra_waterfall_text(FILE *out, const struct ra_waterfall *w)
{
    for (int i = 0; i < w->n; i++) {
        fprintf(out, "  %-34s %14.0f", w->bars[i].words, w->bars[i].bytes);
        if (w->measured > 0)
            fprintf(out, " %7.1f %%", 100 * w->bars[i].bytes / w->measured);
        fputc('\n', out);
    }
    if (ra_waterfall_warns(w))
        fprintf(out, "  warning: %.1f %% of what a step moved is not explained\n", 100 * w->share);
}
