/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of closed loop, where a model decoded under schedules, as tables for people: which
 * results share one, its columns, and the words round it. Text and page take them from here.
 */
#ifndef RA_SIM_REPORT_EVAL_H
#define RA_SIM_REPORT_EVAL_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "sim/report_table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Share of prompts that full attention must get right for a task to say anything. */
#define RA_EVAL_GATE 0.8

/* Results of one task by one decoder. */
struct ra_eval_table {
    const json_t *results; /* borrowed; the table's rows are some of them */
    const json_t *head;    /* the first row */
    size_t first;          /* its index */
    bool asks;             /* prompts with answers, not texts */
    double baseline;       /* share of prompts that full attention gets right; NaN: not known */
    bool is_gated;         /* so few, or it is not known how many, that answers say nothing */
};

/* The table that result `first` opens; false when an earlier result opened it. */
bool ra_eval_table_open(struct ra_eval_table *table, const json_t *results, size_t first);
bool ra_eval_table_has(const struct ra_eval_table *table, const json_t *result);

/* Columns beside the policy. Of texts those of answers are left out, in text some for width. */
enum { RA_EVAL_COLUMNS = 9 };
struct ra_eval_column {
    const char *above, *below;
    int width;                 /* in characters; 0: on the page alone */
    bool of_answers, of_texts; /* left out of the other tables of text */
};
extern const struct ra_eval_column ra_eval_columns[RA_EVAL_COLUMNS];

/* A figure and its interval, "" where there is none. */
struct ra_eval_cell {
    char value[40], interval[48];
};
void ra_eval_cells(const struct ra_eval_table *table, const json_t *row,
                   struct ra_eval_cell cells[RA_EVAL_COLUMNS]);

/* Task, model, lengths, decoder. */
void ra_eval_head(const struct ra_eval_table *table, ra_report_part_fn put, void *context);

/* What the columns mean, one note at a time. */
void ra_eval_notes(const struct ra_eval_table *table, ra_report_part_fn put, void *context);

/* Whether a row has tokens of other than full steps; and its loss by steps since the last full one,
 * a part for each bin. */
bool ra_eval_has_since(const json_t *row);
void ra_eval_since(const json_t *row, ra_report_part_fn put, void *context);

#define RA_EVAL_SINCE                                                                              \
    "delta NLL by steps since the last full step, or the prefill (0: full steps), and how many "   \
    "tokens that is the mean of"

/* All tables as text, at most 80 columns. */
void ra_report_eval(FILE *out, const json_t *results);

/* Results of `record`, a line or two each. */
void ra_report_recorded(FILE *out, const json_t *results);

#ifdef __cplusplus
}
#endif

#endif
