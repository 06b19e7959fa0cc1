/* SPDX-License-Identifier: Apache-2.0 */
/* The child that makes the checks, and what its parent hears of it. */
#include "profiler/gate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/cupti/checks.h"

/* What the child writes after each check. */
struct told {
    struct ra_gate_finding finding;
    char chip[32], uuid[48];
};

const char *ra_gate_name(enum ra_gate_check check)
{
    static const char *const names[] = {
        [RA_GATE_DRIVER] = "libcuda.so.1",     [RA_GATE_INIT] = "driver start",
        [RA_GATE_DEVICE] = "NVIDIA device",    [RA_GATE_CUPTI] = "libcupti.so.13",
        [RA_GATE_HOST] = "libnvperf_host",     [RA_GATE_PROFILER] = "CUPTI profiler",
        [RA_GATE_SUPPORTED] = "device counts", [RA_GATE_CHIP] = "chip metrics",
        [RA_GATE_PERMISSION] = "GPU counters",
    };
    return names[check];
}

static bool put(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        at += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* The bytes, or RA_END where there are no more. */
static enum ra_status get(int fd, void *bytes, size_t n, struct ra_error *err)
{
    char *at = bytes;
    while (n > 0) {
        ssize_t got = read(fd, at, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ra_fail(err, RA_EIO, "gate: what its checks found cannot be read: %s",
                           strerror(errno));
        if (got == 0)
            return RA_END;
        at += got;
        n -= (size_t)got;
    }
    return RA_OK;
}

/* A crash within is told by the parent; no core is wanted of it. */
static void be_child(int fd)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGPIPE};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL);
    for (int check = 0; check < RA_GATE_CHECKS; check++) {
        struct told told;
        memset(&told, 0, sizeof told);
        bool holds =
            ra_gate_check_one((enum ra_gate_check)check, &told.finding, told.chip, told.uuid);
        if (!put(fd, &told, sizeof told) || !holds)
            break;
    }
    _exit(0);
}

static void crashed(struct ra_gate *gate, int how)
{
    struct ra_gate_finding *finding = &gate->checks[gate->n_tried++];
    finding->status = RA_ENODEV;
    if (WIFSIGNALED(how))
        snprintf(finding->found, sizeof finding->found, "the check crashed (%s)",
                 strsignal(WTERMSIG(how)));
    else
        snprintf(finding->found, sizeof finding->found, "the check ended the process (exit %d)",
                 WIFEXITED(how) ? WEXITSTATUS(how) : -1);
    snprintf(finding->fix, sizeof finding->fix,
             "install the driver and CUPTI of one CUDA release, or use --profile off");
}

static enum ra_status listen_to(struct ra_gate *gate, int fd, struct ra_error *err)
{
    struct told told;
    enum ra_status st = RA_OK;
    while (gate->n_tried < RA_GATE_CHECKS && (st = get(fd, &told, sizeof told, err)) == RA_OK) {
        gate->checks[gate->n_tried++] = told.finding;
        if (told.chip[0])
            memcpy(gate->chip, told.chip, sizeof gate->chip);
        if (told.uuid[0])
            memcpy(gate->uuid, told.uuid, sizeof gate->uuid);
        if (told.finding.status != RA_OK)
            break;
    }
    return st == RA_END ? RA_OK : st;
}

enum ra_status ra_gate_run(struct ra_gate *gate, struct ra_error *err)
{
    int ends[2], how = 0;
    memset(gate, 0, sizeof *gate);
    if (pipe(ends) != 0)
        return ra_fail(err, RA_EIO, "gate: no pipe to its checks: %s", strerror(errno));
    fflush(NULL); /* what is not yet written must not be written twice */
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        be_child(ends[1]);
    }
    enum ra_status st = RA_OK;
    if (child < 0)
        st = ra_fail(err, RA_EIO, "gate: no process for its checks: %s", strerror(errno));
    close(ends[1]);
    if (child > 0)
        st = listen_to(gate, ends[0], err);
    close(ends[0]);
    while (child > 0 && waitpid(child, &how, 0) < 0 && errno == EINTR)
        continue;
    bool all_hold = gate->n_tried == 0 || gate->checks[gate->n_tried - 1].status == RA_OK;
    if (st == RA_OK && all_hold && gate->n_tried < RA_GATE_CHECKS)
        crashed(gate, how);
    return st;
}

enum ra_status ra_gate_require(const struct ra_gate *gate, int n, struct ra_error *err)
{
    for (int i = 0; i < n && i < gate->n_tried; i++) {
        const struct ra_gate_finding *finding = &gate->checks[i];
        if (finding->status != RA_OK)
            return ra_fail(err, finding->status, "cuda: %s%s%s", finding->found,
                           finding->fix[0] ? "; " : "", finding->fix);
    }
    return RA_OK;
}

const char *ra_gate_other_tool(void)
{
    static const struct {
        const char *variable, *tool;
    } signs[] = {{"NSYS_PROFILING_SESSION_ID", "nsys"},
                 {"NV_NSIGHT_INJECTION_TRANSPORT_TYPE", "ncu"},
                 {"NV_COMPUTE_PROFILER_PERFWORKS_DIR", "ncu"},
                 {"CUDA_INJECTION64_PATH", "an injected CUDA tool"}};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (getenv(signs[i].variable))
            return signs[i].tool;
    return NULL;
}
