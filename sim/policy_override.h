/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of single layers, "key@0-3=value", and of KV heads of theirs, "key@0-3.1=value": ranges,
 * their order and how they are spelled. Internal to policies.
 */
#ifndef RA_SIM_POLICY_OVERRIDE_H
#define RA_SIM_POLICY_OVERRIDE_H

#include "sim/base/params.h"
#include "sim/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_ALL_HEADS = -1 };

struct ra_override {
    const struct ra_param *param;
    int32_t first, last;     /* layers, by number in the model */
    int32_t head, last_head; /* KV heads; RA_ALL_HEADS both */
    void *params;            /* a struct of which only this parameter's field counts */
};

/* Layers and heads from "0-3.1"; entry->param is set. `policy` opens the message of RA_EUSAGE. */
RA_MUST_CHECK enum ra_status ra_override_parse(struct ra_override *entry, const char *policy,
                                               struct ra_span range, struct ra_error *err);

/* Order in lists and in the canonical spelling: by parameter, those of all heads first, by layer.
 */
bool ra_override_goes_before(const struct ra_override *a, const struct ra_override *b);

/* Do both give a value to one place? One of a single head may stand beside one of all heads. */
bool ra_override_overlaps(const struct ra_override *a, const struct ra_override *b);

/* Is b the same value for the next layers with the same heads, or the next heads of the layers? */
bool ra_override_continues(const struct ra_override *a, const struct ra_override *b);

bool ra_override_same_value(const struct ra_param *param, const void *a, const void *b);

/* "@0-3.1" */
void ra_override_write(const struct ra_override *entry, char *out, size_t size);

#ifdef __cplusplus
}
#endif

#endif
