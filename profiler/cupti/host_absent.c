/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for host.cc where CUPTI's headers are missing. */
#ifndef RA_CUPTI
#include "profiler/counters.h"

static enum ra_status absent(struct ra_error *err)
{
    return ra_fail(err, RA_ENODEV,
                   "cuda: built without CUPTI headers: put nvcc of CUDA 13 into PATH, build again");
}

enum ra_status ra_counter_chips(const char *const **chips, size_t *n, struct ra_error *err)
{
    *chips = NULL;
    *n = 0;
    return absent(err);
}

enum ra_status ra_counter_probe(const char *chip, struct ra_error *err)
{
    (void)chip;
    return absent(err);
}

enum ra_status ra_counter_describe(const char *chip, const char *cupti_name,
                                   struct ra_counter_info *info, struct ra_error *err)
{
    (void)chip, (void)cupti_name, (void)info;
    return absent(err);
}

enum ra_status ra_counter_plan_open(struct ra_counter_plan **plan, const char *chip,
                                    const uint8_t *availability, const char *const *cupti_names,
                                    size_t n, struct ra_error *err)
{
    (void)chip, (void)availability, (void)cupti_names, (void)n;
    *plan = NULL;
    return absent(err);
}

void ra_counter_plan_close(struct ra_counter_plan *plan)
{
    (void)plan;
}

enum ra_status ra_counter_plan_evaluate(const struct ra_counter_plan *plan,
                                        struct ra_counter_data data, size_t range, double *values,
                                        struct ra_error *err)
{
    (void)plan, (void)data, (void)range, (void)values;
    return absent(err);
}

enum ra_status ra_counter_range_name(struct ra_counter_data data, size_t range, char *name,
                                     size_t size, struct ra_error *err)
{
    (void)data, (void)range, (void)name, (void)size;
    return absent(err);
}
#else
extern int ra_host_is_built;
#endif
