/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Factorised patterns. strided: the last l positions, and every l-th; fixed: the block of l that
 * self is in, and the last c of every block. Each pattern is two sets: combine=merged attends to
 * both, combine=turn to the first in even layers of the model and to the second in odd ones. The
 * paper names these ways, and different heads, which are not here.
 */
#include <stdlib.h>

#include "sim/policy_pattern.h"

enum pattern { STRIDED, FIXED };
enum combine { MERGED, TURN };

struct sparse_transformer_params {
    int32_t pattern, stride, c, combine;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct sparse_transformer_params, pattern, CHOICE), .choices = "strided|fixed",
     .fallback = "strided", .help = "the last and every stride-th position, or blocks"},
    {RA_PARAM_OF(struct sparse_transformer_params, stride, INT), .min = 1, .max = INT32_MAX,
     .help = "length of a row of the pattern"},
    {RA_PARAM_OF(struct sparse_transformer_params, c, INT), .min = 1, .max = INT32_MAX,
     .fallback = "1", .help = "last positions of each block; of pattern=fixed"},
    {RA_PARAM_OF(struct sparse_transformer_params, combine, CHOICE), .choices = "merged|turn",
     .fallback = "merged", .help = "both sets in each layer, or by turns"},
    {.name = NULL},
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    const struct sparse_transformer_params *p = params;
    if (p->c > p->stride)
        return ra_fail(err, RA_EUSAGE, "sparse-transformer: c: expected at most stride=%d, got %d",
                       p->stride, p->c);
    return RA_OK;
}

struct sparse_transformer {
    const struct sparse_transformer_params *params; /* [n_layers] */
    struct ra_policy_pattern pattern;
};

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct sparse_transformer_params *p = params;
    int64_t rows = P + N, columns = p->pattern == FIXED ? p->c : 1;
    int64_t n = p->stride + (rows / p->stride + 1) * columns;
    return (int32_t)(n < rows ? n : rows);
}

static void close_sparse_transformer(void *self)
{
    struct sparse_transformer *s = self;
    if (s)
        ra_policy_pattern_close(&s->pattern);
    free(s);
}

static enum ra_status open_sparse_transformer(void **self, const struct ra_policy_env *env,
                                              const void *params, struct ra_error *err)
{
    struct sparse_transformer *s = calloc(1, sizeof *s);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "sparse-transformer: no memory");
    *self = s;
    s->params = params;
    return ra_policy_pattern_open(&s->pattern, "sparse-transformer", env, err);
}

static bool is_in_row(const struct sparse_transformer_params *p, int32_t pos, int32_t self)
{
    return p->pattern == STRIDED ? pos >= self - p->stride : pos / p->stride == self / p->stride;
}

static bool is_in_column(const struct sparse_transformer_params *p, int32_t pos, int32_t self)
{
    return p->pattern == STRIDED ? (self - pos) % p->stride == 0
                                 : pos % p->stride >= p->stride - p->c;
}

static enum ra_status plan_sparse_transformer(void *self, const struct ra_step *step,
                                              struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct sparse_transformer *s = self;
    const struct sparse_transformer_params *p = &s->params[step->layer];
    bool row = p->combine == MERGED || step->layer_id % 2 == 0;
    bool column = p->combine == MERGED || step->layer_id % 2 == 1;
    int32_t n = 0;
    if (step->t < 0)
        return RA_OK;
    for (int32_t pos = 0; pos < step->self; pos++)
        if ((row && is_in_row(p, pos, step->self)) || (column && is_in_column(p, pos, step->self)))
            s->pattern.pos[n++] = pos;
    ra_policy_pattern_plan(&s->pattern, n, plan);
    return RA_OK;
}

const struct ra_policy_ops ra_policy_sparse_transformer = {
    .name = "sparse-transformer",
    .summary = "factorised patterns: near positions and every stride-th",
    .source = "Sparse Transformer, Child et al., arXiv:1904.10509, sections 4.2 and 4.3",
    .deviations = "heads that differ, the paper's third way to combine, are not here",
    .params = table,
    .params_size = sizeof(struct sparse_transformer_params),
    .check = check,
    .caches = caches,
    .most = most,
    .open = open_sparse_transformer,
    .plan = plan_sparse_transformer,
    .close = close_sparse_transformer,
};
