/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every status of sim/base/error.h that this version can give and every exit code that its help
 * lists is provoked at least once; one that gets no row here fails the test.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "profiler/gate.h"
#include "profiler/store.h"
#include "sim/cli/interrupt.h"
#include "sim/policy.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/check.h"
#include "traces/safetensors.h"

static char trace_path[600], broken_path[600], db[600];

/* --- statuses ----------------------------------------------------------------------------------
 */

static enum ra_status usage(struct ra_error *err)
{
    struct ra_policy_spec *spec;
    return ra_policy_parse(&spec, "nonesuch:k=1", err);
}

static enum ra_status io(struct ra_error *err)
{
    struct ra_trace *trace;
    return ra_trace_open(&trace, tmp_path(tmp_dir, "absent"), err);
}

static enum ra_status format(struct ra_error *err)
{
    struct ra_trace *trace;
    tmp_write(tmp_path(tmp_dir, "junk"), "no trace, but some bytes", 24);
    return ra_trace_open(&trace, tmp_path(tmp_dir, "junk"), err);
}

static enum ra_status range(struct ra_error *err)
{
    struct ra_st_writer *writer;
    size_t index;
    RA_TRY(ra_st_writer_open(&writer, tmp_path(tmp_dir, "range"), err));
    enum ra_status st = ra_st_writer_tensor(writer, "t", RA_ST_F32, RA_ST_MAX_RANK + 1,
                                            (const uint64_t[RA_ST_MAX_RANK + 1]){0}, &index, err);
    ra_st_writer_close(writer);
    return st;
}

static enum ra_status memory(struct ra_error *err)
{
    struct ra_trace *trace;
    fault_arm(&(struct fault){.op = FAULT_MEMORY, .at = 1, .error = ENOMEM});
    enum ra_status st = ra_trace_open(&trace, trace_path, err);
    fault_disarm();
    return st;
}

static enum ra_status device(struct ra_error *err)
{
#ifdef __aarch64__
    setenv("RATTN_SIMD", "avx2", 1);
#else
    setenv("RATTN_SIMD", "neon", 1);
#endif
    enum ra_status st = ra_backend_find("cpu")->probe(err);
    unsetenv("RATTN_SIMD");
    return st;
}

static enum ra_status store(struct ra_error *err)
{
    struct ra_store *opened;
    return ra_store_open(&opened, trace_path, RA_STORE_READ, err);
}

static enum ra_status diverged(struct ra_error *err)
{
    struct ra_trace *trace;
    struct ra_trace_check_result result;
    RA_TRY(ra_trace_open(&trace, broken_path, err));
    enum ra_status st = ra_trace_check(trace, &result, NULL, NULL, err);
    ra_trace_close(trace);
    return st;
}

static bool stop(void *context, double share)
{
    (void)context;
    (void)share;
    return false;
}

static enum ra_status interrupted(struct ra_error *err)
{
    struct ra_trace *trace;
    struct ra_trace_check_result result;
    RA_TRY(ra_trace_open(&trace, trace_path, err));
    enum ra_status st = ra_trace_check(trace, &result, stop, NULL, err);
    ra_trace_close(trace);
    return st;
}

static enum ra_status not_permitted(struct ra_error *err)
{
    struct ra_gate gate = {.n_tried = 1};
    gate.checks[0] = (struct ra_gate_finding){RA_EPERM, "counters are restricted", "be root"};
    return ra_gate_require(&gate, 1, err);
}

/* NULL: no failure, or (RA_EDEVICE) of devices that this version does not drive. */
static const struct {
    enum ra_status status;
    enum ra_status (*provoke)(struct ra_error *err);
} statuses[] = {
    {RA_OK, NULL},
    {RA_END, NULL},
    {RA_EUSAGE, usage},
    {RA_EIO, io},
    {RA_EFORMAT, format},
    {RA_ERANGE, range},
    {RA_ENOMEM, memory},
    {RA_ENODEV, device},
    {RA_EDEVICE, NULL},
    {RA_ESTORE, store},
    {RA_EDIVERGED, diverged},
    {RA_EINTERRUPTED, interrupted},
    {RA_EPERM, not_permitted},
};

static void test_statuses(void **unused)
{
    (void)unused;
    for (int code = 0; code < 256; code++) {
        bool is_known = strcmp(ra_status_name((enum ra_status)code), "unknown status") != 0;
        bool has_row = false;
        for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
            has_row = has_row || (int)statuses[i].status == code;
        if (is_known != has_row)
            fail_msg("%s (%d): has %s row here", ra_status_name((enum ra_status)code), code,
                     has_row ? "a" : "no");
    }
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        struct ra_error err = {RA_OK, ""};
        if (!statuses[i].provoke)
            continue;
        enum ra_status st = statuses[i].provoke(&err);
        if (st != statuses[i].status || err.code != st || !err.msg[0])
            fail_msg("%s: got %s: '%s'", ra_status_name(statuses[i].status), ra_status_name(st),
                     err.msg);
    }
}

