/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the end of the prompt looks at, chosen once: of the prefix the k - window positions with the
 * most votes, and the window. The authors' code pools by average with kernel 5 and evicts nothing
 * while decoding, so that the cache grows (evict=none); arXiv:2411.05787 compares with a cache that
 * holds k (evict=fifo). The code votes per query head over repeated keys; agg makes one vote of a
 * group's.
 */
#include <math.h>
#include <stdlib.h>

#include "sim/policy_window.h"
#include "sim/select.h"

struct snapkv_params {
    struct ra_window_params common;
};

static const struct ra_param table[] = {
    RA_WINDOW_TABLE(snapkv_params, RA_REACH_HEAD),
    {.name = NULL},
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    return ra_window_check("snapkv", params, err);
}

static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct ra_window_params *p = params;
    int32_t k = ra_fraction_resolve(p->k, P), rows = P + N;
    if (p->evict == RA_WINDOW_EVICT_NONE)
        k = (k < P ? k : P) + N;
    return k < rows ? k : rows;
}

static void decide(const struct ra_window_votes *votes)
{
    for (int h = 0; h < votes->Hkv; h++)
        ra_window_take(votes, h, votes->room[h]);
}

static enum ra_status open_snapkv(void **self, const struct ra_policy_env *env, const void *params,
                                  struct ra_error *err)
{
    return ra_window_open(self, "snapkv", env, params, sizeof(struct snapkv_params), decide, err);
}

const struct ra_policy_ops ra_policy_snapkv = {
    .name = "snapkv",
    .summary = "what the last prompt queries attend to, chosen once",
    .source = "SnapKV, Li et al., arXiv:2404.14469, sections 4.1 and 4.2",
    .deviations =
        "code: pooling=avg,pool=5, evict=none; arXiv:2411.05787 compares with evict=fifo,window=1; "
        "groups: agg",
    .params = table,
    .params_size = sizeof(struct snapkv_params),
    .check = check,
    .needs = ra_window_needs,
    .caches = ra_window_caches,
    .most = most,
    .open = open_snapkv,
    .plan = ra_window_plan,
    .learn = ra_window_learn,
    .install = ra_window_install,
    .advance = ra_window_advance,
    .view = ra_window_view,
    .close = ra_window_close,
};
