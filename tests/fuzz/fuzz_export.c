/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small replay of a trace whose names are the input's, exported to a path of the input's. A byte
 * of switches, then texts with a NUL between: path, file name of the trace, model, token types,
 * schedule, policies (a line each). Rules: what is reported as written is there and reads back,
 * nothing else is left, names come out of every format as text.
 */
#include "tests/fuzz/fuzz.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "sim/cli/commands.h"
#include "traces/safetensors.h"

enum { MAX_NAME_TEXT = 600, MAX_POLICIES = 3, P = 4, N = 3, W = 2, HQ = 2, D = 8 };
enum { SWITCH_CSV = 1, SWITCH_JSON = 2, SWITCH_TYPES = 4, SWITCH_STORE = 8, SWITCH_LAYERS = 16 };

struct names {
    char path[MAX_NAME_TEXT], trace[128], model[MAX_NAME_TEXT], types[MAX_NAME_TEXT],
        schedule[MAX_NAME_TEXT], policies[2048];
};

/* Nothing leaves the folder: ".." goes, as does a slash where one is too many. */
static void confine(char *text, bool is_name)
{
    for (char *at; (at = strstr(text, ".."));)
        *at = '_';
    for (char *at = text; is_name && (at = strchr(at, '/'));)
        *at = '_';
}

/* --- the trace ---------------------------------------------------------------------------------
 */

static enum ra_status put_metadata(struct ra_st_writer *writer, const struct names *names,
                                   struct ra_error *err)
{
    const char *const pairs[][2] = {{"format", "rattn-trace"},
                                    {"version", "1.0"},
                                    {"model.id", names->model},
                                    {"n_layers", "2"},
                                    {"layers", "0,1"},
                                    {"n_q_heads", "2"},
                                    {"n_kv_heads", "1"},
                                    {"head_dim", "8"},
                                    {"attn_scale", "0.25"},
                                    {"n_seq", "1"},
                                    {"s0.prompt_len", "4"},
                                    {"s0.decode_len", "3"},
                                    {"s0.q_tail", "2"},
                                    {"rope.type", "none"},
                                    {"token_types", names->types},
                                    {"s0.schedule", names->schedule}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        RA_TRY(ra_st_writer_metadata(writer, pairs[i][0], pairs[i][1], err));
    return RA_OK;
}

static enum ra_status put_tensors(struct ra_st_writer *writer, struct ra_error *err)
{
    static const char *const parts[] = {"s0.l0.k", "s0.l0.v", "s0.l0.q",
                                        "s0.l1.k", "s0.l1.v", "s0.l1.q"};
    const uint64_t kv[] = {1, P + N, D}, q[] = {HQ, W + N, D}, types[] = {P + N};
    const uint8_t type[P + N] = {0};
    size_t index[6], last;
    float values[HQ * (P + N) * D];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)(i * 7 % 17) / 8 - 1;
    for (int i = 0; i < 6; i++)
        RA_TRY(ra_st_writer_tensor(writer, parts[i], RA_ST_F32, 3, i % 3 == 2 ? q : kv, &index[i],
                                   err));
    RA_TRY(ra_st_writer_tensor(writer, "s0.token_type", RA_ST_U8, 1, types, &last, err));
    RA_TRY(ra_st_writer_begin(writer, err));
    for (int i = 0; i < 6; i++) {
        size_t n = i % 3 == 2 ? HQ * (W + N) * D : (P + N) * D;
        RA_TRY(ra_st_writer_put(writer, index[i], 0, values, n * sizeof *values, err));
    }
    RA_TRY(ra_st_writer_put(writer, last, 0, type, sizeof type, err));
    return ra_st_writer_commit(writer, err);
}

static enum ra_status make_trace(const char *path, const struct names *names, struct ra_error *err)
{
    struct ra_st_writer *writer;
    RA_TRY(ra_st_writer_open(&writer, path, err));
    enum ra_status status = put_metadata(writer, names, err);
    if (status == RA_OK)
        status = put_tensors(writer, err);
    ra_st_writer_close(writer);
    return status;
}

