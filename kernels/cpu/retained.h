/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache C_r of one (layer, KV head): which positions it holds, in which slots, and
 * who leaves next. An entry keeps its slot for as long as it stays, so a refresh copies only what
 * is new. Slots may have holes after a cache shrank; they are filled first.
 */
#ifndef RA_KERNELS_CPU_RETAINED_H
#define RA_KERNELS_CPU_RETAINED_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Storage is the backend's; arrays have `cap` elements. With k NULL no rows are kept and slots are
 * not tracked: the cache is a list of rows of C_f. */
struct ra_cpu_retained {
    int32_t cap, n;
    int32_t *pos;      /* [n] ascending */
    int32_t *slot;     /* [n] slot of pos[i]; 0 without rows */
    double *score;     /* [n] accumulated score of pos[i] */
    int32_t *slot_pos; /* [n_slots] position in a slot, -1: free */
    int32_t n_slots;   /* slots ever used since they were last trimmed */
    int32_t *free_slot;
    int32_t n_free; /* stack of free slots below n_slots */
    int32_t *queue; /* ring of positions that may be evicted, first to go at queue_first */
    int32_t queue_first, queue_n;
    char *k, *v; /* [cap] rows */
    size_t k_bytes, v_bytes;

    int32_t *next_pos, *next_evict; /* adopted, not yet installed */
    double *given_score;            /* [next_n] adopted scores; of new entries */
    bool is_scored;                 /* given_score is filled */
    int32_t next_n, next_pinned;
    bool adopted;
    int32_t *next_slot;
    double *next_score;

    int32_t self_pos; /* self, if its score is known though it is not an entry; else -1 */
    double self_score;
};

/* Empty it. */
void ra_cpu_retained_reset(struct ra_cpu_retained *cache);

/* Remember what the next install makes of it. */
void ra_cpu_retained_adopt(struct ra_cpu_retained *cache, const struct ra_retained *retained);

/*
 * Become what was adopted; nothing when nothing was. full_k, full_v are the rows of C_f that
 * positions index. Returns the number of entries that were not there before.
 */
int32_t ra_cpu_retained_install(struct ra_cpu_retained *cache, const char *full_k,
                                const char *full_v);

/*
 * Add `self`, the newest position, and evict from the front of the queue while more than K would
 * remain; self joins the end of the queue. Returns the first position evicted, or -1. The victim's
 * slot takes self's row, so no other row moves.
 */
int32_t ra_cpu_retained_insert(struct ra_cpu_retained *cache, int32_t self, int32_t K,
                               const char *full_k, const char *full_v);

/*
 * Add `self`, the newest position, whose score is known, and where that makes more than rule->K
 * entries let one go: the one of least score below the rule->recent newest (ties: the highest
 * position), or `instead` unless that is -1. Returns the rule's own choice, or -1.
 */
int32_t ra_cpu_retained_cut(struct ra_cpu_retained *cache, int32_t self,
                            const struct ra_cut_rule *rule, int32_t instead, const char *full_k,
                            const char *full_v);

/* Is position p, the newest, an entry? */
bool ra_cpu_retained_has_last(const struct ra_cpu_retained *cache, int32_t p);

#ifdef __cplusplus
}
#endif

#endif
