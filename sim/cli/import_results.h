/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of another decoder, as JSON:
 *
 *   {"format":"rattn-eval", "version":"1.0", "tool":"decode_hf", "tool_version":"1.0",
 *    "model":"...", ...,
 *    "results":[{"task":"ppl", "policy":"streaming:k=64", ...,
 *      "documents":[{"document":"a.ids", "prompt_len":256, "steps":32, "nll":[...]}]}]}
 *
 * A document has `nll`, one number for each step, or `right` (true, false), or both; it may have
 * seed, depth, hits (0 to 1), margin, kl (as nll), keys_read, full_layer_steps, layers (a list) and
 * hf_wall, an object of seconds with their method. What else stands at the top is provenance and
 * kept as it is; device and dtype may stand in a member of that name. Nothing of the file is
 * trusted.
 */
#ifndef RA_SIM_CLI_IMPORT_RESULTS_H
#define RA_SIM_CLI_IMPORT_RESULTS_H

#include <jansson.h>

#include "sim/base/error.h"
#include "sim/base/hash.h"
#include "sim/policy_spec.h"

struct ra_import {
    char sha256[RA_SHA256_HEX];    /* of the file */
    json_t *about;                 /* the top-level members beside the results */
    json_t *results;               /* [n] as ra_eval_figures gives them, with tool, tool_version and
                                      times; what is not known is null */
    struct ra_policy_spec **specs; /* [n] */
    size_t n;
};

/*
 * Read and check a file; `seed` is that of the resamples. A delta is against `full` of the same
 * task, whose documents must be the same. Errors: RA_EIO, RA_EFORMAT naming file, member, expected
 * and got; RA_ENOMEM. Close after failures too.
 */
RA_MUST_CHECK enum ra_status ra_import_read(struct ra_import *import, const char *path,
                                            uint64_t seed, struct ra_error *err);
void ra_import_close(struct ra_import *import);

#endif
