/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor: what this machine offers, what is missing, and what would mend it. A missing optional
 * part is a finding, not a failure: the exit code is 0 whenever the cpu backend works.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <nettle/version.h>

#include "kernels/backend.h"
#include "profiler/gate.h"
#include "profiler/store.h"
#include "sim/cli/commands.h"
#include "sim/cli/host.h"
#include "sim/cli/output.h"
#include "sim/cli/perf_words.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"

struct values {
    int none;
};

/* Every check appends one row: what was looked at, how it is, what was found, and the fix. */
static void add(json_t *rows, const char *check, bool is_ok, const char *found, const char *fix)
{
    json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s?}", "check", check, "state",
                                          is_ok ? "ok" : "missing", "found", found, "fix",
                                          is_ok ? NULL : fix));
}

static void check_host(json_t *rows)
{
    struct ra_host host;
    char text[160];
    ra_host_describe(&host);
    add(rows, "processor", true, host.cpu, NULL);
    snprintf(text, sizeof text, "%d usable", host.n_cpus);
    add(rows, "processors", true, text, NULL);
    snprintf(text, sizeof text, "%.1f GiB", (double)host.memory_bytes / 0x1p30);
    add(rows, "memory", true, text, NULL);
    add(rows, "NVIDIA driver", *host.nvidia_driver,
        *host.nvidia_driver ? host.nvidia_driver : "no /proc/driver/nvidia/version",
        "only needed by the cuda backend: install the driver of your GPU");
}

static void check_libraries(json_t *rows)
{
    char text[96];
    add(rows, "SQLite", true, ra_store_library(), NULL);
    add(rows, "jansson", true, jansson_version_str(), NULL);
    snprintf(text, sizeof text, "%d.%d", nettle_version_major(), nettle_version_minor());
    add(rows, "nettle", true, text, NULL);
    bool has_toolkit = sizeof RA_CUDA_TOOLKIT > 1;
    add(rows, "CUDA toolkit", has_toolkit,
        has_toolkit ? RA_CUDA_TOOLKIT " when this was built" : "no nvcc when this was built",
        "only needed by the cuda backend: install CUDA 12.4 or newer, build again");
}

/* A program by name in PATH, as a shell would find it. */
static bool find_program(const char *name, char *path, size_t size)
{
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t n = strcspn(at, ":");
        int length = snprintf(path, size, "%.*s/%s", n ? (int)n : 1, n ? at : ".", name);
        if (length > 0 && (size_t)length < size && access(path, X_OK) == 0)
            return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static void check_gnuplot(json_t *rows)
{
    char path[4096];
    bool found = find_program("gnuplot", path, sizeof path);
    add(rows, "gnuplot", found, found ? path : "not in PATH",
        "apt install gnuplot-nox (only figures need it)");
}

/* Replays spool to an unlinked file there, so a file is what is tried. */
static void check_tmpdir(json_t *rows)
{
    const char *folder = getenv("TMPDIR");
    char path[4096], text[4200];
    if (!folder || !*folder)
        folder = "/tmp";
    int n = snprintf(path, sizeof path, "%s/rattn-XXXXXX", folder);
    int fd = -1;
    errno = ENAMETOOLONG;
    if (n > 0 && (size_t)n < sizeof path)
        fd = mkstemp(path);
    bool is_ok = fd >= 0 && write(fd, "x", 1) == 1;
    int why = errno;
    if (fd >= 0) {
        unlink(path);
        close(fd);
    }
    snprintf(text, sizeof text, "%s: %s", folder, is_ok ? "writable" : strerror(why));
    add(rows, "TMPDIR", is_ok, text,
        "set TMPDIR to a folder with free space: replays keep their sets there");
}

/* False when the one backend that everything rests on does not work. */
static bool check_cpu(json_t *rows, char *reason, size_t size)
{
    struct ra_error why = {RA_OK, ""};
    const struct ra_backend_ops *cpu = ra_backend_find("cpu");
    char device[128] = "works";
    bool is_ok = cpu && cpu->probe(&why) == RA_OK;
    if (is_ok && cpu->device)
        cpu->device(device, sizeof device);
    snprintf(reason, size, "%s", cpu ? why.msg : "cpu: not built");
    add(rows, "cpu backend", is_ok, is_ok ? device : reason,
        "this build is broken: make clean all");
    return is_ok;
}

/* Each of the gate's checks; what is behind one that fails is not tried. */
static enum ra_status check_profiling(json_t *rows, struct ra_error *err)
{
    struct ra_gate gate;
    RA_TRY(ra_gate_run(&gate, err));
    for (int i = 0; i < RA_GATE_CHECKS; i++) {
        const struct ra_gate_finding *finding = &gate.checks[i];
        const char *name = ra_gate_name((enum ra_gate_check)i);
        if (i < gate.n_tried)
            add(rows, name, finding->status == RA_OK, finding->found, finding->fix);
        else
            json_array_append_new(rows,
                                  json_pack("{s:s, s:s, s:s, s:n}", "check", name, "state",
                                            "untried", "found", "rests on the one above", "fix"));
    }
    return RA_OK;
}

static void check_perf(json_t *rows)
{
    char found[1024], fix[1024];
    bool is_ok = ra_perf_describe(found, sizeof found, fix, sizeof fix);
    add(rows, "perf counters", is_ok, found, fix);
}

static void print_text(const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        const char *fix = json_string_value(json_object_get(row, "fix"));
        int column = printf("%-8s %-14s ", json_string_value(json_object_get(row, "state")),
                            json_string_value(json_object_get(row, "check")));
        ra_put_wrapped(column, column, json_string_value(json_object_get(row, "found")));
        if (!fix)
            continue;
        column = printf("%23s fix: ", "");
        ra_put_wrapped(column, column, fix);
    }
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    char reason[512];
    json_t *rows = json_array();
    (void)arguments;
    if (!rows)
        return ra_fail(err, RA_ENOMEM, "no memory for a list");
    bool works = check_cpu(rows, reason, sizeof reason);
    check_host(rows);
    check_libraries(rows);
    check_perf(rows);
    enum ra_status status = check_profiling(rows, err);
    check_gnuplot(rows);
    check_tmpdir(rows);
    if (status != RA_OK) {
        json_decref(rows);
        return status;
    }
    if (cli->format == RA_FORMAT_TEXT)
        print_text(rows);
    else if (cli->format == RA_FORMAT_CSV)
        status = ra_report_csv(stdout, rows, err);
    else
        status = ra_put_json(rows, err);
    json_decref(rows);
    return status != RA_OK || works ? status : ra_fail(err, RA_ENODEV, "%s", reason);
}

const struct ra_command ra_cmd_doctor = {
    .name = "doctor",
    .summary = "what this machine offers, what is missing, and the fix",
    .run = run,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
};
