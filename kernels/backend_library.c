/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backends that come as libraries, so that the program needs no toolkit and carries no kernels of
 * devices that are not there.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"

static const char CUDA_LIBRARY[] = "librattn_cuda.so";

/* Beside the program as built, then where it is installed. False: there is none. */
static bool find_library(const char *file, char *path, size_t size)
{
    static const char *const folders[] = {"", "../lib/rattn-sim/"};
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0)
        return false;
    program[n] = '\0';
    char *name = strrchr(program, '/');
    int folder = name ? (int)(name - program) + 1 : 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        int length = snprintf(path, size, "%.*s%s%s", folder, program, folders[i], file);
        if (length > 0 && (size_t)length < size && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

static enum ra_status load(const char *file, const char *table, const struct ra_backend_ops **ops,
                           struct ra_error *err)
{
    char path[PATH_MAX + 64];
    if (!find_library(file, path, sizeof path))
        return ra_fail(err, RA_ENODEV, "cuda: no %s beside this program; building it needs nvcc",
                       file);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return ra_fail(err, RA_ENODEV, "cuda: %s", dlerror());
    const uint64_t *abi = dlsym(library, "ra_backend_abi");
    *ops = dlsym(library, table);
    if (*ops && abi && *abi == RA_BACKEND_ABI)
        return RA_OK;
    *ops = NULL;
    dlclose(library);
    return ra_fail(err, RA_ENODEV, "cuda: %s is of another version of rattn-sim; build both anew",
                   path);
}

enum ra_status ra_backend_load(const char *name, const struct ra_backend_ops **ops,
                               struct ra_error *err)
{
    static const struct ra_backend_ops *cuda;
    *ops = ra_backend_find(name);
    if (*ops || strcmp(name, "cuda") != 0)
        return RA_OK;
    if (!cuda)
        RA_TRY(load(CUDA_LIBRARY, "ra_backend_cuda", &cuda, err));
    *ops = cuda;
    return RA_OK;
}
