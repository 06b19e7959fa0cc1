/* SPDX-License-Identifier: Apache-2.0 */
/* A policy run on a scene, written down step by step. Used by cmd_explain.c. */
#ifndef RA_SIM_CLI_EXPLAIN_H
#define RA_SIM_CLI_EXPLAIN_H

#include <jansson.h>

#include "sim/cli/scene.h"

/*
 * Run `spec` on the scene up to step `last` and describe steps first..last of the shown layer and
 * KV head; *story is the caller's. Members:
 *
 *   policy, title, scores, P, N, layer, head
 *   prefill  {self, cache, evictions: "order" | "score" | "none"}
 *   steps    [{step, self, kind: "full" | "recycled" | "sparse", keys, attended, heads, chosen,
 * mass, flushed, rebuilt, old_mass, overlap, entered, evicted, cache, pending}] memory {keys_read,
 * keys_full, caches: "full" | "reduced" | "both", rows, retained, row_bytes}
 *
 * Lists hold positions; `attended` ends with self; `heads` has the sets of the group's query heads
 * without self, null where they share one; `chosen` is what the layer hands on to others, null
 * where it does not; `cache` is C_r after the step, first to be evicted first if `evictions` is
 * "order", null for policies without one, as is `evictions`; `pending` and `flushed` are tokens not
 * yet, and just, taken into C_f, null without both caches. mass: share of the softmax that the
 * attended keys hold, mean over the group; old_mass: what the cache before a rebuild and self would
 * have held. rows: positions that exist at the end; retained: largest C_r.
 */
RA_MUST_CHECK enum ra_status ra_explain(struct ra_scene *scene, const struct ra_policy_spec *spec,
                                        int32_t first, int32_t last, json_t **story,
                                        struct ra_error *err);

#endif
