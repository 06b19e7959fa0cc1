/* SPDX-License-Identifier: Apache-2.0 */
/* Our names of counters, from counters.def, and which of them run together. No CUPTI here. */
#include "profiler/counters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"

/* Chips whose counters have the same names. */
enum family {
    VOLTA = 1 << 0,
    TURING = 1 << 1,
    GA100 = 1 << 2,
    GA10X = 1 << 3,
    GH100 = 1 << 4,
    AD10X = 1 << 5,
    GB100 = 1 << 6,
    GB20X = 1 << 7,
    SHARED_MEMORY = 1 << 8, /* on one chip with a processor */
    ALL = (1 << 9) - 1
};

#define RA_COUNTER_CHIP(beginning, family)
#define RA_COUNTER(name, families, cupti_name, hw_unit, is_additive)                               \
    {#name, cupti_name, hw_unit, is_additive, families},
#define RA_COUNTER_SET(name, ...)
const struct ra_counter ra_counters[] = {
#include "profiler/counters.def"
    {NULL, NULL, NULL, false, 0},
};
#undef RA_COUNTER_SET
#undef RA_COUNTER

#define RA_COUNTER(name, families, cupti_name, hw_unit, is_additive)
#define RA_COUNTER_SET(name, ...) {#name, (const char *const[]){__VA_ARGS__, NULL}},
const struct ra_counter_set ra_counter_sets[] = {
#include "profiler/counters.def"
    {NULL, NULL},
};
#undef RA_COUNTER_SET
#undef RA_COUNTER_CHIP

static unsigned family_of(const char *chip)
{
    static const struct {
        const char *beginning;
        unsigned family;
    } chips[] = {
#define RA_COUNTER_CHIP(beginning, family) {beginning, family},
#define RA_COUNTER_SET(name, ...)
#include "profiler/counters.def"
#undef RA_COUNTER_SET
#undef RA_COUNTER_CHIP
    };
    for (size_t i = 0; i < sizeof chips / sizeof *chips; i++)
        if (strncmp(chip, chips[i].beginning, strlen(chips[i].beginning)) == 0)
            return chips[i].family;
    return 0;
}
#undef RA_COUNTER

const struct ra_counter *ra_counter_find(const char *chip, const char *name)
{
    unsigned family = family_of(chip);
    for (const struct ra_counter *row = ra_counters; row->name; row++)
        if ((row->families & family) && strcmp(row->name, name) == 0)
            return row;
    return NULL;
}

struct list {
    const char *chip;
    struct ra_counter_choice *choices;
    size_t n, room;
};

static enum ra_status add(struct list *list, const char *name, const char *cupti_name,
                          struct ra_error *err)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->choices[i].cupti_name, cupti_name) == 0)
            return RA_OK;
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        void *grown = realloc(list->choices, room * sizeof *list->choices);
        if (!grown)
            return ra_fail(err, RA_ENOMEM, "no memory for a list of metrics");
        list->choices = grown;
        list->room = room;
    }
    struct ra_counter_choice *choice = &list->choices[list->n++];
    snprintf(choice->name, sizeof choice->name, "%s", name);
    snprintf(choice->cupti_name, sizeof choice->cupti_name, "%s", cupti_name);
    return RA_OK;
}

static enum ra_status unknown(struct ra_span word, struct ra_error *err)
{
    const char *nearest = ra_text_nearest(
        word, ra_counters, sizeof ra_counters / sizeof *ra_counters - 1, sizeof *ra_counters);
    if (nearest)
        return ra_fail(err, RA_EUSAGE, "no counter is called '%.*s'; nearest is '%s'",
                       RA_SPAN(word), nearest);
    return ra_fail(
        err, RA_EUSAGE,
        "no counter is called '%.*s'; expected core, hit, miss, a name from 'list metrics "
        "--chip', or one of CUPTI's, which has '__'",
        RA_SPAN(word));
}

