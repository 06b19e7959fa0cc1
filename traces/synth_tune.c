/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every statistic has one knob that moves it most and always the same way, so all knobs of all
 * heads are corrected at once, each by its own statistic's error; what they do to each other is
 * put right in later steps. No derivatives, no search.
 */
#include "traces/synth_tune.h"

#include <math.h>

#include "traces/synth_math.h"

enum { MAX_STEPS = 40, FAST_STEPS = 20 };
static const double good_enough = 0.5;
/* Quantiles of the normal distribution are close to logits of p divided by this. */
static const double logit_per_sigma = 1.8;

static enum ra_status read_drawn(const void *context, enum ra_trace_part part, int head,
                                 int32_t first, int32_t n, float *out, struct ra_error *err)
{
    const struct ra_synth_layer *layer = context;
    (void)err;
    int D = layer->model->D;
    for (int32_t i = 0; i < n; i++) {
        float row[RA_SYNTH_MAX_D], stored[RA_SYNTH_MAX_D];
        ra_synth_layer_row(layer, part, head, first + i, row);
        ra_narrow(layer->model->dtype, row, (size_t)D, stored);
        ra_widen(layer->model->dtype, stored, (size_t)D, out + (size_t)i * (size_t)D);
    }
    return RA_OK;
}

/* One fit under way. */
struct fit {
    struct ra_synth_knobs *knobs;
    const struct ra_measure *target, *obtained;
    double gain; /* share of an error that a step takes back */
};

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

static void correct(const struct fit *fit, double *knob, double by, double low, double high)
{
    *knob = clamp(*knob + fit->gain * by, low, high);
}

static double logit_error(double target, double obtained)
{
    return ra_synth_logit(target) - ra_synth_logit(obtained);
}

/* How far a KV head's locality must give way: closeness, too, joins neighbours and lasts from step
 * to step, so where the knob made for that is at its end, the recent tokens are what is left to
 * take from. A share per step. */
static double excess(const struct fit *fit, int kv_head)
{
    double run = fit->obtained->run[kv_head] / fit->target->run[kv_head] - 1;
    double overlap = fit->obtained->overlap[kv_head] - fit->target->overlap[kv_head];
    double most = 0;
    if (fit->knobs->cluster[kv_head] <= 0 && run > 0)
        most = run;
    if (fit->knobs->change[kv_head] >= 1 && overlap > most)
        most = overlap;
    return most < 0.2 ? most : 0.2;
}

static void correct_query_head(const struct fit *fit, int head, double give_way)
{
    struct ra_synth_knobs *knobs = fit->knobs;
    double miss[RA_FIT_BUDGETS];
    for (int b = 0; b < RA_FIT_BUDGETS; b++) {
        int i = head * RA_FIT_BUDGETS + b;
        miss[b] = logit_error(fit->target->top[i], fit->obtained->top[i]) / logit_per_sigma;
    }
    double sink = logit_error(fit->target->sink[head], fit->obtained->sink[head]);
    double local = logit_error(fit->target->recent[head], fit->obtained->recent[head]) / 2;
    double middle = (miss[1] + miss[2]) / 2, bend = miss[0] - miss[RA_FIT_BUDGETS - 1];
    /* Odds of the sink are e^sink times what the others sum to: the error is the correction. */
    correct(fit, &knobs->sink[head], clamp(sink, -2, 2), -60, 60);
    if (give_way > 0)
        knobs->local[head] *= 1 - give_way;
    else
        correct(fit, &knobs->local[head], clamp(local, -1.5, 1.5), -2, 24);
    correct(fit, &knobs->spread[head], clamp(middle, -0.6, 0.6), 0.05, 8);
    correct(fit, &knobs->tail[head], 0.7 * clamp(bend, -0.6, 0.6), -2, 4);
}

