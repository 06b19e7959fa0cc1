/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of results before it is laid out: which results share it, the words above and below it,
 * and the text of its cells. Text and page take them from here, so that both say the same.
 */
#ifndef RA_SIM_REPORT_TABLE_H
#define RA_SIM_REPORT_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A member's text, "" when there is none; borrowed. */
const char *ra_result_text(const json_t *object, const char *key);

/* A member's number, or that of its member `inner` unless that is NULL; NaN when there is none. */
double ra_result_number(const json_t *object, const char *key, const char *inner);

/* KV read and written and selection, bytes over all steps: what a result costs the memory. */
double ra_result_bytes(const json_t *result);

/* Results that were decoded alike and timed alike: times of two methods never share a column. */
struct ra_report_table {
    const json_t *results; /* borrowed; the table's rows are some of them */
    const json_t *head;    /* the first row */
    size_t first;          /* its index */
    bool is_timed;
    const char *time_unit;         /* of the column, from its longest: "ms", "us" */
    double full_bytes, time_scale; /* of the row of full, NaN without; of ns to the unit */
};

/* The table that result `first` opens; false when an earlier result opened it. */
bool ra_report_table_open(struct ra_report_table *table, const json_t *results, size_t first);

bool ra_report_table_has(const struct ra_report_table *table, const json_t *result);

/* Columns beside the policy: a heading of two words, `below` NULL for the unit of time, and the
 * width in characters. */
enum { RA_REPORT_COLUMNS = 8, RA_REPORT_CELL = 32 };
struct ra_report_column {
    const char *above, *below;
    int width;
};
extern const struct ra_report_column ra_report_columns[RA_REPORT_COLUMNS];

/* The second word of a heading. */
const char *ra_report_column_below(const struct ra_report_table *table, int column);

/* The cells of a row; "-" for what is missing. */
void ra_report_cells(const struct ra_report_table *table, const json_t *row,
                     char cells[RA_REPORT_COLUMNS][RA_REPORT_CELL]);

/* Words that come in parts, with commas between them. */
typedef void (*ra_report_part_fn)(void *context, const char *part);

/* Trace, model, layers, lengths, how it was laid out and recorded. */
void ra_report_heading(const json_t *row, ra_report_part_fn put, void *context);

/* Of these, how often the layers were laid out and what was decoded together; often nothing. */
void ra_report_layout(const json_t *row, ra_report_part_fn put, void *context);

/* How the times were taken; nothing for a table without. */
void ra_report_times(const struct ra_report_table *table, ra_report_part_fn put, void *context);

#define RA_REPORT_RESIDENT "cache-resident: these times are of KV that fits the last-level cache"
#define RA_REPORT_OPEN_LOOP                                                                        \
    "open loop: exact for this recording; later drift is not included (see eval)"

#define RA_REPORT_TRANSFORMED                                                                      \
    "with +: bytes are of the codes, times of dequantised rows, and so no speed-up"

/* Has any row of the table a transformation? */
bool ra_report_transformed(const struct ra_report_table *table);

/* What the columns mean. */
void ra_report_meaning(char *out, size_t size);

/* The worst rounding of the rows beside its bound, and the near ties; false when none is known. */
bool ra_report_rounding(const struct ra_report_table *table, char *out, size_t size);

/* How many steps have no time for the host's lateness, of the row with the most; false when none.
 */
bool ra_report_late(const struct ra_report_table *table, char *out, size_t size);

#ifdef __cplusplus
}
#endif

#endif
