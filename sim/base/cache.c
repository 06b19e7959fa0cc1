/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /sys/devices/system/cpu/cpu0/cache, then asks the C library. */
#include "sim/base/cache.h"

#include <stdio.h>
#include <unistd.h>

/* "32768K" or "1M"; 0 for anything else. */
static size_t size_in(const char *path)
{
    unsigned long number = 0;
    char unit = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    int n = fscanf(file, "%lu%c", &number, &unit);
    fclose(file);
    if (n < 1)
        return 0;
    return (size_t)number << (n == 2 && unit == 'K' ? 10 : n == 2 && unit == 'M' ? 20 : 0);
}

size_t ra_cache_bytes(void)
{
    size_t largest = 0;
    for (int index = 0; index < 8; index++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        size_t size = size_in(path);
        largest = size > largest ? size : largest;
    }
    if (largest > 0)
        return largest;
    long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return l3 > 0 ? (size_t)l3 : l2 > 0 ? (size_t)l2 : 0;
}
