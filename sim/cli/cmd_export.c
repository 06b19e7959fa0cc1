/* SPDX-License-Identifier: Apache-2.0 */
/* export: one pass of a run in the format of another tool. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "profiler/export_nsys.h"
#include "sim/base/json_memory.h"
#include "sim/cli/commands.h"
#include "sim/cli/export.h"
#include "sim/cli/out_file.h"

enum format { AS_PERFETTO, AS_CSV, AS_NSYS };

struct values {
    const char *db, *run, *out;
    int as;
    int64_t pass;
};

static const struct ra_operand operands[] = {
    {"DB", 1, 1, offsetof(struct values, db), .help = "the store"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "run",
     .kind = RA_OPTION_TEXT,
     .is_required = true,
     .offset = offsetof(struct values, run),
     .argument = "RUN",
     .words = RA_WORDS_NONE,
     .help = "id, or a unique beginning of a uuid"},
    {.name = "as",
     .kind = RA_OPTION_CHOICE,
     .is_required = true,
     .offset = offsetof(struct values, as),
     .argument = "FORMAT",
     .choices = "perfetto|csv|nsys",
     .help = "what reads it"},
    {.name = "pass",
     .kind = RA_OPTION_INT,
     .offset = offsetof(struct values, pass),
     .argument = "ORDINAL",
     .fallback = "-1",
     .min = -1,
     .max = INT32_MAX,
     .help = "pass of the run, from 0; -1: the latest complete one with times of kernels, else "
             "the latest complete bare one"},
    {.name = "output",
     .letter = 'o',
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, out),
     .argument = "FILE",
     .help = "write there instead of to standard output; nsys needs it"},
    {.name = NULL},
};

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    (void)err;
    struct ra_export_pass *pass = context;
    pass->run_id = run->id;
    snprintf(pass->uuid, sizeof pass->uuid, "%s", run->uuid ? run->uuid : "");
    snprintf(pass->policy, sizeof pass->policy, "%s", run->policy ? run->policy : "");
    return RA_OK;
}

/* The first row wins. A bare pass measured as a whole is no worse than one with kernels. */
static const char choose_sql[] =
    "WITH wish AS (SELECT :runs ->> 'run' AS run, :runs ->> 'pass' AS pass)"
    " SELECT p.id, ordinal, mode, state, coalesce(t0_monotonic_ns, 0),"
    " coalesce(t0_cupti_ns, t0_monotonic_ns, 0), t0_cupti_ns IS NOT NULL,"
    " (SELECT count(*) FROM kernel WHERE pass_id = p.id),"
    " (SELECT count(*) FROM kernel WHERE pass_id = p.id AND end_ns >= start_ns),"
    " (SELECT count(*) FROM scope_exec WHERE pass_id = p.id),"
    " (SELECT count(*) FROM memop WHERE pass_id = p.id)"
    " + (SELECT count(*) FROM api_call WHERE pass_id = p.id)"
    " FROM wish JOIN pass p ON p.run_id = wish.run WHERE CASE WHEN wish.pass >= 0"
    " THEN p.ordinal = wish.pass ELSE state = 'complete' AND mode IN ('timing', 'bare') END"
    " ORDER BY mode = 'timing' DESC, ordinal DESC LIMIT 1";

struct choice {
    struct ra_export_pass *pass;
    int64_t n_others; /* rows of memop and api_call */
    bool is_made;
};

static int64_t number(const char *text)
{
    return text ? strtoll(text, NULL, 10) : 0;
}

static enum ra_status on_pass(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    (void)err;
    struct choice *choice = context;
    struct ra_export_pass *pass = choice->pass;
    pass->id = number(row->text[0]);
    pass->ordinal = number(row->text[1]);
    snprintf(pass->mode, sizeof pass->mode, "%s", row->text[2] ? row->text[2] : "");
    snprintf(pass->state, sizeof pass->state, "%s", row->text[3] ? row->text[3] : "");
    pass->has_device_clock = number(row->text[6]) != 0;
    pass->n_kernels = number(row->text[7]);
    pass->n_timed = number(row->text[8]);
    pass->n_execs = number(row->text[9]);
    choice->n_others = number(row->text[10]);
    snprintf(pass->query, sizeof pass->query,
             "{\"run\":%" PRId64 ",\"pass\":%" PRId64 ",\"host\":%" PRId64 ",\"device\":%" PRId64
             "}",
             pass->run_id, pass->id, number(row->text[4]), number(row->text[5]));
    choice->is_made = true;
    return RA_OK;
}

