/* SPDX-License-Identifier: Apache-2.0 */
/* From values per (layer, step, head) to figures, and from figures to JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/base/stats.h"
#include "sim/engine_member.h"

/* Defined values of the layer-steps that carry all bits of `flag`, into out; their number. */
static size_t collect(const struct ra_track *track, const double *values, size_t width,
                      uint8_t flag, double *out)
{
    size_t steps = (size_t)track->shape->n_full * (size_t)track->shape->n_steps, n = 0;
    for (size_t i = 0; i < steps; i++) {
        if ((track->flags[i] & flag) != flag)
            continue;
        for (size_t h = 0; h < width; h++)
            if (!isnan(values[i * width + h]))
                out[n++] = values[i * width + h];
    }
    return n;
}

static void summarise(const struct ra_track *track, uint8_t flag, double *buffer,
                      struct ra_quality_summary *out)
{
    size_t Hq = (size_t)track->shape->model->Hq, Hkv = (size_t)track->shape->model->Hkv;
    size_t n = collect(track, track->mass, Hq, flag, buffer);
    out->mass_mean = ra_mean(buffer, n);
    ra_sort(buffer, n);
    out->mass_p05 = ra_percentile(buffer, n, 5);
    out->mass_min = ra_min(buffer, n);
    n = collect(track, track->err, Hq, flag, buffer);
    out->err_mean = ra_mean(buffer, n);
    ra_sort(buffer, n);
    out->err_p95 = ra_percentile(buffer, n, 95);
    out->err_max = ra_max(buffer, n);
    n = collect(track, track->recall, Hq, flag, buffer);
    out->recall_mean = ra_mean(buffer, n);
    n = collect(track, track->overlap, Hkv, flag, buffer);
    out->overlap_mean = ra_mean(buffer, n);
    ra_sort(buffer, n);
    out->overlap_p05 = ra_percentile(buffer, n, 5);
}

static void summarise_steps(const struct ra_track *track, double *buffer,
                            struct ra_replay_result *result)
{
    size_t steps = (size_t)track->shape->n_steps, n = 0;
    const double *err = ra_track_layer_err(track);
    for (size_t t = 0; t < steps; t++) {
        double sum = 0;
        int defined = 0;
        for (int l = 0; l < track->shape->n_full; l++) {
            double one = err[(size_t)l * steps + t];
            sum += isnan(one) ? 0 : one;
            defined += !isnan(one);
        }
        if (defined)
            buffer[n++] = sum / defined;
    }
    result->step_err_mean = ra_mean(buffer, n);
    ra_sort(buffer, n);
    result->step_err_p95 = ra_percentile(buffer, n, 95);
    result->step_err_max = ra_max(buffer, n);
}

static void mean_bits(const struct ra_track *track, struct ra_replay_result *result)
{
    const struct ra_shape *shape = track->shape;
    const struct ra_model *m = shape->model;
    double rows = (double)(shape->P + shape->run_steps) * m->Hkv * shape->n_full;
    for (int l = 0; track->row_bits && l < shape->n_full; l++) {
        result->k_bits += (double)track->row_bits[l].k / (rows * m->D);
        result->v_bits += (double)track->row_bits[l].v / (rows * m->Dv);
    }
}

