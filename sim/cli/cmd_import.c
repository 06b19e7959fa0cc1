/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import: what another decoder scored under schedules, kept beside runs of eval. Its times are
 * stored as its own; no figure of this program is made of them.
 */
#include <stdlib.h>

#include "sim/cli/commands.h"
#include "sim/cli/eval_store.h"
#include "sim/cli/import_results.h"
#include "sim/cli/output.h"
#include "sim/cli/run_rows.h"
#include "sim/report_eval.h"

struct values {
    const char *file, *db;
};

static const struct ra_operand operands[] = {
    {"FILE.json", 1, 1, offsetof(struct values, file),
     .help = "results of a decoder such as traces/tools/decode_hf.py"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "db",
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, db),
     .argument = "FILE",
     .is_required = true,
     .help = "store the runs there; made when missing, else appended to"},
    {.name = NULL},
};

static json_t *config_json(const struct ra_import *import, const char *path)
{
    json_t *config = json_object();
    json_object_set_new(config, "file", ra_json_text(path));
    json_object_set_new(config, "file_sha256", json_string(import->sha256));
    json_object_set_new(config, "cwd", ra_run_folder());
    json_object_set(config, "provenance", import->about);
    return config;
}

/* At the top of the file, or in its member "provenance". */
static const char *text_or_null(const json_t *about, const char *key)
{
    const json_t *value = json_object_get(about, key);
    if (!value)
        value = json_object_get(json_object_get(about, "provenance"), key);
    return json_string_value(value);
}

static enum ra_status store_all(struct ra_eval_store *runs, const struct ra_import *import,
                                const char *path, struct ra_error *err)
{
    struct ra_eval_run run = {.kind = "eval",
                              .config = config_json(import, path),
                              .trace_path = path,
                              .model_id = text_or_null(import->about, "model"),
                              .backend = text_or_null(import->about, "tool"),
                              .device = text_or_null(import->about, "device"),
                              .dtype = text_or_null(import->about, "dtype")};
    enum ra_status st = RA_OK;
    for (size_t i = 0; st == RA_OK && i < json_array_size(import->results); i++) {
        int64_t run_id;
        run.spec = import->specs[i];
        st = ra_eval_store_begin(runs, &run, &run_id, err);
        st = ra_eval_store_end(runs, run_id, st, json_array_get(import->results, i), err);
    }
    json_decref(run.config);
    return st;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct ra_import import;
    struct ra_eval_store runs = {.cli = cli};
    enum ra_status st = ra_import_read(&import, values->file, cli->seed, err);
    if (st == RA_OK)
        st = ra_eval_store_open(&runs, values->db, "import", cli, err);
    if (st == RA_OK)
        st = store_all(&runs, &import, values->file, err);
    st = ra_eval_store_close(&runs, st, err);
    if (st == RA_OK && cli->format == RA_FORMAT_JSON)
        st = ra_put_json(import.results, err);
    else if (st == RA_OK)
        ra_report_eval(stdout, import.results);
    ra_import_close(&import);
    return st;
}

const struct ra_command ra_cmd_import = {
    .name = "import",
    .summary = "what another decoder scored under schedules, into a store",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK | RA_COMMON_SEED,
    .values_size = sizeof(struct values),
    .notes = "Runs of kind eval, each with its decoder's name. Times of the other decoder are kept "
             "as hf-wall and never compared with any.",
};