static enum ra_status add_ours(struct list *list, const char *name, struct ra_error *err)
{
    const struct ra_counter *row = ra_counter_find(list->chip, name);
    if (row)
        return add(list, row->name, row->cupti_name, err);
    for (row = ra_counters; row->name; row++)
        if (strcmp(row->name, name) == 0)
            return ra_fail(err, RA_ENODEV, "chip '%s' has no %s", list->chip, name);
    return unknown(ra_span_of(name), err);
}

static enum ra_status add_word(struct list *list, struct ra_span word, struct ra_error *err)
{
    char name[RA_COUNTER_NAME_MAX];
    if (word.n == 0)
        return ra_fail(err, RA_EUSAGE, "expected names of metrics between commas, got nothing");
    if (word.n >= sizeof name)
        return unknown(word, err);
    memcpy(name, word.at, word.n);
    name[word.n] = '\0';
    if (strstr(name, "__"))
        return add(list, name, name, err);
    for (const struct ra_counter_set *set = ra_counter_sets; set->name; set++)
        if (strcmp(set->name, name) == 0) {
            for (const char *const *of = set->names; *of; of++)
                RA_TRY(add_ours(list, *of, err));
            return RA_OK;
        }
    return add_ours(list, name, err);
}

enum ra_status ra_counter_choose(const char *chip, const char *list,
                                 struct ra_counter_choice **choices, size_t *n,
                                 struct ra_error *err)
{
    struct list made = {.chip = chip};
    struct ra_span rest = ra_span_of(list), word;
    enum ra_status status = RA_OK;
    bool more = true;
    *choices = NULL;
    *n = 0;
    while (more && status == RA_OK) {
        more = ra_span_cut(&rest, ',', &word);
        status = add_word(&made, word, err);
    }
    if (status != RA_OK) {
        free(made.choices);
        return status;
    }
    *choices = made.choices;
    *n = made.n;
    return RA_OK;
}

static enum ra_status count_passes(const char *chip, const char *const *cupti_names, size_t n,
                                   size_t *passes, struct ra_error *err)
{
    struct ra_counter_plan *plan;
    RA_TRY(ra_counter_plan_open(&plan, chip, NULL, cupti_names, n, err));
    *passes = plan->n_passes;
    ra_counter_plan_close(plan);
    return RA_OK;
}

struct split {
    const char *chip;
    const char *const *cupti_names;
    const char **together; /* room for all */
    size_t *run_of, *passes, n_runs;
};

/* Into the first run that stays one pass with it. */
static enum ra_status place(struct split *split, size_t which, struct ra_error *err)
{
    size_t alone, joined;
    RA_TRY(count_passes(split->chip, &split->cupti_names[which], 1, &alone, err));
    for (size_t run = 0; run < split->n_runs && alone == 1; run++) {
        size_t n = 0;
        if (split->passes[run] != 1)
            continue;
        for (size_t i = 0; i < which; i++)
            if (split->run_of[i] == run)
                split->together[n++] = split->cupti_names[i];
        split->together[n++] = split->cupti_names[which];
        RA_TRY(count_passes(split->chip, split->together, n, &joined, err));
        if (joined == 1) {
            split->run_of[which] = run;
            return RA_OK;
        }
    }
    split->passes[split->n_runs] = alone;
    split->run_of[which] = split->n_runs++;
    return RA_OK;
}

enum ra_status ra_counter_split(const char *chip, const char *const *cupti_names, size_t n,
                                size_t *run_of, size_t *passes, size_t *n_runs,
                                struct ra_error *err)
{
    const char **together = calloc(n ? n : 1, sizeof *together);
    struct split split = {chip, cupti_names, together, run_of, passes, 0};
    enum ra_status status = RA_OK;
    if (!together)
        return ra_fail(err, RA_ENOMEM, "no memory for a list of metrics");
    for (size_t which = 0; which < n && status == RA_OK; which++)
        status = place(&split, which, err);
    free(together);
    *n_runs = split.n_runs;
    return status;
}
