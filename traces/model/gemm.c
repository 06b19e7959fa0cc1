/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/gemm.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

/* The numbers of CBLAS: row-major, and whether an operand is transposed. */
enum { ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112 };

typedef void (*sgemm_call)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                           const float *a, int lda, const float *b, int ldb, float beta, float *c,
                           int ldc);

typedef void (*sgemv_call)(int order, int trans, int m, int n, float alpha, const float *a, int lda,
                           const float *x, int inc_x, float beta, float *y, int inc_y);

static struct {
    sgemm_call sgemm; /* NULL: plain */
    sgemv_call sgemv;
    void (*set_threads)(int n);
    char *(*config)(void);
} blas;

static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};

static enum ra_status load(struct ra_error *err)
{
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return ra_fail(err, RA_ENODEV,
                       "%s: expected OpenBLAS, which matrix products need (Debian: "
                       "libopenblas0): %s",
                       names[0], dlerror());
    /* The library stays loaded: its threads outlive every model. */
    *(void **)&blas.sgemm = dlsym(library, "cblas_sgemm");
    *(void **)&blas.sgemv = dlsym(library, "cblas_sgemv");
    *(void **)&blas.set_threads = dlsym(library, "openblas_set_num_threads");
    *(void **)&blas.config = dlsym(library, "openblas_get_config");
    if (!blas.sgemm || !blas.sgemv || !blas.set_threads || !blas.config) {
        blas.sgemm = NULL;
        return ra_fail(err, RA_ENODEV,
                       "%s: expected cblas_sgemm, cblas_sgemv, openblas_set_num_threads and "
                       "openblas_get_config, got a library without one of them",
                       names[0]);
    }
    return RA_OK;
}

enum ra_status ra_gemm_open(enum ra_gemm_kind kind, int n_threads, struct ra_error *err)
{
    if (kind == RA_GEMM_PLAIN) {
        blas.sgemm = NULL;
        return RA_OK;
    }
    if (!blas.sgemm)
        RA_TRY(load(err));
    ra_gemm_threads(n_threads > 0 ? n_threads : (int)sysconf(_SC_NPROCESSORS_ONLN));
    return RA_OK;
}

void ra_gemm_threads(int n)
{
    if (blas.sgemm)
        blas.set_threads(n);
}

const char *ra_gemm_name(void)
{
    return blas.sgemm ? blas.config() : "plain C";
}

void ra_gemm_nt(int m, int n, int k, struct ra_matrix a, struct ra_matrix b, struct ra_matrix c)
{
    if (blas.sgemm && m == 1) {
        /* sgemm would copy all of b into its own order first, for one use. */
        memset(c.at, 0, (size_t)n * sizeof *c.at);
        blas.sgemv(ROW_MAJOR, AS_IS, n, k, 1, b.at, b.stride, a.at, 1, 0, c.at, 1);
        return;
    }
    if (blas.sgemm) {
        blas.sgemm(ROW_MAJOR, AS_IS, TRANSPOSED, m, n, k, 1, a.at, a.stride, b.at, b.stride, 0,
                   c.at, c.stride);
        return;
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const float *x = a.at + (size_t)i * (size_t)a.stride;
            const float *y = b.at + (size_t)j * (size_t)b.stride;
            double sum = 0;
            for (int d = 0; d < k; d++)
                sum += (double)x[d] * (double)y[d];
            c.at[(size_t)i * (size_t)c.stride + (size_t)j] = (float)sum;
        }
}

void ra_gemm_nn(int m, int n, int k, struct ra_matrix a, struct ra_matrix b, struct ra_matrix c)
{
    if (blas.sgemm) {
        blas.sgemm(ROW_MAJOR, AS_IS, AS_IS, m, n, k, 1, a.at, a.stride, b.at, b.stride, 0, c.at,
                   c.stride);
        return;
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const float *x = a.at + (size_t)i * (size_t)a.stride;
            double sum = 0;
            for (int d = 0; d < k; d++)
                sum += (double)x[d] * (double)b.at[(size_t)d * (size_t)b.stride + (size_t)j];
            c.at[(size_t)i * (size_t)c.stride + (size_t)j] = (float)sum;
        }
}
