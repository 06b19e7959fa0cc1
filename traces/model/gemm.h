/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products in f32: OpenBLAS, loaded when first needed, so that commands without a model
 * never start its threads; or plain C, whose sums run in one order and are the same on every
 * machine.
 */
#ifndef RA_TRACES_MODEL_GEMM_H
#define RA_TRACES_MODEL_GEMM_H

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_gemm_kind { RA_GEMM_BLAS, RA_GEMM_PLAIN };

/* Choose for the process, before any product. RA_ENODEV naming the library where BLAS cannot be
 * loaded. n_threads 0: as many as there are processors. */
RA_MUST_CHECK enum ra_status ra_gemm_open(enum ra_gemm_kind kind, int n_threads,
                                          struct ra_error *err);

/* Threads of the products that follow; of BLAS only. */
void ra_gemm_threads(int n);

/* "OpenBLAS 0.3.21 …" or "plain C". */
const char *ra_gemm_name(void);

/* Row-major; consecutive rows are `stride` floats apart. */
struct ra_matrix {
    float *at;
    int stride;
};

/* c [m][n] = a [m][k] times b [n][k] transposed: a's rows are vectors, b's the weights of one
 * output each. a and b are only read. */
void ra_gemm_nt(int m, int n, int k, struct ra_matrix a, struct ra_matrix b, struct ra_matrix c);

/* c [m][n] = a [m][k] times b [k][n]. */
void ra_gemm_nn(int m, int n, int k, struct ra_matrix a, struct ra_matrix b, struct ra_matrix c);

#ifdef __cplusplus
}
#endif

#endif
