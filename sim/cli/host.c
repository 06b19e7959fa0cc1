/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc and sysconf. Everything is optional: a system that hides a figure is no failure. */
#include "sim/cli/host.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/cache.h"

/* Copy the rest of the first line that starts with one of two keys, after ": ". */
static bool find_line(const char *path, const char *key, const char *other, char *out, size_t size)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0 && strncmp(line, other, strlen(other)) != 0)
            continue;
        const char *value = strchr(line, ':');
        if (!value)
            continue;
        value += 1 + strspn(value + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
        found = true;
    }
    if (file)
        fclose(file);
    return found;
}

static uint64_t sysconf_or_zero(int name)
{
    long value = sysconf(name);
    return value > 0 ? (uint64_t)value : 0;
}

void ra_host_describe(struct ra_host *host)
{
    memset(host, 0, sizeof *host);
    /* Arm's /proc/cpuinfo has no model name; the part number is the best there is. */
    if (!find_line("/proc/cpuinfo", "model name", "CPU part", host->cpu, sizeof host->cpu))
        snprintf(host->cpu, sizeof host->cpu, "unknown");
    cpu_set_t set;
    host->n_cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                               : (int)sysconf(_SC_NPROCESSORS_ONLN);
    host->memory_bytes = sysconf_or_zero(_SC_PHYS_PAGES) * sysconf_or_zero(_SC_PAGESIZE);
    host->llc_bytes = ra_cache_bytes();
    find_line("/proc/driver/nvidia/version", "NVRM version", "NVRM version", host->nvidia_driver,
              sizeof host->nvidia_driver);
}
