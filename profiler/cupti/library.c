/* SPDX-License-Identifier: Apache-2.0 */
#ifdef RA_CUPTI
#include "profiler/cupti/library.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char file_name[] = "libcupti.so.13";

#ifdef __SANITIZE_ADDRESS__
/* libcupti opens its other half with RTLD_DEEPBIND, at which the sanitizer ends the program. */
void *dlopen(const char *path, int mode)
{
    void *(*next)(const char *, int);
    void *found = dlsym(RTLD_NEXT, "dlopen");
    memcpy(&next, &found, sizeof next);
    return next(path, mode & ~RTLD_DEEPBIND);
}
#endif

/* Where toolkits put it, should the loader not know. */
static void *open_somewhere(void)
{
    const char *home = getenv("CUDA_HOME");
    const char *const roots[] = {home && *home ? home : "/usr/local/cuda", "/usr/local/cuda"};
    const char *const folders[] = {"lib64", "extras/CUPTI/lib64", "lib"};
    void *library = dlopen(file_name, RTLD_NOW);
    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++)
        for (size_t f = 0; f < sizeof folders / sizeof *folders && !library; f++) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s/%s", roots[r], folders[f], file_name);
            library = dlopen(path, RTLD_NOW);
        }
    return library;
}

static void find_path(struct ra_cupti *cupti)
{
    struct link_map *map = NULL;
    if (dlinfo(cupti->library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name)
        snprintf(cupti->path, sizeof cupti->path, "%s", map->l_name);
}

/* Once loaded by its path it is found by its name. Its absence shows in the first host call. */
static void load_host_library(const struct ra_cupti *cupti)
{
    char path[sizeof cupti->path + 32];
    const char *slash = strrchr(cupti->path, '/');
    int n = slash ? (int)(slash - cupti->path + 1) : 0;
    snprintf(path, sizeof path, "%.*slibnvperf_host.so", n, cupti->path);
    if (n > 0)
        (void)dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

static enum ra_status find_calls(struct ra_cupti *cupti, struct ra_error *err)
{
    const struct {
        const char *name;
        void **at;
    } calls[] = {
#define RA_CUPTI_CALL(name) {#name, (void **)&cupti->name},
#include "profiler/cupti/calls.def"
#undef RA_CUPTI_CALL
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        *calls[i].at = dlsym(cupti->library, calls[i].name);
        if (!*calls[i].at)
            return ra_fail(err, RA_ENODEV,
                           "cuda: %s has no %s: expected CUPTI of CUDA 13.0 or newer",
                           cupti->path[0] ? cupti->path : file_name, calls[i].name);
    }
    return RA_OK;
}

static enum ra_status load(struct ra_cupti *cupti, struct ra_error *err)
{
    cupti->library = open_somewhere();
    if (!cupti->library)
        return ra_fail(err, RA_ENODEV,
                       "cuda: %s not found: the loader does not know it, nor is it in the CUDA "
                       "toolkit's folders",
                       file_name);
    find_path(cupti);
    load_host_library(cupti);
    RA_TRY(find_calls(cupti, err));
    if (cupti->cuptiGetVersion(&cupti->version) != CUPTI_SUCCESS)
        cupti->version = 0;
    if (cupti->version < 130000)
        return ra_fail(err, RA_ENODEV, "cuda: %s: expected API version 130000 or newer, got %u",
                       cupti->path, (unsigned)cupti->version);
    return RA_OK;
}

static struct ra_cupti loaded;
static struct ra_error why_not;
static enum ra_status outcome;

static void load_once(void)
{
    outcome = load(&loaded, &why_not);
}

enum ra_status ra_cupti_load(const struct ra_cupti **cupti, struct ra_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_once);
    *cupti = outcome == RA_OK ? &loaded : NULL;
    if (outcome != RA_OK && err)
        *err = why_not;
    return outcome;
}

void *ra_cupti_symbol(const struct ra_cupti *cupti, const char *name)
{
    return dlsym(cupti->library, name);
}

const char *ra_cupti_result(const struct ra_cupti *cupti, CUptiResult result,
                            char text[RA_CUPTI_RESULT_MAX])
{
    const char *name = NULL;
    if (cupti->cuptiGetResultString(result, &name) != CUPTI_SUCCESS || !name)
        name = "CUPTI error";
    snprintf(text, RA_CUPTI_RESULT_MAX, "%s (%d)", name, (int)result);
    return text;
}
#else
extern int ra_cupti_is_not_built;
#endif
