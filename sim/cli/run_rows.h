/* SPDX-License-Identifier: Apache-2.0 */
/* What the rows of runs have in common, of whatever kind: where they come from, and how they end.
 */
#ifndef RA_SIM_CLI_RUN_ROWS_H
#define RA_SIM_CLI_RUN_ROWS_H

#include <jansson.h>

#include "profiler/store.h"
#include "sim/cli/options.h"

/* A name that no other invocation has. */
RA_MUST_CHECK enum ra_status ra_run_invocation(char uuid[37], struct ra_error *err);

/* The command line as a JSON list, for free(); NULL without memory. */
char *ra_run_argv(const struct ra_cli *cli);

/* {"k":"256","stride":"16","transformation":"int8"}: a canonical spelling taken apart, for free();
 * NULL without memory. */
char *ra_run_params(const char *canonical);

/* The working folder, in which paths of the command line start; null where it has no name. */
json_t *ra_run_folder(void);

/* How a run ends. All borrowed. */
struct ra_run_ending {
    const char *db;     /* for messages */
    const char *source; /* of the note that a failure leaves: the command */
    int64_t run_id;
    const char *fingerprint, *output_hash; /* NULL: none */
    const json_t *result;                  /* NULL: none; then the two above are left out */
};

/*
 * Complete when `outcome` is RA_OK, else failed, or aborted when interrupted, with *err kept as a
 * note. Returns `outcome`, or why the end could not be written.
 */
enum ra_status ra_run_end(struct ra_store *store, const struct ra_run_ending *ending,
                          enum ra_status outcome, struct ra_error *err);

#endif
