/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes one layer of one decode step should ask a card's memory for, by what they are of:
 * those that the replay counts (keys and values, rows moved, scores and lists), and by formula
 * those that the cuda kernels need beside them. Pure arithmetic on counts; reads no store and
 * no counter. Formulas follow the kernels of kernels/cuda, each named where it stands; atomic
 * operations are left out.
 */
#ifndef RA_SIM_TRAFFIC_H
#define RA_SIM_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ra_traffic_part {
    RA_TRAFFIC_KV,      /* keys and values attended to; keys that are scored apart */
    RA_TRAFFIC_ROWS,    /* rows appended, put into C_r and moved by refreshes: read and written */
    RA_TRAFFIC_LOGITS,  /* written and read */
    RA_TRAFFIC_CHOICE,  /* ranking keys, their histogram, lists of positions */
    RA_TRAFFIC_PARTIAL, /* of the splits of attention: written and read */
    RA_TRAFFIC_QUERIES, /* queries, outputs, log-sum-exps; references of schedules that compare */
    RA_TRAFFIC_COUNTS,  /* lengths, flags, page tables, places in lists */
    RA_TRAFFIC_BETWEEN, /* what is read between layers and is no cache */
    RA_TRAFFIC_PARTS
};

/* The part's name in results: kv, rows, logits, choice, partial, queries, counts, between. */
const char *ra_traffic_name(enum ra_traffic_part part);

/* The same in a few words. */
const char *ra_traffic_words(enum ra_traffic_part part);

/* What all steps of a run have in common. */
struct ra_traffic_run {
    int32_t Hq, Hkv, D, element_bytes; /* values are as wide as keys */
    int32_t n_sms;                     /* of the card */
    int32_t copies;                    /* of the sequence, decoded together */
    int32_t max_rows;                  /* positions that the caches have room for */
    int32_t cap;                       /* entries that C_r of a KV head has room for; 0: no C_r */
    int32_t pool;                      /* positions that a choice pools */
    bool first_alone;                  /* the group's first query head alone is ranked by */
    bool raw;                          /* evictions are ordered by keys of their own */
    bool gathers;                      /* C_r is a list of positions in C_f */
    bool paged;                        /* C_f is */
    bool scores_apart;                 /* logits come from a pass of their own over the keys */
    bool compares;                     /* queries are compared; full ones become the reference */
    double between_bytes;              /* read before a layer */
};

/* One layer at one step: what the replay counts of one sequence, and what goes with it. */
struct ra_traffic_step {
    double keys_read, kv_read_bytes, kv_write_bytes; /* over KV heads */
    double refresh_entries, refresh_bytes, selection_bytes;
    int32_t L;         /* positions visible, self included */
    int32_t n_choices; /* layers, this one among them, that one launch chooses for */
    int32_t together;  /* sequences, each given by itself, that one launch serves; 0: the copies */
    int32_t longest;   /* positions visible to one of these, at most; 0: L */
    bool has_window;   /* it sees the newest positions, and has no C_r */
    bool is_full;
    bool rebuilds; /* C_r is chosen anew, or taken over from a layer that did */
    bool compared; /* the schedule looked at the query */
};

/* Is it a shape that the kernels have? What is not must not be given below. */
bool ra_traffic_can(const struct ra_traffic_run *run);

/* Does the layer choose at this step, from scores of its own? */
bool ra_traffic_chooses(const struct ra_traffic_run *run, const struct ra_traffic_step *step);

/* Add the bytes of all copies, read and written, to each part. */
void ra_traffic_add(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                    double parts[RA_TRAFFIC_PARTS]);

#ifdef __cplusplus
}
#endif

#endif
