/* SPDX-License-Identifier: Apache-2.0 */
/* A query's rows as CSV; names of columns carry the units. What was not measured is empty. */
#include <string.h>

#include "sim/cli/export.h"
#include "sim/report.h"

static const char kernels_sql[] =
    "SELECT p.run_id AS run, p.ordinal AS pass, s.step, s.layer, o.value AS operation,"
    " n.value AS kernel, d.ordinal AS device, context_id AS context, stream_id AS stream,"
    " printf('%u', correlation_id) AS correlation_id,"
    " start_ns - (:runs ->> 'device') AS start_ns, end_ns - start_ns AS duration_ns,"
    " grid_x AS grid_x_blocks, grid_y AS grid_y_blocks, grid_z AS grid_z_blocks,"
    " block_x AS block_x_threads, block_y AS block_y_threads, block_z AS block_z_threads,"
    " cluster_x AS cluster_x_blocks, cluster_y AS cluster_y_blocks, cluster_z AS cluster_z_blocks,"
    " registers AS registers_per_thread, smem_static_bytes AS shared_static_bytes,"
    " smem_dynamic_bytes AS shared_dynamic_bytes, smem_executed_bytes AS shared_executed_bytes,"
    " local_total_bytes, iif(graph_id IS NULL, NULL, printf('%u', graph_id)) AS graph_id,"
    " iif(graph_node_id IS NULL, NULL, printf('%u', graph_node_id)) AS graph_node_id"
    " FROM kernel k JOIN pass p ON p.id = k.pass_id JOIN string_ids n ON n.id = k.name_id"
    " LEFT JOIN device d ON d.id = p.device_id LEFT JOIN scope s ON s.id = k.scope_id"
    " LEFT JOIN string_ids o ON o.id = s.name_id"
    " WHERE k.pass_id = (:runs ->> 'pass') ORDER BY k.start_ns, k.id";

static const char execs_sql[] =
    "SELECT p.run_id AS run, p.ordinal AS pass, s.kind, s.step, s.layer, n.value AS operation,"
    " host_start_ns - (:runs ->> 'host') AS start_ns,"
    " host_end_ns - host_start_ns AS duration_ns, event_us AS device_duration_us"
    " FROM scope_exec e JOIN pass p ON p.id = e.pass_id JOIN scope s ON s.id = e.scope_id"
    " JOIN string_ids n ON n.id = s.name_id"
    " WHERE e.pass_id = (:runs ->> 'pass') ORDER BY host_start_ns, s.id";

static void put_line(FILE *out, const char *const *fields, int n)
{
    for (int i = 0; i < n; i++) {
        if (i > 0)
            fputc(',', out);
        ra_report_csv_field(out, fields[i]);
    }
    fputc('\n', out);
}

struct csv {
    FILE *out;
    bool has_heading;
};

static enum ra_status on_row(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    (void)err;
    struct csv *csv = context;
    if (!csv->has_heading)
        put_line(csv->out, row->names, row->n);
    csv->has_heading = true;
    put_line(csv->out, row->text, row->n);
    return RA_OK;
}

enum ra_status ra_export_csv(FILE *out, struct ra_store *store, const struct ra_export_pass *pass,
                             struct ra_error *err)
{
    struct csv csv = {.out = out};
    const char *sql = pass->n_kernels > 0 ? kernels_sql : execs_sql;
    return ra_store_select(store, &sql, pass->query, on_row, &csv, err);
}
