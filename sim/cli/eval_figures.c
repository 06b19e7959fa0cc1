/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/eval_figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/base/stats.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/report_eval.h"

static const struct ra_eval_score *score_of(const struct ra_eval_done *done, int item, int number)
{
    return &done->scores[(size_t)item * (size_t)done->n + (size_t)number];
}

static double share_right(const struct ra_eval_done *done, int item, int number)
{
    int n = done->task->items[item].text.n_probes, right = 0;
    for (int i = 0; i < n; i++)
        right += score_of(done, item, number)->answers[i].margin > 0;
    return (double)right / n;
}

static double mean_margin(const struct ra_eval_done *done, int item, int number)
{
    int n = done->task->items[item].text.n_probes;
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += score_of(done, item, number)->answers[i].margin;
    return sum / n;
}

static json_t *interval_json(const struct ra_eval_interval *interval)
{
    json_t *object = json_object();
    json_object_set_new(object, "mean", ra_json_real(interval->mean));
    json_object_set_new(object, "low", ra_json_real(interval->low));
    json_object_set_new(object, "high", ra_json_real(interval->high));
    return object;
}

/* Mean KL, the texts' own means in `own`. */
static enum ra_status put_kl(const struct ra_eval_done *done, int number, double *own,
                             json_t *object, struct ra_error *err)
{
    struct ra_eval_interval interval;
    for (int i = 0; i < done->task->n; i++)
        own[i] = ra_mean(score_of(done, i, number)->kl, (size_t)done->task->items[i].text.N);
    RA_TRY(ra_eval_bootstrap(own, (size_t)done->task->n, done->seed, &interval, err));
    json_object_set_new(object, "kl", interval_json(&interval));
    return RA_OK;
}

/* Values [task->n] of one schedule, and their differences to full's, as members of object. */
static enum ra_status put_paired(const struct ra_eval_done *done, const char *name,
                                 const double *own, const double *full, json_t *object,
                                 struct ra_error *err)
{
    size_t n = (size_t)done->task->n;
    char key[40];
    struct ra_eval_interval interval;
    double *delta = malloc(n * sizeof *delta);
    if (!delta)
        return ra_fail(err, RA_ENOMEM, "eval: no memory for %zu differences", n);
    for (size_t i = 0; i < n; i++)
        delta[i] = own[i] - full[i];
    enum ra_status st = ra_eval_bootstrap(delta, n, done->seed, &interval, err);
    free(delta);
    RA_TRY(st);
    snprintf(key, sizeof key, "delta_%s", name);
    json_object_set_new(object, name, ra_json_real(ra_mean(own, n)));
    json_object_set_new(object, key, interval_json(&interval));
    return RA_OK;
}

/* Bins of steps since the last full step: 0, 1, 2-3, 4-7, ... */
enum { N_BINS = 12 };

static int bin_of(float since)
{
    int bin = 0;
    for (float low = 1; bin < N_BINS - 1 && since >= low - 0.5f; low *= 2)
        bin++;
    return bin;
}

static json_t *by_since(const struct ra_eval_done *done, int number)
{
    json_t *list = json_array();
    double sum[N_BINS] = {0}, kl[N_BINS] = {0};
    int64_t n[N_BINS] = {0};
    for (int i = 0; i < done->task->n; i++) {
        const struct ra_eval_score *own = score_of(done, i, number);
        const struct ra_eval_score *full = score_of(done, i, done->full);
        for (int32_t t = 0; t < done->task->items[i].text.N; t++) {
            int bin = bin_of(own->since_full[t]);
            sum[bin] += own->nll[t] - full->nll[t];
            kl[bin] += own->kl[t];
            n[bin]++;
        }
    }
    for (int bin = 0; bin < N_BINS; bin++)
        if (n[bin])
            json_array_append_new(
                list,
                json_pack("{s:i,s:o,s:I,s:o,s:o}", "from", bin ? 1 << (bin - 1) : 0, "to",
                          bin == N_BINS - 1 ? json_null() : json_integer(bin ? (1 << bin) - 1 : 0),
                          "n", (json_int_t)n[bin], "delta_nll",
                          ra_json_real(sum[bin] / (double)n[bin]), "kl",
                          ra_json_real(kl[bin] / (double)n[bin])));
    return list;
}

