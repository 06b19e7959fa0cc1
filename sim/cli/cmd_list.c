/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: what there is. Every listing is gathered as a JSON array first; json and csv print it as
 * it is, text picks from it.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"
#include "sim/cli/commands.h"
#include "sim/cli/list.h"
#include "sim/cli/list_metrics.h"
#include "sim/cli/output.h"
#include "sim/cli/plot_list.h"
#include "sim/report.h"

struct values {
    const char *what, *db, *chip;
};

static const struct ra_operand operands[] = {
    {"WHAT", 1, 1, offsetof(struct values, what), .help = "what is listed",
     .choices = "policies|backends|devices|figures|metrics|runs"},
    {"DB", 0, 1, offsetof(struct values, db), .help = "the store whose runs are listed"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "chip",
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, chip),
     .argument = "NAME",
     .words = RA_WORDS_NONE,
     .help = "of metrics: those that this GPU chip (GA100, GH100, AD102, ...) counts"},
    {.name = NULL},
};

static const struct {
    const char *name;
    enum ra_status (*gather)(json_t *rows, const char *of, struct ra_error *err);
    void (*print)(const json_t *rows, int verbosity);
} listings[] = {
    {"policies", ra_list_policies, ra_list_print_policies},
    {"backends", ra_list_backends, ra_list_print_backends},
    {"devices", ra_list_devices, ra_list_print_devices},
    {"figures", ra_list_figures, ra_list_print_figures},
    {"metrics", ra_list_metrics, ra_list_print_metrics},
    {"runs", ra_list_runs, ra_list_print_runs},
};
enum { N_LISTINGS = sizeof listings / sizeof *listings };

static enum ra_status print(const struct ra_cli *cli, int which, const json_t *rows,
                            struct ra_error *err)
{
    if (cli->format == RA_FORMAT_TEXT) {
        listings[which].print(rows, cli->verbosity);
        return RA_OK;
    }
    if (cli->format == RA_FORMAT_CSV)
        return ra_report_csv(stdout, rows, err);
    return ra_put_json(rows, err);
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    int which = 0;
    while (which < N_LISTINGS && strcmp(listings[which].name, values->what) != 0)
        which++;
    if (which == N_LISTINGS) {
        struct ra_span word = ra_span_of(values->what);
        char hint[RA_HINT_MAX];
        return ra_fail(err, RA_EUSAGE, "list: nothing called '%.*s'; %s", RA_SPAN(word),
                       ra_text_hint(word, listings, N_LISTINGS, sizeof *listings, hint));
    }
    bool needs_db = listings[which].gather == ra_list_runs;
    if (needs_db && !values->db)
        return ra_fail(err, RA_EUSAGE, "list runs: expected DB, got nothing");
    if (!needs_db && values->db)
        return ra_fail(err, RA_EUSAGE, "list %s: '%s' is one word too many", values->what,
                       values->db);
    bool takes_chip = listings[which].gather == ra_list_metrics;
    if (!takes_chip && values->chip)
        return ra_fail(err, RA_EUSAGE, "list %s: --chip is an option of 'list metrics'",
                       values->what);
    json_t *rows = json_array();
    if (!rows)
        return ra_fail(err, RA_ENOMEM, "no memory for a list");
    enum ra_status status =
        listings[which].gather(rows, takes_chip ? values->chip : values->db, err);
    if (status == RA_OK)
        status = print(cli, which, rows, err);
    json_decref(rows);
    return status;
}

const struct ra_command ra_cmd_list = {
    .name = "list",
    .summary = "policies, backends, devices, figures, metrics; runs in a store",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes =
        "list policies -v shows every parameter with its range and default, and the paper "
        "each policy follows; list metrics -v adds tag and label. list metrics --chip NAME needs "
        "CUPTI, but no GPU: what a '-' stands for the chip cannot count.",
};
