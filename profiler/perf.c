/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events are opened one by one and inherited: groups cannot be, and threads of a pool are counted
 * only so. Kernel mode is left out, which needs a right that few users have; but the kernel itself
 * switches threads, and without it would count none.
 */
#include "profiler/perf.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/perf_event.h>

#define LLC_READ(result)                                                                           \
    (PERF_COUNT_HW_CACHE_LL | PERF_COUNT_HW_CACHE_OP_READ << 8 |                                   \
     PERF_COUNT_HW_CACHE_RESULT_##result << 16)

static const struct event {
    const char *metric;
    uint64_t config;
    uint32_t type;
    bool of_kernel;
} events[RA_PERF_EVENTS] = {
    [RA_PERF_LLC_LOADS] = {"cpu_llc_loads", LLC_READ(ACCESS), PERF_TYPE_HW_CACHE, false},
    [RA_PERF_LLC_LOAD_MISSES] = {"cpu_llc_load_misses", LLC_READ(MISS), PERF_TYPE_HW_CACHE, false},
    [RA_PERF_INSTRUCTIONS] = {"cpu_instructions", PERF_COUNT_HW_INSTRUCTIONS, PERF_TYPE_HARDWARE,
                              false},
    [RA_PERF_CYCLES] = {"cpu_cycles", PERF_COUNT_HW_CPU_CYCLES, PERF_TYPE_HARDWARE, false},
    [RA_PERF_PAGE_FAULTS] = {"cpu_page_faults", PERF_COUNT_SW_PAGE_FAULTS, PERF_TYPE_SOFTWARE,
                             false},
    [RA_PERF_CONTEXT_SWITCHES] = {"cpu_context_switches", PERF_COUNT_SW_CONTEXT_SWITCHES,
                                  PERF_TYPE_SOFTWARE, true},
};

const char *ra_perf_metric(enum ra_perf_event event)
{
    return events[event].metric;
}

/* --- refusals ----------------------------------------------------------------------------------
 */

static bool read_paranoid(int *value)
{
    FILE *file = fopen("/proc/sys/kernel/perf_event_paranoid", "r");
    bool is_known = file && fscanf(file, "%d", value) == 1;
    if (file)
        fclose(file);
    return is_known;
}

static void explain_permission(const struct event *event, const char *code,
                               struct ra_perf_refusal *refusal)
{
    int value = 0, needed = event->of_kernel ? 1 : 2;
    bool is_known = read_paranoid(&value);
    snprintf(refusal->fix, sizeof refusal->fix,
             "sysctl kernel.perf_event_paranoid=%d as root, or the capability CAP_PERFMON", needed);
    if (!is_known)
        snprintf(refusal->reason, sizeof refusal->reason,
                 "not permitted (%s); kernel.perf_event_paranoid cannot be read", code);
    else
        snprintf(refusal->reason, sizeof refusal->reason,
                 "not permitted (%s): kernel.perf_event_paranoid is %d, expected at most %d", code,
                 value, needed);
    if (!is_known || value > needed)
        return;
    snprintf(refusal->reason, sizeof refusal->reason,
             "not permitted (%s) although kernel.perf_event_paranoid is %d", code, value);
    snprintf(refusal->fix, sizeof refusal->fix,
             "let the container, or the security module, allow the system call perf_event_open");
}

void ra_perf_explain(enum ra_perf_event event, int code, struct ra_perf_refusal *refusal)
{
    static const char *const
        lacks = "not supported by this processor or virtual machine",
        *const elsewhere =
            "run where the processor's counters are visible; a virtual machine needs a virtual PMU";
    static const struct {
        int code;
        const char *name, *reason, *fix; /* reason NULL: a right is missing */
    } known[] = {
        {EACCES, "EACCES", NULL, NULL},
        {EPERM, "EPERM", NULL, NULL},
        {ENOENT, "ENOENT", lacks, elsewhere},
        {EOPNOTSUPP, "EOPNOTSUPP", lacks, elsewhere},
        {ENODEV, "ENODEV", lacks, elsewhere},
        {EINVAL, "EINVAL", lacks, elsewhere},
        {ENOSYS, "ENOSYS", "this kernel counts nothing", "run a kernel with CONFIG_PERF_EVENTS"},
        {EMFILE, "EMFILE", "no file can be opened any more",
         "raise the limit of open files, ulimit -n"},
        {EBUSY, "EBUSY", "another program holds the counters", "run again when it has ended"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].code != code)
            continue;
        if (!known[i].reason) {
            explain_permission(&events[event], known[i].name, refusal);
            return;
        }
        snprintf(refusal->reason, sizeof refusal->reason, "%s (%s)", known[i].reason,
                 known[i].name);
        snprintf(refusal->fix, sizeof refusal->fix, "%s", known[i].fix);
        return;
    }
    snprintf(refusal->reason, sizeof refusal->reason, "%s (errno %d)", strerror(code), code);
    snprintf(refusal->fix, sizeof refusal->fix, "see perf_event_open(2)");
}

/* --- counting ----------------------------------------------------------------------------------
 */

static int open_event(const struct event *event)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = event->type;
    attr.config = event->config;
    attr.inherit = 1;
    attr.exclude_kernel = !event->of_kernel;
    attr.exclude_hv = 1;
    attr.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

int ra_perf_open(struct ra_perf *perf)
{
    int n_open = 0;
    memset(perf, 0, sizeof *perf);
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        perf->fds[i] = open_event(&events[i]);
        if (perf->fds[i] < 0)
            ra_perf_explain((enum ra_perf_event)i, errno, &perf->refusals[i]);
        else
            n_open++;
    }
    return n_open;
}

void ra_perf_close(struct ra_perf *perf)
{
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        if (perf->fds[i] >= 0)
            close(perf->fds[i]);
        perf->fds[i] = -1;
    }
}

enum ra_status ra_perf_read(const struct ra_perf *perf, struct ra_perf_reading *readings,
                            struct ra_error *err)
{
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        readings[i] = (struct ra_perf_reading){0, 0, 0};
        if (perf->fds[i] < 0)
            continue;
        ssize_t got = read(perf->fds[i], &readings[i], sizeof readings[i]);
        if (got != (ssize_t)sizeof readings[i])
            return ra_fail(err, RA_EIO, "%s: expected %zu bytes of its counter, got %zd: %s",
                           events[i].metric, sizeof readings[i], got,
                           got < 0 ? strerror(errno) : "it has stopped");
    }
    return RA_OK;
}

double ra_perf_between(const struct ra_perf_reading *begin, const struct ra_perf_reading *end)
{
    double value = (double)(end->value - begin->value);
    double enabled = (double)(end->enabled_ns - begin->enabled_ns);
    double running = (double)(end->running_ns - begin->running_ns);
    if (running == 0 && enabled > 0)
        return NAN;
    return running < enabled ? value * (enabled / running) : value;
}