enum ra_status ra_engine_summarise(struct ra_track *track, struct ra_replay_result *result,
                                   struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    size_t values = (size_t)shape->n_full * (size_t)shape->n_steps * (size_t)shape->model->Hq;
    double *buffer = malloc((values + 1) * sizeof *buffer);
    if (!buffer)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu figures", values);
    result->k_resolved = ra_policy_spec_k(track->spec, shape->P);
    result->steps = shape->n_steps;
    result->full_layer_steps = track->full_layer_steps;
    result->recycled_layer_steps = track->recycled_layer_steps;
    result->total = track->total;
    result->prefill = track->prefill;
    mean_bits(track, result);
    result->window_keys_read = track->window_keys;
    result->window_kv_read_bytes = track->window_read;
    result->window_kv_write_bytes = track->window_write;
    result->near_ties = track->near_ties;
    result->selections = track->selections;
    result->err_undefined = track->err_undefined;
    result->has_quality = track->config->quality;
    if (result->has_quality) {
        summarise(track, 0, buffer, &result->all);
        summarise(track, RA_FLAG_SPARSE, buffer, &result->on_recycled);
        summarise_steps(track, buffer, result);
    } else {
        size_t n = collect(track, track->overlap, (size_t)shape->model->Hkv, 0, buffer);
        result->all.overlap_mean = ra_mean(buffer, n);
        ra_sort(buffer, n);
        result->all.overlap_p05 = ra_percentile(buffer, n, 5);
    }
    ra_track_fingerprint(track, result->fingerprint);
    result->by_type = track->types ? ra_types_json(track) : NULL;
    free(buffer);
    return RA_OK;
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *text(const char *value)
{
    return value && *value ? json_string(value) : json_null();
}

static json_t *ratio(double a, double b)
{
    return number(b != 0 ? a / b : NAN);
}

static void put_quality(json_t *object, const struct ra_quality_summary *q, bool measured)
{
    struct ra_quality_summary none = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    struct ra_quality_summary s = measured ? *q : none;
    json_object_set_new(object, "mass_recovered",
                        json_pack("{s:o,s:o,s:o}", "mean", number(s.mass_mean), "p05",
                                  number(s.mass_p05), "min", number(s.mass_min)));
    json_object_set_new(object, "output_rel_err",
                        json_pack("{s:o,s:o,s:o}", "mean", number(s.err_mean), "p95",
                                  number(s.err_p95), "max", number(s.err_max)));
    json_object_set_new(object, "topk_recall", json_pack("{s:o}", "mean", number(s.recall_mean)));
    json_object_set_new(
        object, "refresh_overlap",
        json_pack("{s:o,s:o}", "mean", number(q->overlap_mean), "p05", number(q->overlap_p05)));
}

static json_t *layer_list(const struct ra_shape *shape, bool windows)
{
    json_t *list = json_array();
    for (int l = 0; l < shape->n_lanes; l++)
        if ((shape->lanes[l].window != 0) == windows)
            json_array_append_new(list, json_integer(shape->lanes[l].id));
    return list;
}

static void put_counts(json_t *object, const struct ra_replay_result *r)
{
    json_object_set_new(object, "keys_read", json_integer(r->total.keys_read));
    json_object_set_new(object, "keys_attended", json_integer(r->total.keys_attended));
    json_object_set_new(object, "kv_read_bytes", json_integer(r->total.kv_read_bytes));
    json_object_set_new(object, "kv_write_bytes", json_integer(r->total.kv_write_bytes));
    json_object_set_new(object, "refresh_entries", json_integer(r->total.refresh_entries));
    json_object_set_new(object, "refresh_bytes", json_integer(r->total.refresh_bytes));
    json_object_set_new(object, "selection_bytes", json_integer(r->total.selection_bytes));
    json_object_set_new(object, "window",
                        json_pack("{s:I,s:I,s:I}", "keys_read", (json_int_t)r->window_keys_read,
                                  "kv_read_bytes", (json_int_t)r->window_kv_read_bytes,
                                  "kv_write_bytes", (json_int_t)r->window_kv_write_bytes));
}

/* The result of the schedule that everything is compared with, NULL when it was not replayed. */
static const struct ra_replay_result *baseline(const struct ra_replay_config *config,
                                               const struct ra_replay_result *results)
{
    for (int p = 0; p < config->n_policies; p++)
        if (strcmp(ra_policy_spec_canonical(config->specs[p]), "full") == 0)
            return &results[p];
    return NULL;
}

/* Of a step on average: which steps have a time may differ. Exactly that of the totals where all
 * have one. */
static json_t *speedup(const struct ra_replay_result *full, const struct ra_replay_result *r)
{
    double timed = r->steps - r->late_steps, of_full = full->steps - full->late_steps;
    return ratio(full->attention_ns * (timed / of_full), r->attention_ns);
}

/* A transformation is executed on rows that were dequantised before the clock started. */
static void put_transformation(json_t *object, const struct ra_policy_spec *spec,
                               const struct ra_replay_result *r)
{
    const struct ra_transform_chain *chain = ra_policy_spec_transform(spec);
    json_object_set_new(object, "transformation",
                        chain ? json_pack("{s:s,s:o,s:o,s:s}", "name",
                                          ra_transform_canonical(chain), "bits_per_key_entry",
                                          number(r->k_bits), "bits_per_value_entry",
                                          number(r->v_bits), "timed_rows", "dequantised")
                              : json_null());
}

static void put_times(json_t *object, const struct ra_replay_config *config,
                      const struct ra_replay_result *r, const struct ra_replay_result *full)
{
    double missing = r->is_timed ? 0 : NAN;
    const char *method = config->backend->method;
    json_object_set_new(object, "attention_ns",
                        json_pack("{s:o,s:o,s:o,s:o,s:o}", "total",
                                  number(r->attention_ns + missing), "per_step_mean",
                                  number(r->step_mean_ns + missing), "p50",
                                  number(r->step_p50_ns + missing), "p99",
                                  number(r->step_p99_ns + missing), "method", text(method)));
    json_t *ops = json_object();
    for (int op = 0; op < RA_OP_COUNT; op++)
        json_object_set_new(ops, ra_op_name(op), number(r->ops_ns[op] + missing));
    json_object_set_new(object, "ops_ns", ops);
    bool is_own = json_is_null(json_object_get(object, "transformation")); /* rows as recorded */
    bool compared = full && r->is_timed && full->is_timed && is_own;
    json_object_set_new(object, "speedup_attention", compared ? speedup(full, r) : json_null());
    json_object_set_new(object, "speedup_step", json_pack("{s:n,s:n}", "value", "rest"));
    json_object_set_new(object, "step_ratio",
                        compared ? ratio(r->recycled_step_mean_ns, full->step_mean_ns)
                                 : json_null());
    json_object_set_new(object, "refresh_step_ratio",
                        compared && r != full ? ratio(r->full_step_mean_ns, full->step_mean_ns)
                                              : json_null());
    json_object_set_new(object, "tail_ratio",
                        r->is_timed ? ratio(r->step_p99_ns, r->step_mean_ns) : json_null());
    json_object_set_new(object, "late_steps",
                        r->is_timed ? json_integer(r->late_steps) : json_null());
    json_object_set_new(object, "repeats", json_integer(r->repeats));
    json_object_set_new(object, "launch_mode", json_string(ra_replay_launch_mode(config)));
    json_object_set_new(object, "batch", json_integer(config->batch > 1 ? config->batch : 1));
    json_object_set_new(object, "batch_of",
                        config->batch > 1 ? json_string(config->with ? "sequences" : "copies")
                                          : json_null());
    json_object_set_new(object, "tile_layers", json_integer(ra_engine_tiles(config)));
    json_object_set_new(object, "cache_resident",
                        json_boolean(r->is_timed && r->is_cache_resident));
    json_object_set_new(object, "scores",
                        json_string(config->scores == RA_SCORES_FUSED ? "fused" : "recompute"));
    if (config->backend->play) {
        json_object_set_new(object, "select", json_string(ra_select_name(config->select)));
        json_object_set_new(object, "decide", json_string(ra_decide_name(config->decide)));
        json_object_set_new(object, "pdl", json_boolean(config->early));
        json_object_set_new(object, "phase", json_string(config->spread ? "spread" : "aligned"));
        json_object_set_new(object, "ragged", json_real(config->ragged));
        json_object_set_new(object, "between", json_string(config->between ? "model" : "none"));
        json_object_set_new(object, "page",
                            config->page ? json_integer(config->page) : json_null());
    }
    json_object_set_new(object, "cache",
                        json_string(config->cache == RA_CACHE_COMPACT ? "compact" : "gather"));
}

const char *ra_replay_launch_mode(const struct ra_replay_config *config)
{
    if (!config->backend->play)
        return config->backend->launch_mode;
    return config->no_graph                   ? "stream"
           : config->decide == RA_DECIDE_HOST ? "layer-graphs"
                                              : config->backend->launch_mode;
}

static json_t *result_json(const struct ra_replay_config *config, const struct ra_shape *shape,
                           const struct ra_replay_result *r, int p,
                           const struct ra_replay_result *full)
{
    const struct ra_trace_info *info = shape->info;
    char device[128] = "";
    if (config->backend->device)
        config->backend->device(device, sizeof device);
    json_t *object =
        json_pack("{s:o,s:i,s:s,s:o,s:s,s:o,s:i,s:o,s:o,s:I,s:I}", "trace", text(info->path),
                  "sequence", config->seq, "policy", ra_policy_spec_canonical(config->specs[p]),
                  "k_resolved", r->k_resolved >= 0 ? json_integer(r->k_resolved) : json_null(),
                  "backend", config->backend->name, "device", text(device), "steps", r->steps,
                  "layers", layer_list(shape, false), "window_layers", layer_list(shape, true),
                  "full_layer_steps", (json_int_t)r->full_layer_steps, "recycled_layer_steps",
                  (json_int_t)r->recycled_layer_steps);
    json_object_set_new(object, "effective_stride",
                        ratio((double)r->steps * shape->n_full, (double)r->full_layer_steps));
    put_counts(object, r);
    put_quality(object, &r->all, r->has_quality);
    bool known = r->has_quality;
    json_object_set_new(object, "step_rel_err",
                        json_pack("{s:o,s:o,s:o}", "mean", number(known ? r->step_err_mean : NAN),
                                  "p95", number(known ? r->step_err_p95 : NAN), "max",
                                  number(known ? r->step_err_max : NAN)));
    json_t *recycled = json_object();
    struct ra_quality_summary nothing = r->on_recycled;
    nothing.overlap_mean = r->has_quality ? nothing.overlap_mean : NAN;
    nothing.overlap_p05 = r->has_quality ? nothing.overlap_p05 : NAN;
    put_quality(recycled, &nothing, r->has_quality);
    json_object_set_new(object, "on_recycled", recycled);
    json_object_set_new(object, "undefined_errors", json_integer(r->err_undefined));
    json_object_set_new(
        object, "kernel_err",
        json_pack("{s:o,s:o}", "max", number(r->kernel_err_max), "bound",
                  isnan(r->kernel_err_max) ? json_null() : number(r->kernel_err_bound)));
    json_object_set_new(object, "near_ties", json_integer(r->near_ties));
    json_object_set_new(object, "selections", json_integer(r->selections));
    put_transformation(object, config->specs[p], r);
    put_times(object, config, r, full);
    json_object_set_new(object, "prefill",
                        json_pack("{s:I,s:I,s:I,s:o}", "kv_read_bytes",
                                  (json_int_t)r->prefill.kv_read_bytes, "kv_write_bytes",
                                  (json_int_t)r->prefill.kv_write_bytes, "selection_bytes",
                                  (json_int_t)r->prefill.selection_bytes, "ns",
                                  r->is_timed ? number(r->prefill_ns) : json_null()));
    json_object_set_new(object, "backend_bytes", json_integer((json_int_t)r->backend_bytes));
    json_object_set_new(object, "fingerprint", text(r->fingerprint));
    json_object_set_new(object, "output_hash", text(r->output_hash));
    if (r->by_type)
        json_object_set(object, "by_type", r->by_type);
    json_object_set_new(object, "model", text(info->model_id));
    json_object_set_new(object, "n_layers", json_integer(info->model.n_layers));
    json_object_set_new(object, "P", json_integer(shape->seq->P));
    json_object_set_new(object, "N", json_integer(shape->seq->N));
    json_object_set_new(object, "schedule_of_trace", text(shape->seq->schedule));
    json_object_set_new(object, "synthetic", text(info->synthetic));
    json_object_set_new(object, "trace_sha256", text(info->sha256));
    return object;
}

static enum ra_status add_results(const struct ra_replay_config *config,
                                  const struct ra_replay_result *results, int member, json_t *list)
{
    struct ra_shape shape;
    enum ra_status st = ra_shape_open(&shape, config, NULL);
    if (st != RA_OK)
        return st;
    for (int p = 0; st == RA_OK && p < config->n_policies; p++) {
        json_t *object = result_json(config, &shape, &results[p], p, baseline(config, results));
        json_object_set_new(object, "batch_member",
                            config->with ? json_integer(member) : json_null());
        if (json_array_append_new(list, object))
            st = RA_ENOMEM;
    }
    ra_shape_close(&shape);
    return st;
}

json_t *ra_replay_json(const struct ra_replay_config *config,
                       const struct ra_replay_result *results)
{
    json_t *list = json_array();
    enum ra_status st = RA_OK;
    for (int i = 0; st == RA_OK && i < ra_replay_sequences(config); i++) {
        struct ra_replay_config own = ra_member_config(config, i);
        st = add_results(&own, results + i * config->n_policies, i, list);
    }
    if (st != RA_OK || ra_json_starved()) { /* some member may be missing */
        json_decref(list);
        return NULL;
    }
    return list;
}