static enum ra_status choose(struct ra_store *store, const struct values *values,
                             struct ra_export_pass *pass, struct ra_error *err)
{
    char wish[96];
    const char *sql = choose_sql;
    struct choice choice = {.pass = pass};
    RA_TRY(ra_store_runs(store, values->run, on_run, pass, err));
    snprintf(wish, sizeof wish, "{\"run\":%" PRId64 ",\"pass\":%" PRId64 "}", pass->run_id,
             values->pass);
    RA_TRY(ra_store_select(store, &sql, wish, on_pass, &choice, err));
    if (!choice.is_made && values->pass >= 0)
        return ra_fail(err, RA_EUSAGE, "%s: run %" PRId64 " has no pass %" PRId64, values->db,
                       pass->run_id, values->pass);
    if (!choice.is_made)
        return ra_fail(err, RA_EUSAGE,
                       "%s: run %" PRId64 " has no complete pass with times; --pass names another",
                       values->db, pass->run_id);
    if (pass->n_kernels + pass->n_execs + choice.n_others == 0)
        return ra_fail(err, RA_EUSAGE,
                       "%s: pass %" PRId64 " of run %" PRId64 " (%s, %s): nothing was timed in it",
                       values->db, pass->ordinal, pass->run_id, pass->mode, pass->state);
    return RA_OK;
}

/* A name for the store itself would lose it. */
static enum ra_status check_out(const struct values *values, struct ra_error *err)
{
    struct stat db, out;
    if (values->as == AS_NSYS && !values->out)
        return ra_fail(err, RA_EUSAGE, "export --as nsys: a database; expected -o FILE");
    if (values->out && stat(values->out, &out) == 0 && stat(values->db, &db) == 0 &&
        out.st_dev == db.st_dev && out.st_ino == db.st_ino)
        return ra_fail(err, RA_EUSAGE, "export -o %s: that is the store itself", values->out);
    return RA_OK;
}

static enum ra_status put(FILE *out, int as, struct ra_store *store,
                          const struct ra_export_pass *pass, struct ra_error *err)
{
    return as == AS_CSV ? ra_export_csv(out, store, pass, err)
                        : ra_export_perfetto(out, store, pass, err);
}

static enum ra_status write_out(const struct values *values, struct ra_store *store,
                                const struct ra_export_pass *pass, struct ra_error *err)
{
    struct ra_out_file file;
    if (values->as == AS_NSYS)
        return ra_export_nsys(store, pass->id, values->out, err);
    if (!values->out)
        return put(stdout, values->as, store, pass, err);
    RA_TRY(ra_out_open(&file, values->out, err));
    enum ra_status status = put(file.stream, values->as, store, pass, err);
    if (status == RA_OK && ra_json_starved())
        status = ra_fail(err, RA_ENOMEM, "%s: no memory for names", values->out);
    return ra_out_close(&file, status, err);
}

static void tell(const struct values *values, const struct ra_export_pass *pass)
{
    fprintf(stderr, "rattn-sim: run %" PRId64 ", pass %" PRId64 " (%s, %s)", pass->run_id,
            pass->ordinal, pass->mode, pass->state);
    if (pass->n_kernels > pass->n_timed)
        fprintf(stderr, ", %" PRId64 " of %" PRId64 " kernels without a time",
                pass->n_kernels - pass->n_timed, pass->n_kernels);
    if (values->out)
        fprintf(stderr, ": wrote %s", values->out);
    fputc('\n', stderr);
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct ra_export_pass pass = {0};
    struct ra_store *store;
    RA_TRY(check_out(values, err));
    RA_TRY(ra_store_open(&store, values->db, RA_STORE_READ, err));
    enum ra_status status = choose(store, values, &pass, err);
    if (status == RA_OK)
        status = write_out(values, store, &pass, err);
    enum ra_status closed = ra_store_close(store, status == RA_OK ? err : NULL);
    status = status == RA_OK ? closed : status;
    if (status == RA_OK && !cli->is_quiet)
        tell(values, &pass);
    return status;
}

const struct ra_command ra_cmd_export = {
    .name = "export",
    .summary = "one pass of a run in the formats of other tools",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "perfetto: JSON events for ui.perfetto.dev and chrome://tracing. csv: a row for each "
             "kernel, or for each executed scope where no kernels were recorded. nsys: an SQLite "
             "file with the tables of an Nsight Systems export, for queries written for those; a "
             "file that is there is replaced only if it is an earlier export. Times begin with the "
             "pass, in nsys they are the device's clock.",
};
