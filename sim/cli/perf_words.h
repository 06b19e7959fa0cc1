/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel's counters are said to be, by doctor and replay. Private to the commands. */
#ifndef RA_SIM_CLI_PERF_WORDS_H
#define RA_SIM_CLI_PERF_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A line for each event that this user cannot count here, and why; nothing where there is none. */
void ra_perf_tell_refusals(FILE *out);

/* What can be counted and what cannot, and how that is mended. True where everything can. */
bool ra_perf_describe(char *found, size_t found_size, char *fix, size_t fix_size);

#endif
