/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was measured and what follows from it. A layer, and a step that was not timed as a whole,
 * last from the first of their operations to the last; an argument says so. A layer that is there
 * several times in a step is a span each time.
 */
#include "sim/cli/export_events.h"

#include <stddef.h>

#define EXECUTED                                                                                   \
    "WITH at AS (SELECT :runs ->> 'run' AS run, :runs ->> 'pass' AS pass, :runs ->> 'host' AS "    \
    "host), exec AS MATERIALIZED (SELECT s.kind, s.step, s.layer, n.value AS name,"                \
    " e.host_start_ns - at.host AS start, e.host_end_ns - at.host AS stop, e.event_us, s.id"       \
    " FROM at JOIN scope_exec e ON e.pass_id = at.pass JOIN scope s ON s.id = e.scope_id"          \
    " JOIN string_ids n ON n.id = s.name_id WHERE e.host_end_ns >= e.host_start_ns),"              \
    " steps AS (SELECT step, start, stop, event_us, 'measured' AS span FROM exec"                  \
    " WHERE kind = 'step' AND step IS NOT NULL UNION ALL"                                          \
    " SELECT step, min(start), max(stop), NULL, 'first to last operation' FROM exec"               \
    " WHERE kind IN ('layer', 'op') AND step NOT IN"                                               \
    " (SELECT step FROM exec WHERE kind = 'step' AND step IS NOT NULL) GROUP BY step)"

static const char tracks[] =
    "WITH track(tid, name) AS (VALUES (1, 'run'), (2, 'steps'), (3, 'layers'), (4, 'operations'), "
    "(5,"
    " 'profiler overhead') UNION ALL SELECT DISTINCT thread_id + 10, 'calls, thread ' || thread_id"
    " FROM api_call WHERE pass_id = (:runs ->> 'pass'))"
    " SELECT 'M', 1, tid, 'thread_name', NULL, NULL, NULL, NULL, NULL, name AS \"$name\" FROM track"
    " UNION ALL SELECT 'M', 1, 0, 'process_name', NULL, NULL, NULL, NULL, NULL, 'host'";

static const char device_names[] =
    "SELECT 'M', 100 + coalesce(d.ordinal, 0), 0, 'process_name', NULL, NULL, NULL, NULL, NULL,"
    " 'device ' || coalesce(d.ordinal || ': ' || d.name, '(not recorded)') AS \"$name\""
    " FROM pass p LEFT JOIN device d ON d.id = p.device_id WHERE p.id = (:runs ->> 'pass') AND"
    " (EXISTS (SELECT 1 FROM kernel WHERE pass_id = p.id) OR"
    " EXISTS (SELECT 1 FROM memop WHERE pass_id = p.id))";

static const char steps[] = EXECUTED
    " SELECT 'X', 1, 2, iif(step < 0, 'prefill', 'step ' || step), 'step', start, stop,"
    " NULL, NULL, step, event_us AS device_us, span AS \"$span\" FROM steps ORDER BY start";

static const char layers[] = EXECUTED
    ", island AS (SELECT step, layer, start, stop,"
    " row_number() OVER (PARTITION BY step ORDER BY start, id)"
    " - row_number() OVER (PARTITION BY step, layer ORDER BY start, id) AS place FROM exec"
    " WHERE kind = 'op' AND step IS NOT NULL AND layer IS NOT NULL),"
    " span AS (SELECT step, layer, start, stop, 'measured' AS span FROM exec WHERE kind = 'layer'"
    " UNION ALL SELECT step, layer, min(start), max(stop), 'first to last operation' FROM island"
    " WHERE NOT EXISTS (SELECT 1 FROM exec WHERE kind = 'layer') GROUP BY step, layer, place)"
    " SELECT 'X', 1, 3, 'layer ' || s.layer, 'layer', s.start, s.stop, NULL, NULL, s.step, s.layer,"
    " l.is_full, l.keys_read, s.span AS \"$span\" FROM at JOIN span s LEFT JOIN layer_step l"
    " ON l.run_id = at.run AND l.step = s.step AND l.layer = s.layer ORDER BY s.start";

static const char operations[] =
    EXECUTED " SELECT 'X', 1, iif(kind = 'op', 4, 1), name, kind, start, stop, NULL, NULL, step,"
             " layer, event_us AS device_us FROM exec WHERE kind IN ('op', 'trace') ORDER BY start";

static const char calls[] =
    "SELECT 'X', 1, thread_id + 10, coalesce(n.value, domain || ' call ' || cbid), domain,"
    " start_ns - (:runs ->> 'device'), end_ns - (:runs ->> 'device'), NULL, NULL,"
    " printf('%u', correlation_id) AS correlation, result FROM api_call a LEFT JOIN string_ids n"
    " ON n.id = a.name_id WHERE pass_id = (:runs ->> 'pass') AND end_ns >= start_ns";

static const char overheads[] =
    "SELECT 'X', 1, 5, 'overhead ' || kind, 'overhead', start_ns - (:runs ->> 'device'),"
    " end_ns - (:runs ->> 'device'), NULL, NULL, kind FROM overhead"
    " WHERE pass_id = (:runs ->> 'pass') AND end_ns >= start_ns ORDER BY start_ns";