static double mean_nll(const struct ra_eval_done *done, int item, int number)
{
    return ra_mean(score_of(done, item, number)->nll, (size_t)done->task->items[item].text.N);
}

static json_t *numbers(const double *values, int32_t n)
{
    json_t *list = json_array();
    for (int32_t t = 0; t < n; t++)
        json_array_append_new(list, ra_json_real(values[t]));
    return list;
}

static json_t *documents(const struct ra_eval_done *done, int number)
{
    json_t *list = json_array();
    for (int i = 0; i < done->task->n; i++) {
        const struct ra_eval_item *item = &done->task->items[i];
        const struct ra_eval_score *score = score_of(done, i, number);
        json_t *one = json_object();
        json_object_set_new(one, "document", ra_json_text(item->name));
        json_object_set_new(one, "prompt_len", json_integer(item->text.P));
        json_object_set_new(one, "steps", json_integer(item->text.N));
        json_object_set_new(one, "mean_nll", ra_json_real(mean_nll(done, i, number)));
        json_object_set_new(one, "mean_kl", ra_json_real(ra_mean(score->kl, (size_t)item->text.N)));
        if (!done->task->is_ppl) {
            json_object_set_new(one, "seed", json_integer((json_int_t)item->seed));
            json_object_set_new(one, "depth", ra_json_real(item->depth));
            json_object_set_new(one, "right", json_boolean(share_right(done, i, number) >= 1));
            json_object_set_new(one, "hits", ra_json_real(share_right(done, i, number)));
            json_object_set_new(one, "margin", ra_json_real(mean_margin(done, i, number)));
        }
        if (done->per_token) {
            json_object_set_new(one, "nll", numbers(score->nll, item->text.N));
            json_object_set_new(one, "kl", numbers(score->kl, item->text.N));
        }
        json_array_append_new(list, one);
    }
    return list;
}

static void put_reads(const struct ra_eval_done *done, int number, json_t *object)
{
    const struct ra_lm_config *c = done->model->config;
    int64_t full_steps = 0, keys = 0, all = 0, layer_steps = 0, steps = 0;
    int n_full = 0;
    for (int l = 0; l < c->n_layers; l++)
        n_full += !c->window || !c->slides[l];
    for (int i = 0; i < done->task->n; i++) {
        full_steps += score_of(done, i, number)->full_layer_steps;
        keys += score_of(done, i, number)->keys_read;
        all += score_of(done, i, done->full)->keys_read;
        steps += done->task->items[i].text.N;
    }
    layer_steps = steps * n_full;
    json_object_set_new(object, "steps", json_integer((json_int_t)steps));
    json_object_set_new(object, "full_layer_steps", json_integer((json_int_t)full_steps));
    json_object_set_new(object, "effective_stride",
                        ra_json_real(full_steps ? (double)layer_steps / (double)full_steps : NAN));
    json_object_set_new(object, "keys_read", json_integer((json_int_t)keys));
    json_object_set_new(object, "keys_share", ra_json_real((double)keys / (double)all));
}

static enum ra_status put_answers(const struct ra_eval_done *done, int number, double *own,
                                  double *full, json_t *object, struct ra_error *err)
{
    double hits = 0, margin = 0;
    int n = done->task->n;
    for (int i = 0; i < n; i++) {
        own[i] = share_right(done, i, number) >= 1;
        full[i] = share_right(done, i, done->full) >= 1;
        hits += share_right(done, i, number);
        margin += mean_margin(done, i, number);
    }
    double baseline = ra_mean(full, (size_t)n);
    json_object_set_new(object, "prompts", json_integer(n));
    json_object_set_new(object, "hits", ra_json_real(hits / n));
    json_object_set_new(object, "margin", ra_json_real(margin / n));
    json_object_set_new(object, "baseline_accuracy", ra_json_real(baseline));
    json_object_set_new(object, "gate", json_boolean(baseline >= RA_EVAL_GATE));
    return put_paired(done, "accuracy", own, full, object, err);
}

