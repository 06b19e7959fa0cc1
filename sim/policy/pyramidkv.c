/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SnapKV with more room in lower layers: the numbers of prefix positions fall along the layers of
 * the model as an arithmetic sequence about k - window.
 *
 * shape=steps is the code's whole-number step, shape=linear the paper's real one, rounded down for
 * each layer. counts=all is the paper's count, which includes the window; counts=prefix the code's.
 * short=uniform is the code's exception for prompts of less than twice the room. A prompt that fits
 * k is kept whole.
 */
#include <math.h>
#include <stdlib.h>

#include "sim/policy_window.h"
#include "sim/select.h"

struct pyramidkv_params {
    struct ra_window_params common;
    int32_t beta, shape, shorts, counts;
};

static const struct ra_param table[] = {
    RA_WINDOW_TABLE(pyramidkv_params, RA_REACH_HEAD),
    {RA_PARAM_OF(struct pyramidkv_params, beta, INT), .min = 1, .max = 65536, .fallback = "20",
     .help = "the last layer has 1/beta of the average"},
    {RA_PARAM_OF(struct pyramidkv_params, shape, CHOICE), .choices = "steps|linear",
     .fallback = "steps", .help = "whole steps, or the line rounded down"},
    {.name = "short",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct pyramidkv_params, shorts),
     .choices = "pyramid|uniform",
     .fallback = "pyramid",
     .help = "what prompts of less than twice the room have"},
    {RA_PARAM_OF(struct pyramidkv_params, counts, CHOICE), .choices = "prefix|all",
     .fallback = "prefix", .help = "what the numbers of layers are of: without window or with"},
    {.name = NULL},
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    return ra_window_check("pyramidkv", params, err);
}

enum shape { SHAPE_STEPS, SHAPE_LINEAR };
enum shorts { SHORT_PYRAMID, SHORT_UNIFORM };
enum counts { COUNTS_PREFIX, COUNTS_ALL };

/* The first layer has up to twice the room. */
static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct ra_window_params *p = params;
    int64_t k = ra_fraction_resolve(p->k, P), rows = P + N, cap = 2 * k > P ? P : 2 * k;
    cap = k > P ? k : cap;
    if (p->evict == RA_WINDOW_EVICT_NONE)
        cap = (cap < P ? cap : P) + N;
    return (int32_t)(cap < rows ? cap : rows);
}

/* Prefix positions of a layer. */
static int32_t room_of(const struct ra_window_votes *votes, int32_t room)
{
    const struct pyramidkv_params *p = votes->params;
    int64_t P = votes->env->P, layers = votes->env->model->n_layers, l = votes->layer_id;
    int64_t inside = p->counts == COUNTS_ALL ? p->common.window : 0;
    int64_t b = room + inside, all = votes->n + inside;
    if (layers == 1 || P <= room + p->common.window ||
        (p->shorts == SHORT_UNIFORM && P < 2 * (int64_t)room))
        return room;
    int64_t low = b / p->beta, high = 2 * b - low;
    if (high > all) {
        high = all;
        low = 2 * b - all;
    }
    int64_t fall = p->shape == SHAPE_LINEAR
                       ? ((high - low) * l + layers - 2) / (layers - 1) /* rounded up */
                       : l * ((high - low) / (layers - 1));
    int64_t n = high - fall - inside, least = inside > 0 ? 0 : 1;
    return (int32_t)(n > least ? n : least);
}

static void decide(const struct ra_window_votes *votes)
{
    for (int h = 0; h < votes->Hkv; h++)
        ra_window_take(votes, h, room_of(votes, votes->room[h]));
}

static enum ra_status open_pyramidkv(void **self, const struct ra_policy_env *env,
                                     const void *params, struct ra_error *err)
{
    return ra_window_open(self, "pyramidkv", env, params, sizeof(struct pyramidkv_params), decide,
                          err);
}

const struct ra_policy_ops ra_policy_pyramidkv = {
    .name = "pyramidkv",
    .summary = "snapkv with more room in lower layers",
    .source = "PyramidKV, Cai et al., arXiv:2406.02069, section 4.2, and its code",
    .deviations = "paper: shape=linear,counts=all; code: short=uniform",
    .params = table,
    .params_size = sizeof(struct pyramidkv_params),
    .check = check,
    .needs = ra_window_needs,
    .caches = ra_window_caches,
    .most = most,
    .open = open_pyramidkv,
    .plan = ra_window_plan,
    .learn = ra_window_learn,
    .install = ra_window_install,
    .advance = ra_window_advance,
    .view = ra_window_view,
    .close = ra_window_close,
};
