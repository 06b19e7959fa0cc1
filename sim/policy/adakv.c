/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SnapKV with the room of a layer split by need: the votes of all its KV heads compete for their
 * places together, so that a head whose attention is spread gets more. A safeguard keeps heads from
 * starving: safeguard=guard sets aside the floor(alpha * room) best of each head and lets the rest
 * compete, as kvpress does, so that the sum is exact; safeguard=mix is the authors' code, which
 * mixes what a head wins in free competition with an equal share and rounds. The paper's alpha is 1
 * less ours. early=1 pools each query's probabilities, as the paper's algorithm writes it, early=0
 * their sum, as its code does.
 */
#include <math.h>
#include <stdlib.h>

#include "sim/policy_window.h"
#include "sim/select.h"

struct adakv_params {
    struct ra_window_params common;
    double alpha;
    int32_t safeguard, early;
};

static const struct ra_param table[] = {
    RA_WINDOW_TABLE(adakv_params, RA_REACH_LAYER),
    {RA_PARAM_OF(struct adakv_params, alpha, REAL), .min = 0, .max = 1, .fallback = "0.2",
     .help = "share of the room that each head has for itself"},
    {RA_PARAM_OF(struct adakv_params, safeguard, CHOICE), .choices = "guard|mix",
     .fallback = "guard", .help = "the best of each head are safe, or shares are mixed"},
    {RA_PARAM_OF(struct adakv_params, early, INT), .min = 0, .max = 1, .fallback = "0",
     .help = "1: pooled before the votes of queries are summed"},
    {.name = NULL},
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    return ra_window_check("adakv", params, err);
}

enum safeguard { SAFEGUARD_GUARD, SAFEGUARD_MIX };

/* One head may win all places. */
static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct ra_window_params *p = params;
    int32_t k = ra_fraction_resolve(p->k, P), rows = P + N;
    int32_t cap = k > P ? k : P;
    if (p->evict == RA_WINDOW_EVICT_NONE)
        cap = P + N;
    return cap < rows ? cap : rows;
}

/* All heads' scores as one list, lower head first, then lower position: as many of the best as all
 * heads have room for, counted into n_won and listed into won. */
static void compete(const struct ra_window_votes *votes)
{
    size_t each = (size_t)votes->n;
    int32_t total = votes->Hkv * votes->n;
    int64_t places = (int64_t)votes->Hkv * votes->room[0];
    int32_t taken = ra_top(votes->score, total, (int32_t)(places < total ? places : total),
                           votes->won, votes->scratch);
    for (int h = 0; h < votes->Hkv; h++)
        votes->n_won[h] = 0;
    for (int32_t i = 0; i < taken; i++)
        votes->n_won[votes->won[i] / votes->n]++;
    /* From the last head on, each list moves to where it belongs: never below where it was. */
    for (int h = votes->Hkv - 1; h >= 0; h--) {
        taken -= votes->n_won[h];
        for (int32_t i = votes->n_won[h] - 1; i >= 0; i--)
            votes->won[(size_t)h * each + (size_t)i] = votes->won[taken + i] - h * votes->n;
    }
}

/* Safe positions score above all others. */
static void guard(const struct ra_window_votes *votes, int32_t safe)
{
    for (int h = 0; h < votes->Hkv; h++) {
        double *own = votes->score + (size_t)h * (size_t)votes->n;
        int32_t n = ra_top(own, votes->n, safe, votes->won, votes->scratch);
        for (int32_t i = 0; i < n; i++)
            own[votes->won[i]] = INFINITY;
    }
    compete(votes);
}

static void mix(const struct ra_window_votes *votes, double alpha, int32_t safe)
{
    compete(votes);
    for (int h = 0; h < votes->Hkv; h++)
        ra_window_take(votes, h, (int32_t)nearbyint(votes->n_won[h] * (1 - alpha) + safe));
}

static void decide(const struct ra_window_votes *votes)
{
    const struct adakv_params *p = votes->params;
    int32_t safe = (int32_t)floor(votes->room[0] * p->alpha);
    bool fits = votes->n <= votes->room[0];
    if (p->safeguard == SAFEGUARD_MIX && !fits)
        mix(votes, p->alpha, safe);
    else
        guard(votes, fits ? votes->n : safe);
    for (int h = 0; h < votes->Hkv; h++)
        votes->cap[h] = (fits ? votes->room[0] : votes->n_won[h]) + p->common.window;
}

static enum ra_status open_adakv(void **self, const struct ra_policy_env *env, const void *params,
                                 struct ra_error *err)
{
    const struct adakv_params *p = params;
    RA_TRY(ra_window_open(self, "adakv", env, params, sizeof(struct adakv_params), decide, err));
    for (int i = 0; i < env->n_layers; i++)
        if (p[i].early)
            ra_window_pool_early(*self, i);
    return RA_OK;
}

const struct ra_policy_ops ra_policy_adakv = {
    .name = "adakv",
    .summary = "snapkv with a room of each KV head that its votes win",
    .source = "Ada-KV, Feng et al., arXiv:2407.11550, sections 4.1 to 4.3, and its code",
    .deviations =
        "code: safeguard=mix; paper: safeguard=mix,early=1 and its alpha is 1 less ours; kvpress: "
        "safeguard=guard",
    .params = table,
    .params_size = sizeof(struct adakv_params),
    .check = check,
    .needs = ra_window_needs,
    .caches = ra_window_caches,
    .most = most,
    .open = open_adakv,
    .plan = ra_window_plan,
    .learn = ra_window_learn,
    .install = ra_window_install,
    .advance = ra_window_advance,
    .view = ra_window_view,
    .close = ra_window_close,
};
