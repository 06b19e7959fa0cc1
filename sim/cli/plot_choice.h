/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of one figure: replays that share trace, sequence, backend, device and method, or runs
 * of eval that share model, task and decoder. */
#ifndef RA_SIM_CLI_PLOT_CHOICE_H
#define RA_SIM_CLI_PLOT_CHOICE_H

#include <stdbool.h>

#include <jansson.h>

#include "profiler/store.h"
#include "sim/cli/options.h"

struct ra_plot_choice {
    json_t *runs;           /* list of {id, series, is_bound}; a series is named by its policy */
    char *invocation, *key; /* what they have in common; NULL while there is none */
    const char *kind;
    bool is_strict;
    int n_other; /* of the same invocation and kind, but with another key */
};

/*
 * Of the runs named, or of all when none is, those of `kind`, "replay" or "eval", and of the last
 * invocation that has complete ones, with layer-steps or results, and of it those that fit the
 * first. Strict: a named run that does not fit, of whatever invocation, or that no figure can be
 * of, is RA_EUSAGE. The choice may be empty; it is closed by the caller, also when this fails.
 */
RA_MUST_CHECK enum ra_status ra_plot_choose(struct ra_store *store,
                                            const struct ra_option_texts *runs, const char *kind,
                                            bool is_strict, struct ra_plot_choice *choice,
                                            struct ra_error *err);
void ra_plot_choice_close(struct ra_plot_choice *choice);

#endif
