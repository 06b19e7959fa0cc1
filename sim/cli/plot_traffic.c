/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/plot_traffic.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "sim/base/json_memory.h"
#include "sim/report_table.h"
#include "sim/report_traffic.h"
#include "sim/report_waterfall.h"

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    json_t *result = run->result_json ? json_loads(run->result_json, 0, NULL) : NULL;
    /* What is no result has no traffic; other figures need none. */
    if (json_array_append_new(context, result ? result : json_null()) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for results");
    return RA_OK;
}

static void put_parts(json_t *run, const json_t *result)
{
    struct ra_waterfall w;
    json_t *parts = json_array();
    if (!json_is_object(result) || !ra_waterfall_open(&w, result)) {
        json_decref(parts);
        return;
    }
    for (int i = 0; i < w.n; i++)
        if (w.bars[i].kind == RA_WATERFALL_PART)
            json_array_append_new(
                parts, json_pack("{s:s, s:f}", "words", w.bars[i].words, "bytes", w.bars[i].bytes));
    const json_t *bytes = json_object_get(json_object_get(result, "traffic"), "bytes_per_step");
    double between = ra_result_number(bytes, "between", NULL);
    json_object_set_new(run, "parts", parts);
    json_object_set_new(run, "between_bytes", json_real(isnan(between) ? 0 : between));
    json_object_set_new(run, "is_emulated", json_boolean(w.is_emulated));
}

enum ra_status ra_plot_explain(struct ra_store *store, json_t *runs, struct ra_error *err)
{
    json_t *ids = json_array(), *results = json_array();
    enum ra_status st = RA_OK;
    size_t i;
    json_t *run;
    json_array_foreach(runs, i, run)
    {
        char which[24];
        json_int_t id = json_integer_value(json_object_get(run, "id"));
        snprintf(which, sizeof which, "%" JSON_INTEGER_FORMAT, id);
        json_array_append_new(ids, json_integer(id));
        if (st == RA_OK)
            st = ra_store_runs(store, which, on_run, results, err);
    }
    if (st == RA_OK)
        st = ra_report_traffic(store, ids, results, err);
    for (i = 0; i < json_array_size(runs) && st == RA_OK; i++)
        put_parts(json_array_get(runs, i), json_array_get(results, i));
    json_decref(ids);
    json_decref(results);
    if (st == RA_OK && ra_json_starved())
        st = ra_fail(err, RA_ENOMEM, "no memory for results");
    return st;
}