enum ra_status ra_eval_figures(const struct ra_eval_done *done, int number, json_t **object,
                               struct ra_error *err)
{
    const struct ra_eval_task *task = done->task;
    size_t n = (size_t)task->n;
    double *own = malloc(n * sizeof *own), *full = malloc(n * sizeof *full);
    json_t *o = json_object();
    enum ra_status st = own && full ? RA_OK : ra_fail(err, RA_ENOMEM, "eval: out of memory");
    json_object_set_new(o, "task", ra_json_text(task->name));
    json_object_set_new(o, "family", ra_json_text(task->family));
    json_object_set_new(o, "spelling", ra_json_text(task->spelling));
    json_object_set_new(o, "model", ra_json_text(done->model->origin.id));
    json_object_set_new(o, "policy", json_string(ra_policy_spec_canonical(done->specs[number])));
    json_object_set_new(o, "texts", json_integer(task->n));
    put_reads(done, number, o);
    for (int i = 0; st == RA_OK && i < task->n; i++) {
        own[i] = mean_nll(done, i, number);
        full[i] = mean_nll(done, i, done->full);
    }
    if (st == RA_OK)
        st = put_paired(done, "nll", own, full, o, err);
    if (st == RA_OK)
        json_object_set_new(o, "ppl", ra_json_real(exp(ra_mean(own, n))));
    if (st == RA_OK)
        st = put_kl(done, number, own, o, err);
    if (st == RA_OK && !task->is_ppl)
        st = put_answers(done, number, own, full, o, err);
    json_object_set_new(o, "by_since", by_since(done, number));
    json_object_set_new(o, "documents", documents(done, number));
    free(own);
    free(full);
    if (st != RA_OK)
        json_decref(o);
    *object = st == RA_OK ? o : NULL;
    return st;
}

void ra_eval_heading(const struct ra_eval_done *done)
{
    const struct ra_eval_task *task = done->task;
    const struct ra_eval_text *first = &task->items[0].text;
    printf("task %s: ", task->name);
    ra_put_safe(done->model->origin.id);
    printf(", %d %s%s, P = %d, N = %d%s\n", task->n, task->is_ppl ? "text" : "prompt",
           task->n > 1 ? "s" : "", first->P, first->N, task->n > 1 ? " of the first" : "");
}

static void put_delta(const char *what, const json_t *delta, double scale, int digits)
{
    double low = ra_result_number(delta, "low", NULL), high = ra_result_number(delta, "high", NULL);
    printf("  %s %+.*f", what, digits, scale * ra_result_number(delta, "mean", NULL));
    if (!isnan(low))
        printf(" [%+.*f, %+.*f]", digits, scale * low, digits, scale * high);
}

void ra_eval_line(const json_t *object)
{
    const json_t *accuracy = json_object_get(object, "delta_accuracy");
    double stride = ra_result_number(object, "effective_stride", NULL);
    ra_put_wrapped(0, 2, ra_result_text(object, "policy"));
    if (accuracy) {
        double baseline = 100 * ra_result_number(object, "baseline_accuracy", NULL);
        if (json_is_true(json_object_get(object, "gate")))
            printf("    right %.1f %%", 100 * ra_result_number(object, "accuracy", NULL));
        else
            printf("    right n/a (baseline %.1f %%)", baseline);
        put_delta("delta", accuracy, 100, 1);
        printf("  margin %.2f", ra_result_number(object, "margin", NULL));
    } else {
        printf("    NLL %.4f", ra_result_number(object, "nll", NULL));
        put_delta("delta", json_object_get(object, "delta_nll"), 1, 4);
        printf("  KL %.4f", ra_result_number(object, "kl", "mean"));
        printf("  ppl %.2f", ra_result_number(object, "ppl", NULL));
    }
    printf("  keys %.1f %%", 100 * ra_result_number(object, "keys_share", NULL));
    if (!isnan(stride))
        printf("  stride %.1f", stride);
    putchar('\n');
}