/* --- exit codes --------------------------------------------------------------------------------
 */

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define REPLAY "replay", "synth:case=integer,P=32,N=8", "-p", "full", "-q"

struct ending {
    int code;
    const char *const *words;
    struct fault fault;
    const char *says;
};

static void provoke(const struct ending *ending)
{
    struct fault_outcome outcome = {.code = -1};
    ra_interrupt_flag = 0;
    fault_cli_with(ending->words, &ending->fault, &outcome);
    if (outcome.code != ending->code || !strstr(outcome.said, ending->says))
        fail_msg("exit code %d expected, with '%s', got %d: %s", ending->code, ending->says,
                 outcome.code, outcome.said);
    free(outcome.result);
}

/* The help text is the list. */
static void check_all_have_rows(const struct ending *endings, size_t n)
{
    struct fault_outcome outcome = {.code = -1};
    fault_cli(WORDS("help"), &outcome);
    const char *at = strstr(outcome.result, "Exit codes:\n");
    assert_non_null(at);
    int n_codes = 0;
    while ((at = strchr(at, '\n')) && at[1]) {
        char *end;
        long code = strtol(++at, &end, 10);
        if (end == at)
            continue;
        bool has_row = false;
        for (size_t i = 0; i < n; i++)
            has_row = has_row || endings[i].code == code;
        if (!has_row)
            fail_msg("exit code %ld of the help has no row", code);
        n_codes++;
    }
    assert_int_equal(n_codes, 7);
    free(outcome.result);
}

/* Doubles of the driver and of CUPTI, found by their names once they are loaded. */
static bool load_doubles(void)
{
    static const char *const names[] = {"libcuda.so.1", "libcupti.so.13"};
    char self[512] = "", path[600];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;
    bool loaded = slash != NULL;
    for (size_t i = 0; loaded && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%.*s/../fake_cupti/%s", (int)(slash - self), self, names[i]);
        loaded = dlopen(path, RTLD_NOW) != NULL;
    }
    return loaded;
}

static void test_exit_codes(void **unused)
{
    (void)unused;
    const struct ending endings[] = {
        {0, WORDS("info", trace_path), {0}, ""},
        {1, WORDS("info", "/nonexistent"), {0}, "/nonexistent"},
        {1, WORDS("report", trace_path), {0}, "not an SQLite file"},
        {1, WORDS(REPLAY), {.op = FAULT_MEMORY, .at = 40, .error = ENOMEM}, "memory"},
        {1, WORDS(REPLAY), {.op = FAULT_TEMP, .at = 1, .error = ENOSPC}, "temporary file"},
        {1, WORDS(REPLAY, "-j", "3"), {.op = FAULT_THREAD, .at = 2, .error = EAGAIN}, "thread 3"},
        {2, WORDS("replay", trace_path), {0}, "-p"},
        {2, WORDS("nonesuch"), {0}, "unknown command"},
        {3, WORDS(REPLAY, "--backend", "cuda"), {0}, "cuda: "},
        {3, WORDS("sweep"), {0}, "not in this version"},
        {4, WORDS("info", broken_path, "--verify"), {0}, "broken.safetensors"},
        {130, WORDS(REPLAY, "--db", db), {.op = FAULT_WRITE, .at = 1, .error = FAULT_SIGNAL}, ""},
        {5,
         WORDS(REPLAY, "--backend", "cuda", "--profile", "counters", "--db", db),
         {0},
         "restricted"},
    };
    size_t n = sizeof endings / sizeof *endings;
    for (size_t i = 0; i + 1 < n; i++)
        provoke(&endings[i]);
    setenv("RA_FAKE_CUPTI", "cuptiProfilerGetCounterAvailability=35", 1);
    if (load_doubles()) /* which are there where CUPTI's headers are */
        provoke(&endings[n - 1]);
    unsetenv("RA_FAKE_CUPTI");
    check_all_have_rows(endings, n);
}

static int setup(void **state)
{
    struct tiny_trace t = tiny_trace_default();
    tmp_dir_setup(state);
    snprintf(trace_path, sizeof trace_path, "%s", tmp_path(tmp_dir, "trace.safetensors"));
    snprintf(broken_path, sizeof broken_path, "%s", tmp_path(tmp_dir, "broken.safetensors"));
    snprintf(db, sizeof db, "%s", tmp_path(tmp_dir, "text.db"));
    t.n_check = 2;
    tiny_trace_write(trace_path, &t);
    tiny_trace_write(broken_path, &t);
    tiny_trace_patch(broken_path, "s0.l0.k", 0, "\0\0\200?", 4);
    return 0;
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_exit_codes),
    };
    fault_init();
    return cmocka_run_group_tests_name("fault_codes", tests, setup, tmp_dir_teardown);
}
