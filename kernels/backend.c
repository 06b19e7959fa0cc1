/* SPDX-License-Identifier: Apache-2.0 */
/* The table of backends, made from backends.def, and what is true of all of them. */
#include "kernels/backend.h"

#include <string.h>

/* One that is not linked has the address NULL, which ends the table. */
#define RA_BACKEND(id) extern const struct ra_backend_ops ra_backend_##id;
#define RA_BACKEND_OPTIONAL(id)                                                                    \
    extern const struct ra_backend_ops ra_backend_##id __attribute__((weak));
#include "kernels/backends.def"
#undef RA_BACKEND
#undef RA_BACKEND_OPTIONAL

#define RA_BACKEND(id) &ra_backend_##id,
#define RA_BACKEND_OPTIONAL(id) RA_BACKEND(id)
const struct ra_backend_ops *const ra_backends[] = {
#include "kernels/backends.def"
    NULL};
#undef RA_BACKEND
#undef RA_BACKEND_OPTIONAL

const struct ra_backend_ops *ra_backend_find(const char *name)
{
    for (size_t i = 0; ra_backends[i]; i++)
        if (strcmp(ra_backends[i]->name, name) == 0)
            return ra_backends[i];
    return NULL;
}

const char *ra_select_name(enum ra_select_mode mode)
{
    static const char *const names[] = {"deferred", "inline", "side"};
    return names[mode];
}

const char *ra_decide_name(enum ra_decide_mode mode)
{
    static const char *const names[] = {"known", "host", "device"};
    return names[mode];
}

double ra_kernel_err_bound(double max_abs_logit)
{
    return 1e-5 + 8 * 0x1p-24 * max_abs_logit;
}
