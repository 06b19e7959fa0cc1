/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend that does nothing: what a replay costs with it is the tool's own overhead. Outputs
 * are zero, selections empty, cosines unknown; it claims no capability, so nothing it returns is
 * checked or reported as a measurement.
 */
#include "kernels/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct null {
    int Hkv;
    size_t out_size; /* floats of one output */
};

static enum ra_status null_probe(struct ra_error *err)
{
    (void)err;
    return RA_OK;
}

static void null_device(char *text, size_t size)
{
    snprintf(text, size, "none");
}

static size_t null_memory(const struct ra_backend_config *config)
{
    (void)config;
    return sizeof(struct null);
}

static enum ra_status null_open(void **self, const struct ra_backend_config *config,
                                struct ra_error *err)
{
    const struct ra_model *model = config->model;
    struct null *null = malloc(sizeof *null);
    *self = null;
    if (!null)
        return ra_fail(err, RA_ENOMEM, "null: no memory");
    *null = (struct null){.Hkv = model->Hkv, .out_size = (size_t)model->Hq * (size_t)model->Dv};
    return RA_OK;
}

static void null_reset(void *self)
{
    (void)self;
}

static enum ra_status null_load(void *self, int layer, const struct ra_prompt_rows *rows,
                                struct ra_error *err)
{
    (void)self, (void)layer, (void)rows, (void)err;
    return RA_OK;
}

static enum ra_status null_append(void *self, int layer, const void *k, const void *v,
                                  struct ra_error *err)
{
    (void)self, (void)layer, (void)k, (void)v, (void)err;
    return RA_OK;
}

static void zero(const void *self, float *out)
{
    const struct null *null = self;
    memset(out, 0, null->out_size * sizeof *out);
}

static enum ra_status null_attend(void *self, int layer, const float *q, bool want_scores,
                                  float *out, struct ra_error *err)
{
    (void)layer, (void)q, (void)want_scores, (void)err;
    zero(self, out);
    return RA_OK;
}

static enum ra_status null_query(void *self, int layer, const float *q, struct ra_error *err)
{
    (void)self, (void)layer, (void)q, (void)err;
    return RA_OK;
}

static enum ra_status null_select(void *self, int layer, const struct ra_select_rule *rule,
                                  struct ra_positions *order, struct ra_error *err)
{
    (void)layer, (void)rule, (void)err;
    const struct null *null = self;
    for (int head = 0; head < null->Hkv; head++)
        order[head] = (struct ra_positions){0};
    return RA_OK;
}

static void null_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained)
{
    (void)self, (void)layer, (void)kv_head, (void)retained;
}

static enum ra_status null_refresh(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    (void)self, (void)layer, (void)err;
    *moved = 0;
    return RA_OK;
}

static enum ra_status null_insert_evict(void *self, int layer, const int32_t *K, int32_t *evicted,
                                        struct ra_error *err)
{
    (void)layer, (void)K, (void)err;
    const struct null *null = self;
    for (int head = 0; evicted && head < null->Hkv; head++)
        evicted[head] = -1;
    return RA_OK;
}

static enum ra_status null_attend_sets(void *self, int layer, const float *q,
                                       const struct ra_positions *sets, int n_sets, float *out,
                                       struct ra_error *err)
{
    (void)layer, (void)q, (void)sets, (void)n_sets, (void)err;
    zero(self, out);
    return RA_OK;
}

static enum ra_status null_cosine(void *self, int layer, const float *q, double *cosine,
                                  struct ra_error *err)
{
    (void)self, (void)layer, (void)q, (void)err;
    *cosine = NAN;
    return RA_OK;
}

static enum ra_status null_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                      const float **scores, struct ra_error *err)
{
    (void)layer, (void)agg, (void)keep, (void)err;
    const struct null *null = self;
    for (int head = 0; head < null->Hkv; head++)
        scores[head] = NULL;
    return RA_OK;
}

static enum ra_status null_cut(void *self, int layer, const struct ra_cut_rule *rule,
                               const int32_t *instead, int32_t *evicted, struct ra_error *err)
{
    (void)layer, (void)rule, (void)err;
    const struct null *null = self;
    for (int head = 0; head < null->Hkv; head++)
        evicted[head] = instead ? instead[head] : -1;
    return RA_OK;
}

static enum ra_status null_select_pages(void *self, int layer, const float *q,
                                        const struct ra_page_rule *rule, struct ra_positions *order,
                                        struct ra_error *err)
{
    (void)layer, (void)q, (void)rule, (void)err;
    const struct null *null = self;
    for (int head = 0; head < null->Hkv; head++)
        order[head] = (struct ra_positions){0};
    return RA_OK;
}

static void null_close(void *self)
{
    free(self);
}

const struct ra_backend_ops ra_backend_null = {
    .name = "null",
    .summary = "does nothing; measures the tool itself",
    .caps = 0,
    .launch_mode = "call",
    .probe = null_probe,
    .device = null_device,
    .memory = null_memory,
    .open = null_open,
    .reset = null_reset,
    .load = null_load,
    .append = null_append,
    .attend_full = null_attend,
    .score = null_query,
    .select = null_select,
    .adopt = null_adopt,
    .refresh = null_refresh,
    .attend_recycled = null_attend,
    .insert_evict = null_insert_evict,
    .attend_sets = null_attend_sets,
    .cosine = null_cosine,
    .set_reference = null_query,
    .accumulate = null_accumulate,
    .cut = null_cut,
    .select_pages = null_select_pages,
    .close = null_close,
};
