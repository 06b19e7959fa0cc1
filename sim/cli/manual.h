/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual page and bash completion, both written from the tables that parse the command line, so
 * that neither can lack an option or keep one that is gone.
 */
#ifndef RA_SIM_CLI_MANUAL_H
#define RA_SIM_CLI_MANUAL_H

#include "sim/cli/options.h"

/* One line of a list: an exit code, a variable, a file, an example; and what it means. */
struct ra_manual_row {
    const char *name, *text; /* name NULL ends a list */
};

/* What the pages say beside the commands. Borrowed. */
struct ra_manual {
    const struct ra_command *const *commands; /* NULL-terminated */
    const char *summary;                      /* "replays ..." */
    const struct ra_manual_row *exits;
};

/* rattn-sim(1) in the man macros of roff. */
void ra_manual_page(const struct ra_manual *manual, FILE *out);

/* A script for bash: the tables as words, then the one function that looks things up in them. */
void ra_manual_completion(const struct ra_manual *manual, FILE *out);

#endif
