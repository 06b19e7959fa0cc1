/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transformations: what is done to the keys and values of a layer before a schedule sees them, and
 * what they take in memory then. Spelled after a policy, "POLICY+NAME[:key=value...][+NAME...]".
 *
 * A transformation gives rows as attention reads them: dequantised, and rounded to the type that
 * the trace stores. Numbers that it keeps beside its codes (scales, thresholds, levels, outliers)
 * are of that type too. Adding one: one file in sim/transform and one line in transforms.def.
 */
#ifndef RA_SIM_TRANSFORM_H
#define RA_SIM_TRANSFORM_H

#include <stdbool.h>

#include "sim/base/params.h"
#include "sim/base/text.h"
#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer's rows of K and V. Position 0 comes first; the first P rows are the prompt. */
struct ra_transform_rows {
    const struct ra_model *model;
    int32_t P, n;     /* rows of the prompt, >= 1; rows in all, >= P */
    const float *acc; /* [Hq][P] probability each prompt position received; NULL: not known */
    const float *q;   /* [Hq][W][D] as recorded at the prompt's last W positions; NULL: not known */
    int32_t W;        /* 1..P */
    void *k, *v;      /* as stored, [Hkv][n][D] and [Hkv][n][Dv]; changed in place */
};

/* What all n rows of all KV heads take, tables included. */
struct ra_transform_bits {
    int64_t k, v;
};

struct ra_transform_ops {
    const char *name;              /* spelling on the command line and in results: "kvquant" */
    const char *summary;           /* one line, at most 72 columns */
    const char *source;            /* paper and section, or "baseline" */
    const char *deviations;        /* where paper and this differ; NULL: nowhere known */
    const struct ra_param *params; /* option table, ends with a zero entry; NULL if none */
    size_t params_size;            /* bytes of the struct that the table fills */
    bool unrotates;                /* looks at keys as they were before RoPE */

    /* Change the rows, fill *bits. Errors: RA_ENOMEM. */
    enum ra_status (*apply)(const void *params, const struct ra_transform_rows *rows,
                            struct ra_transform_bits *bits, struct ra_error *err);
};

/* Every transformation, in the order of transforms.def; NULL-terminated. */
extern const struct ra_transform_ops *const ra_transforms[];

/* Transformations that are applied one after the other. */
struct ra_transform_chain;
enum { RA_TRANSFORMS_MAX = 4 };

/*
 * Parse "NAME[:key=value[,key=value...]][+NAME...]". RA_EUSAGE naming the word, what was expected
 * and the nearest name. The caller closes.
 */
RA_MUST_CHECK enum ra_status ra_transform_parse(struct ra_transform_chain **chain,
                                                struct ra_span text, struct ra_error *err);
void ra_transform_close(struct ra_transform_chain *chain);

/* The one spelling that results carry: all parameters, in table order. */
const char *ra_transform_canonical(const struct ra_transform_chain *chain);

/* RA_EUSAGE naming what the model's description lacks. */
RA_MUST_CHECK enum ra_status ra_transform_fits(const struct ra_transform_chain *chain,
                                               const struct ra_model *model, struct ra_error *err);

/* Change one layer's rows, one transformation after the other; *bits are those of the last, whose
 * form the cache has. */
RA_MUST_CHECK enum ra_status ra_transform_apply(const struct ra_transform_chain *chain,
                                                const struct ra_transform_rows *rows,
                                                struct ra_transform_bits *bits,
                                                struct ra_error *err);

/* The nearest number of a stored type. */
double ra_transform_stored(enum ra_dtype dtype, double value);

#ifdef __cplusplus
}
#endif

#endif