#define SUM(column, unit)                                                                          \
    " SELECT step, '" column "' AS name, sum(" column ") AS value, '" unit "' AS unit"             \
    " FROM layer_step JOIN at ON run_id = at.run GROUP BY step"

static const char counters[] = EXECUTED
    ", counted AS (" SUM("keys_read", "keys") " UNION ALL" SUM("kv_read_bytes", "bytes") /**/
    " UNION ALL" SUM("kv_write_bytes", "bytes") " UNION ALL" SUM(
        "refresh_bytes",
        "bytes") " UNION ALL" SUM("selection_bytes",
                                  "bytes") " UNION ALL SELECT step, 'refresh_overlap',"
                                           " avg(refresh_overlap), 'share' FROM layer_step JOIN at "
                                           "ON run_id = at.run GROUP BY step)"
                                           " SELECT 'C', 1, 0, c.name, 'counter', s.start, NULL, "
                                           "NULL, NULL,"
                                           " iif(c.unit = 'keys', c.value, NULL) AS keys, "
                                           "iif(c.unit = 'bytes', c.value, NULL) AS bytes,"
                                           " iif(c.unit = 'share', c.value, NULL) AS share FROM "
                                           "counted c JOIN steps s USING (step)"
                                           " WHERE c.value IS NOT NULL ORDER BY s.start";

/* Of each metric the latest pass that has it: counters are read in passes of their own. */
static const char metrics[] = EXECUTED
    ", latest AS (SELECT v.metric_id, max(p.id) AS pass FROM at JOIN pass p ON p.run_id = at.run"
    " AND p.state = 'complete' JOIN metric_value v ON v.pass_id = p.id GROUP BY v.metric_id)"
    " SELECT 'C', 1, 0, d.name || ' (' || d.unit || ')', 'counter', s.start, NULL, NULL, NULL,"
    " v.value FROM latest m JOIN metric_value v ON v.pass_id = m.pass AND v.metric_id = m.metric_id"
    " JOIN metric_def d ON d.id = v.metric_id JOIN scope c ON c.id = v.scope_id AND"
    " c.kind = 'step' JOIN steps s ON s.step = c.step ORDER BY s.start";

const char *const ra_event_host_sql[] = {tracks, device_names, steps,    layers,  operations,
                                         calls,  overheads,    counters, metrics, NULL};

/* A runtime call that made a driver call with the same id is the one that a user wrote. */
#define CALL(table)                                                                                \
    " LEFT JOIN api_call a ON a.id = (SELECT id FROM api_call WHERE pass_id = " table ".pass_id"   \
    " AND correlation_id = " table ".correlation_id ORDER BY domain DESC, id LIMIT 1)"
#define CALL_CELLS " a.start_ns - (:runs ->> 'device'), a.thread_id + 10"
#define OPERATION " LEFT JOIN scope s ON s.id = scope_id LEFT JOIN string_ids o ON o.id = s.name_id"
#define OPERATION_CELLS " s.step, s.layer, o.value AS \"$operation\""

const char ra_event_kernels_sql[] =
    "SELECT 'X', 100 + coalesce(d.ordinal, 0), stream_id, n.value, 'kernel',"
    " k.start_ns - (:runs ->> 'device'), k.end_ns - (:runs ->> 'device')," CALL_CELLS
    ", printf('%u', k.correlation_id) AS correlation, context_id AS context, stream_id AS stream,"
    " grid_x || ' x ' || grid_y || ' x ' || grid_z AS \"$grid\","
    " block_x || ' x ' || block_y || ' x ' || block_z AS \"$block\","
    " cluster_x || ' x ' || cluster_y || ' x ' || cluster_z AS \"$cluster\","
    " registers AS registers_per_thread, smem_static_bytes AS shared_static_bytes,"
    " smem_dynamic_bytes AS shared_dynamic_bytes," OPERATION_CELLS
    " FROM kernel k JOIN pass p ON p.id = k.pass_id JOIN string_ids n ON n.id = k.name_id"
    " LEFT JOIN device d ON d.id = p.device_id" OPERATION CALL(
        "k") " WHERE k.pass_id = (:runs ->> 'pass') AND k.end_ns >= k.start_ns ORDER BY k.start_ns";

const char ra_event_copies_sql[] =
    "SELECT 'X', 100 + coalesce(d.ordinal, 0), stream_id, m.op || CASE copy_kind WHEN 1 THEN"
    " ' to device' WHEN 2 THEN ' from device' WHEN 8 THEN ' on device' ELSE '' END, 'copy',"
    " m.start_ns - (:runs ->> 'device'), m.end_ns - (:runs ->> 'device')," CALL_CELLS
    ", printf('%u', m.correlation_id) AS correlation, stream_id AS stream, bytes, copy_kind,"
    " " OPERATION_CELLS " FROM memop m JOIN pass p ON p.id = m.pass_id"
    " LEFT JOIN device d ON d.id = p.device_id" OPERATION CALL(
        "m") " WHERE m.pass_id = (:runs ->> 'pass') AND m.end_ns >= m.start_ns ORDER BY m.start_ns";