/* --- what is left ------------------------------------------------------------------------------
 */

static int n_files, n_exports;
static const char *wanted_trace;

static int look_at(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)at;
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_st_file *file;
    if (type != FTW_F)
        return 0;
    n_files++;
    FUZZ_CHECK(ra_st_open(&file, path, &err) == RA_OK, "%s", err.msg);
    const char *format = ra_st_metadata(file, "format"), *trace = ra_st_metadata(file, "trace");
    FUZZ_CHECK(format && strcmp(format, "rattn-export") == 0, "%s", path);
    FUZZ_CHECK(trace && strcmp(trace, wanted_trace) == 0, "%s: %s", path, trace);
    FUZZ_CHECK(ra_st_find(file, "attended") && ra_st_find(file, "out"), "%s", path);
    n_exports++;
    ra_st_close(file);
    return 0;
}

static void check_files(enum ra_status status, const char *trace, int n_policies)
{
    n_files = n_exports = 0;
    wanted_trace = trace;
    nftw(fuzz_path("exports"), look_at, 8, FTW_PHYS);
    FUZZ_CHECK(n_files == (status == RA_OK ? n_policies : 0), "%d files, %d policies, %s", n_files,
               n_policies, ra_status_name(status));
}

/* --- inputs ------------------------------------------------------------------------------------
 */

static void replay(const struct names *names, const char *trace, uint8_t how)
{
    struct ra_error err;
    const char *out, *words[24] = {"replay", trace, "-q", "-j1", "--repeat=1", "--export"};
    char path[MAX_NAME_TEXT + 512], policies[sizeof names->policies], *rest = policies;
    int n = 6, n_policies = 0;
    snprintf(path, sizeof path, "%s/%s", fuzz_path("exports"), names->path);
    words[n++] = path;
    words[n++] = how & SWITCH_CSV    ? "--format=csv"
                 : how & SWITCH_JSON ? "--format=json"
                                     : "--format=text";
    if (how & SWITCH_TYPES)
        words[n++] = "--by-type";
    if (how & SWITCH_LAYERS)
        words[n++] = "--layers=1";
    const char *store = fuzz_path("work/store.db");
    if (how & SWITCH_STORE) {
        words[n++] = "--db";
        words[n++] = store;
    }
    memcpy(policies, names->policies, sizeof policies);
    for (char *line; n_policies < MAX_POLICIES && (line = strsep(&rest, "\n")); n_policies++) {
        words[n++] = "-p";
        words[n++] = line;
    }
    enum ra_status status = fuzz_run(&ra_cmd_replay, n, words, &out, &err);
    check_files(status, trace, n_policies);
    if (status == RA_OK && how & SWITCH_STORE) {
        const char *list[] = {"list", "runs", store, "-v"}, *report[] = {"report", store, "-q"};
        FUZZ_CHECK(fuzz_run(&ra_cmd_list, 4, list, &out, &err) == RA_OK, "%s", err.msg);
        FUZZ_CHECK(fuzz_run(&ra_cmd_report, 3, report, &out, &err) == RA_OK, "%s", err.msg);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct names names;
    struct fuzz_input input = {data, size};
    struct ra_error err = FUZZ_NO_ERROR;
    char trace[1024];
    uint8_t how = fuzz_take_byte(&input);
    fuzz_take_text(&input, names.path, sizeof names.path);
    fuzz_take_text(&input, names.trace, sizeof names.trace);
    fuzz_take_text(&input, names.model, sizeof names.model);
    fuzz_take_text(&input, names.types, sizeof names.types);
    fuzz_take_text(&input, names.schedule, sizeof names.schedule);
    fuzz_take_text(&input, names.policies, sizeof names.policies);
    confine(names.path, false);
    confine(names.trace, true);
    fuzz_clean("exports");
    snprintf(trace, sizeof trace, "%s/t%s", fuzz_clean("work"), names.trace);
    enum ra_status status = make_trace(trace, &names, &err);
    fuzz_check_error(status, &err);
    if (status == RA_OK)
        replay(&names, trace, how);
    return 0;
}
