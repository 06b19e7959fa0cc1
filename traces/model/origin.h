/* SPDX-License-Identifier: Apache-2.0 */
/* Where a model directory comes from, as its provenance.json says (traces/tools/prepare_model.py)
 * or, without one, as the directory itself shows. Strings, shown and never interpreted. */
#ifndef RA_TRACES_MODEL_ORIGIN_H
#define RA_TRACES_MODEL_ORIGIN_H

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_lm_origin {
    char *id, *revision, *sha256, *quant, *license, *tokenizer_sha256; /* "" where not known */
};

/* `dir` without provenance.json: its last name as id. Errors: RA_EIO, RA_EFORMAT, RA_ENOMEM. A
 * zeroed struct may be closed. */
RA_MUST_CHECK enum ra_status ra_lm_origin_open(struct ra_lm_origin *origin, const char *dir,
                                               struct ra_error *err);
void ra_lm_origin_close(struct ra_lm_origin *origin);

#ifdef __cplusplus
}
#endif

#endif
