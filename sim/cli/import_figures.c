/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/import_figures.h"

#include <math.h>
#include <stdlib.h>

#include "sim/base/stats.h"
#include "sim/cli/output.h"
#include "sim/eval.h"
#include "sim/report_eval.h"

/* Of one number for each document; NaN where a document lacks it. */
typedef double (*figure_fn)(const json_t *document);

static double mean_of(const json_t *list)
{
    size_t n = json_array_size(list);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += json_number_value(json_array_get(list, i));
    return n ? sum / (double)n : NAN;
}

static double nll_of(const json_t *document)
{
    return mean_of(json_object_get(document, "nll"));
}

static double kl_of(const json_t *document)
{
    return mean_of(json_object_get(document, "kl"));
}

static double right_of(const json_t *document)
{
    const json_t *right = json_object_get(document, "right");
    return right ? json_is_true(right) : NAN;
}

static double hits_of(const json_t *document)
{
    return ra_result_number(document, "hits", NULL);
}

static double margin_of(const json_t *document)
{
    return ra_result_number(document, "margin", NULL);
}

/* NaN unless all documents have it. */
static double mean_over(const json_t *documents, figure_fn figure)
{
    double sum = 0;
    size_t n = json_array_size(documents);
    for (size_t i = 0; i < n; i++)
        sum += figure(json_array_get(documents, i));
    return sum / (double)n;
}

static double sum_over(const json_t *documents, const char *key, const char *inner)
{
    double sum = 0;
    for (size_t i = 0; i < json_array_size(documents); i++)
        sum += ra_result_number(json_array_get(documents, i), key, inner);
    return sum;
}

/* Mean and interval of one figure, or of its difference to full's unless `full` is NULL. */
static enum ra_status put_interval(const json_t *documents, const json_t *full, figure_fn figure,
                                   uint64_t seed, json_t **object, struct ra_error *err)
{
    size_t n = json_array_size(documents);
    struct ra_eval_interval interval = {NAN, NAN, NAN, n};
    double *values = malloc(n * sizeof *values);
    if (!values)
        return ra_fail(err, RA_ENOMEM, "import: no memory for %zu documents", n);
    for (size_t i = 0; i < n; i++)
        values[i] =
            figure(json_array_get(documents, i)) - (full ? figure(json_array_get(full, i)) : 0);
    enum ra_status st = RA_OK;
    if (!isnan(ra_mean(values, n)))
        st = ra_eval_bootstrap(values, n, seed, &interval, err);
    free(values);
    RA_TRY(st);
    *object = json_pack("{s:o, s:o, s:o}", "mean", ra_json_real(interval.mean), "low",
                        ra_json_real(interval.low), "high", ra_json_real(interval.high));
    return RA_OK;
}

static json_t *whole_or_null(double value)
{
    return isnan(value) || fabs(value) > 9e15 ? json_null() : json_integer((json_int_t)value);
}

static json_t *documents_json(const json_t *documents)
{
    static const char *const kept[] = {"document", "prompt_len", "steps",  "seed", "depth",
                                       "right",    "hits",       "margin", "nll",  "kl"};
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(documents); i++) {
        const json_t *document = json_array_get(documents, i);
        json_t *one = json_object();
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
            json_object_set(one, kept[k], json_object_get(document, kept[k]));
        json_object_set_new(one, "mean_nll", ra_json_real(nll_of(document)));
        json_object_set_new(one, "mean_kl", ra_json_real(kl_of(document)));
        json_array_append_new(list, one);
    }
    return list;
}

/* Steps times layers over full layer-steps. */
static double stride_of(const json_t *documents)
{
    double all = 0;
    for (size_t i = 0; i < json_array_size(documents); i++) {
        const json_t *document = json_array_get(documents, i), *layers;
        layers = json_object_get(document, "layers");
        all += layers ? (double)json_array_size(layers) * ra_result_number(document, "steps", NULL)
                      : NAN;
    }
    double full = sum_over(documents, "full_layer_steps", NULL);
    return full > 0 ? all / full : NAN;
}

