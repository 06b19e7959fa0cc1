/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/loop.h"

#include <stdlib.h>

struct place {
    struct ra_lm_sequence *sequence;
    enum ra_status status;
    struct ra_error error;
};

struct ra_lm_loop {
    struct ra_lm_loop_config config;
    struct place *places; /* [n] */
    int32_t *positions;   /* [n] */
    int32_t t;
    const struct ra_lm_rows *rows; /* of the layer at hand */
};

void ra_lm_loop_close(struct ra_lm_loop *loop)
{
    if (!loop)
        return;
    for (int i = 0; loop->places && i < loop->config.n; i++)
        ra_lm_sequence_close(loop->places[i].sequence);
    free(loop->places);
    free(loop->positions);
    free(loop);
}

/* The first of the places that failed, named by its policy. */
static enum ra_status first_failure(const struct ra_lm_loop *loop, struct ra_error *err)
{
    for (int i = 0; i < loop->config.n; i++)
        if (loop->places[i].status != RA_OK) {
            if (err)
                *err = loop->places[i].error;
            return ra_fail_context(err, loop->places[i].status, "%s",
                                   ra_policy_spec_canonical(loop->config.specs[i]));
        }
    return RA_OK;
}

/* Task: open one sequence. */
static void open_place(void *context, size_t index, int worker)
{
    (void)worker;
    struct ra_lm_loop *loop = context;
    struct place *place = &loop->places[index];
    const struct ra_lm_loop_config *config = &loop->config;
    struct ra_lm_sequence_config own = {.lm = config->lm,
                                        .prompt = config->prompt,
                                        .spec = config->specs[index],
                                        .backend = config->backend,
                                        .N = config->N,
                                        .n_threads =
                                            config->n == 1 ? ra_pool_threads(config->pool) : 1};
    place->status = ra_lm_sequence_open(&place->sequence, &own, &place->error);
}

enum ra_status ra_lm_loop_open(struct ra_lm_loop **loop, const struct ra_lm_loop_config *config,
                               struct ra_error *err)
{
    *loop = NULL;
    struct ra_lm_loop *l = calloc(1, sizeof *l);
    if (!l)
        return ra_fail(err, RA_ENOMEM, "decoder: no memory for %d sequences", config->n);
    l->config = *config;
    l->places = calloc((size_t)config->n, sizeof *l->places);
    l->positions = malloc((size_t)config->n * sizeof *l->positions);
    enum ra_status st;
    if (l->places && l->positions) {
        ra_pool_run(config->pool, (size_t)config->n, open_place, l);
        st = first_failure(l, err);
    } else {
        st = ra_fail(err, RA_ENOMEM, "decoder: no memory for %d sequences", config->n);
    }
    if (st != RA_OK) {
        ra_lm_loop_close(l);
        return st;
    }
    *loop = l;
    return RA_OK;
}

/* Task: one sequence's attention of the layer at hand. */
static void attend_place(void *context, size_t index, int worker)
{
    (void)worker;
    struct ra_lm_loop *loop = context;
    const struct ra_lm_rows *rows = loop->rows;
    const struct ra_model *m = &loop->config.lm->shape;
    size_t q = index * (size_t)m->Hq * (size_t)m->D;
    size_t kv = index * (size_t)m->Hkv * (size_t)m->D * ra_dtype_bytes(m->dtype);
    struct place *place = &loop->places[index];
    struct ra_lm_row row = {.layer = rows->layer,
                            .t = loop->t,
                            .q = rows->q + q,
                            .k = (const char *)rows->k_raw + kv,
                            .v = (const char *)rows->v_raw + kv,
                            .out = rows->out + q};
    place->status = ra_lm_sequence_attend(place->sequence, &row, &place->error);
}

static enum ra_status attend(void *context, const struct ra_lm_rows *rows, struct ra_error *err)
{
    struct ra_lm_loop *loop = context;
    const struct ra_lm_loop_config *config = &loop->config;
    loop->rows = rows;
    ra_pool_run(config->pool, (size_t)config->n, attend_place, loop);
    RA_TRY(first_failure(loop, err));
    return config->observe ? config->observe(config->context, rows, err) : RA_OK;
}

enum ra_status ra_lm_loop_step(struct ra_lm_loop *loop, const int32_t *tokens, const float **hidden,
                               struct ra_error *err)
{
    const struct ra_lm_loop_config *config = &loop->config;
    struct ra_lm_attention attention = {attend, loop};
    RA_BUG_ON(loop->t >= config->N);
    for (int i = 0; i < config->n; i++)
        loop->positions[i] = config->prompt->P + loop->t;
    RA_TRY(ra_lm_forward(config->lm, config->n, tokens, loop->positions, &attention, hidden, err));
    loop->t++;
    return RA_OK;
}

struct ra_lm_step_counts ra_lm_loop_counts(const struct ra_lm_loop *loop, int i)
{
    return ra_lm_sequence_counts(loop->places[i].sequence);
}
