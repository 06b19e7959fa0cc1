/* SPDX-License-Identifier: Apache-2.0 */
/* Foreign words, policies and lists laid out in lines of text. */
#ifndef RA_SIM_REPORT_LINES_H
#define RA_SIM_REPORT_LINES_H

#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Characters: of the column of policies, of a line, of a short spelling. */
enum { RA_REPORT_POLICY = 24, RA_REPORT_LINE = 79, RA_REPORT_SHORT = 512 };

/* Results may come from a foreign file: control bytes must not reach a terminal. */
void ra_report_put_safe(FILE *out, const char *text);

/* Print as much of a spelling as fits the column, up to a comma or a plus; returns what is left, or
 * NULL. *n_put is the number of characters printed. */
const char *ra_report_put_policy(FILE *out, const char *text, int width, int *n_put);

/* Words with commas between, broken before the end of a line; ra_report_put_part is an
 * ra_report_part_fn of it. */
struct ra_report_line {
    FILE *out;
    int column;
};
void ra_report_put_part(void *line, const char *text);

/* Words on lines of their own, broken at blanks. */
void ra_report_put_words(FILE *out, const char *text);

#ifdef __cplusplus
}
#endif

#endif