/* What the other decoder took; only ever shown as its own. */
static json_t *times_json(const json_t *documents)
{
    double prefill = sum_over(documents, "hf_wall", "prefill_s"),
           decode = sum_over(documents, "hf_wall", "decode_s");
    if (isnan(prefill) && isnan(decode))
        return json_null();
    return json_pack("{s:s, s:o, s:o}", "method", "hf-wall", "prefill_s", ra_json_real(prefill),
                     "decode_s", ra_json_real(decode));
}

static enum ra_status put_answers(const json_t *own, const json_t *full, uint64_t seed,
                                  json_t *object, struct ra_error *err)
{
    json_t *delta = json_pack("{s:n, s:n, s:n}", "mean", "low", "high");
    double baseline = full ? mean_over(full, right_of) : NAN;
    if (full) {
        json_decref(delta);
        RA_TRY(put_interval(own, full, right_of, seed, &delta, err));
    }
    json_object_set_new(object, "prompts", json_integer((json_int_t)json_array_size(own)));
    json_object_set_new(object, "accuracy", ra_json_real(mean_over(own, right_of)));
    json_object_set_new(object, "hits", ra_json_real(mean_over(own, hits_of)));
    json_object_set_new(object, "margin", ra_json_real(mean_over(own, margin_of)));
    json_object_set_new(object, "baseline_accuracy", ra_json_real(baseline));
    json_object_set_new(object, "gate",
                        isnan(baseline) ? json_null() : json_boolean(baseline >= RA_EVAL_GATE));
    json_object_set_new(object, "delta_accuracy", delta);
    return RA_OK;
}

static enum ra_status put_losses(const json_t *own, const json_t *full, uint64_t seed,
                                 json_t *object, struct ra_error *err)
{
    json_t *delta = json_pack("{s:n, s:n, s:n}", "mean", "low", "high"), *kl;
    if (full) {
        json_decref(delta);
        RA_TRY(put_interval(own, full, nll_of, seed, &delta, err));
    }
    json_object_set_new(object, "nll", ra_json_real(mean_over(own, nll_of)));
    json_object_set_new(object, "delta_nll", delta);
    json_object_set_new(object, "ppl", ra_json_real(exp(mean_over(own, nll_of))));
    RA_TRY(put_interval(own, NULL, kl_of, seed, &kl, err));
    json_object_set_new(object, "kl", kl);
    return RA_OK;
}

enum ra_status ra_import_figures(const json_t *top, const json_t *result, const json_t *full,
                                 const char *policy, uint64_t seed, json_t **object,
                                 struct ra_error *err)
{
    static const char *const of_top[] = {"model", "tool", "tool_version"};
    const json_t *own = json_object_get(result, "documents"),
                 *base = json_object_get(full, "documents");
    double keys = sum_over(own, "keys_read", NULL), all = sum_over(base, "keys_read", NULL);
    json_t *o = json_object();
    json_object_set(o, "task", json_object_get(result, "task"));
    for (size_t i = 0; i < sizeof of_top / sizeof *of_top; i++)
        json_object_set(o, of_top[i], json_object_get(top, of_top[i]));
    json_object_set_new(o, "policy", json_string(policy));
    json_object_set_new(o, "texts", json_integer((json_int_t)json_array_size(own)));
    json_object_set_new(o, "steps", whole_or_null(sum_over(own, "steps", NULL)));
    json_object_set_new(o, "full_layer_steps",
                        whole_or_null(sum_over(own, "full_layer_steps", NULL)));
    json_object_set_new(o, "effective_stride", ra_json_real(stride_of(own)));
    json_object_set_new(o, "keys_read", whole_or_null(keys));
    json_object_set_new(o, "keys_share", ra_json_real(full && all > 0 ? keys / all : NAN));
    enum ra_status st = put_losses(own, base, seed, o, err);
    if (st == RA_OK && !isnan(right_of(json_array_get(own, 0))))
        st = put_answers(own, base, seed, o, err);
    json_object_set_new(o, "by_since", json_array());
    json_object_set_new(o, "documents", documents_json(own));
    json_object_set_new(o, "times", times_json(own));
    if (st != RA_OK)
        json_decref(o);
    *object = st == RA_OK ? o : NULL;
    return st;
}
