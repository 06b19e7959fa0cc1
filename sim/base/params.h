/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named parameters as data: one table row gives a parameter's spelling, type, range, default and
 * help, and from the row follow parsing, canonical printing, error texts and listings.
 */
#ifndef RA_SIM_BASE_PARAMS_H
#define RA_SIM_BASE_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_param_type {
    RA_PARAM_INT,      /* int32_t; "none" gives RA_INT_NONE where none is the default */
    RA_PARAM_REAL,     /* double; "none" gives NaN where none is the default */
    RA_PARAM_CHOICE,   /* int32_t: index into `choices` */
    RA_PARAM_FRACTION, /* struct ra_fraction: "256" or "1/8" */
    RA_PARAM_LIST      /* struct ra_int_list, ascending: "0/5/9"; "none" gives n = 0; where
                        * `choices` is a word, the last may be that word: RA_LIST_WORD */
};

enum { RA_INT_NONE = -1, RA_LIST_WORD = INT32_MAX };

/* A count, or a share a/b of the prompt. den = 0: `num` tokens. */
struct ra_fraction {
    int32_t num, den;
};

/* max(1, floor(P * num / den)), at most INT32_MAX; or num when it is a plain count. */
int32_t ra_fraction_resolve(struct ra_fraction fraction, int32_t P);

enum { RA_LIST_MAX = 64 };
struct ra_int_list {
    int32_t n;
    int32_t values[RA_LIST_MAX];
};

/* What may have a value of its own: "key@layers=value", and "key@layers.heads=value". */
enum ra_param_reach { RA_REACH_LAYER, RA_REACH_ALL, RA_REACH_HEAD };

struct ra_param {
    const char *name;
    enum ra_param_type type;
    size_t offset;        /* in the struct that the table fills */
    double min, max;      /* inclusive; of a plain count for fractions, of each entry for lists */
    const char *fallback; /* default, as it would be spelled; NULL: must be given */
    const char *choices;  /* "max|mean|first|sum"; of lists: a word, or NULL */
    const char *help;     /* one line */
    enum ra_param_reach reach;
};

/* Opens a row: the parameter is called as the field that it fills. */
#define RA_PARAM_OF(OWNER, field, kind)                                                            \
    .name = #field, .type = RA_PARAM_##kind, .offset = offsetof(OWNER, field)

/*
 * Set one parameter from its text. `where` opens the message ("recycled:"). Whole text must match:
 * no blanks, no trailing characters, no hex, no inf. RA_EUSAGE names key, expected, got.
 */
RA_MUST_CHECK enum ra_status ra_param_set(const struct ra_param *param, const char *text, void *out,
                                          const char *where, struct ra_error *err);

/* Fill every field that has a default. */
void ra_params_defaults(const struct ra_param *table, void *out);

/*
 * Write the value's canonical spelling, which ra_param_set reads back to the same value: reals with
 * the fewest of 15 to 17 digits that do, fractions in lowest terms. Returns the characters it
 * needs, as snprintf does.
 */
int ra_param_format(const struct ra_param *param, const void *params, char *out, size_t size);

/* Copy one parameter from one such struct to another. */
void ra_param_copy(const struct ra_param *param, const void *from, void *to);

/* The row of that name. RA_EUSAGE, opening with `owner`: it has no such parameter, and which is
 * near; or it has none. */
RA_MUST_CHECK enum ra_status ra_params_look_up(const struct ra_param *table, const char *owner,
                                               struct ra_span key, const struct ra_param **row,
                                               struct ra_error *err);

/* NULL when there is no such row, or no table. */
const struct ra_param *ra_params_find(const struct ra_param *table, const char *name);

#ifdef __cplusplus
}
#endif

#endif