static void correct_kv_head(const struct fit *fit, int head)
{
    double run = (fit->target->run[head] - fit->obtained->run[head]) / 12;
    double overlap = fit->obtained->overlap[head] - fit->target->overlap[head];
    correct(fit, &fit->knobs->cluster[head], clamp(run, -0.2, 0.2), 0, 1);
    if (!isnan(overlap))
        correct(fit, &fit->knobs->change[head], clamp(overlap, -0.3, 0.3), 0, 1);
}

/* What varies within l steps and not within the next shorter lag is what the pace of l steps adds:
 * differences of neighbouring cosines, each corrected by its own pace. */
static void correct_paces(const struct fit *fit)
{
    double *pace = fit->knobs->pace, sum = 0, want = 1, have = 1;
    for (int s = 0; s < RA_SYNTH_PACES; s++) {
        bool never = s == RA_SYNTH_PACES - 1;
        double next_want = never ? 0 : fit->target->cosine[s];
        double next_have = never ? 0 : fit->obtained->cosine[s];
        if (isnan(next_want) || isnan(next_have))
            break;
        correct(fit, &pace[s], (want - next_want) - (have - next_have), 0, 1);
        want = next_want;
        have = next_have;
    }
    for (int s = 0; s < RA_SYNTH_PACES; s++)
        sum += pace[s];
    for (int s = 0; s < RA_SYNTH_PACES && sum > 0; s++)
        pace[s] /= sum;
}

/* Largest miss of all. What is not promised counts half and never as a failure, so that it cannot
 * outweigh a promise. */
static double score(const struct ra_fit_stats *target, const struct ra_fit_stats *obtained)
{
    double worst = 0;
    for (int s = 0; s < RA_FIT_N; s++) {
        double miss = ra_fit_miss(s, target->value[s], obtained->value[s]);
        if (!ra_fit_definitions[s].is_promised)
            miss = miss / 2 < 0.9 ? miss / 2 : 0.9;
        worst = miss > worst ? miss : worst; /* NaN: not measurable, and not compared */
    }
    return worst;
}

static enum ra_status search(struct ra_synth_layer *layer, const struct ra_measure *target,
                             struct ra_measure *obtained, struct ra_synth_knobs *best,
                             struct ra_error *err)
{
    const struct ra_model *model = layer->model;
    struct ra_measure_source drawn = {model, layer->P, layer->N, layer, read_drawn};
    struct fit fit = {&layer->knobs, target, obtained, 0};
    struct ra_fit_stats wanted, got;
    double lowest = INFINITY;
    ra_measure_stats(target, model, &wanted);
    for (int step = 0; step < MAX_STEPS && lowest > good_enough; step++) {
        RA_TRY(ra_measure_run(obtained, &drawn, err));
        ra_measure_stats(obtained, model, &got);
        double now = score(&wanted, &got);
        if (now < lowest) {
            lowest = now;
            ra_synth_knobs_copy(best, &layer->knobs, model);
        }
        fit.gain = step < FAST_STEPS ? 0.7 : 0.3;
        for (int h = 0; h < model->Hq; h++)
            correct_query_head(&fit, h, excess(&fit, h / model->G));
        for (int h = 0; h < model->Hkv; h++)
            correct_kv_head(&fit, h);
        correct_paces(&fit);
    }
    ra_synth_knobs_copy(&layer->knobs, best, model);
    return RA_OK;
}

enum ra_status ra_synth_tune(struct ra_synth_layer *layer, const struct ra_measure *target,
                             struct ra_error *err)
{
    struct ra_measure obtained = {0};
    struct ra_synth_knobs best = {0};
    enum ra_status st = ra_measure_open(&obtained, layer->model, err);
    if (st == RA_OK)
        st = ra_synth_knobs_open(&best, layer->model, err);
    if (st == RA_OK)
        st = search(layer, target, &obtained, &best, err);
    ra_synth_knobs_close(&best);
    ra_measure_close(&obtained);
    return st;
}
