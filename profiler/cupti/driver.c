/* SPDX-License-Identifier: Apache-2.0 */
#ifdef RA_CUPTI
#include "profiler/cupti/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

/* The header names newer forms of a call by macros: what is looked up is what they say. */
#define SPELLED(name) #name
#define NAME_OF(name) SPELLED(name)

static enum ra_status load(struct ra_driver *driver, struct ra_error *err)
{
    const struct {
        const char *name;
        void **at;
    } calls[] = {
#define X(name) {NAME_OF(name), (void **)&driver->name},
        RA_DRIVER_CALLS(X)
#undef X
    };
    driver->library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver->library)
        return ra_fail(err, RA_ENODEV, "cuda: no NVIDIA driver found: %s", dlerror());
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        *calls[i].at = dlsym(driver->library, calls[i].name);
        if (!*calls[i].at)
            return ra_fail(err, RA_ENODEV, "cuda: libcuda.so.1 has no %s: the driver is too old",
                           calls[i].name);
    }
    return RA_OK;
}

static struct ra_driver loaded;
static struct ra_error why_not;
static enum ra_status outcome;

static void load_once(void)
{
    outcome = load(&loaded, &why_not);
}

enum ra_status ra_driver_load(const struct ra_driver **driver, struct ra_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_once);
    *driver = outcome == RA_OK ? &loaded : NULL;
    if (outcome != RA_OK && err)
        *err = why_not;
    return outcome;
}

const char *ra_driver_result(const struct ra_driver *driver, CUresult result,
                             char text[RA_DRIVER_RESULT_MAX])
{
    const char *name = NULL;
    if (driver->cuGetErrorName(result, &name) != CUDA_SUCCESS || !name)
        name = "CUDA error";
    snprintf(text, RA_DRIVER_RESULT_MAX, "%s (%d)", name, (int)result);
    return text;
}
void ra_driver_spell_uuid(const CUuuid *uuid, char text[RA_DRIVER_UUID_MAX])
{
    const unsigned char *b = (const unsigned char *)uuid->bytes;
    snprintf(text, RA_DRIVER_UUID_MAX,
             "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
}
#else
extern int ra_driver_is_not_built;
#endif
