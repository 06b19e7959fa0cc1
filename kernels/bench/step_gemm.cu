/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bench/step.cuh"

#ifdef __CUDACC__

#include <dlfcn.h>
#include <library_types.h>

#include <string>

/* cuBLAS's numbers; its headers need not be there. */
enum { NOT_TRANSPOSED = 0, TRANSPOSED = 1, COMPUTE_F32 = 68, ANY_ALGORITHM = -1, SUCCESS = 0 };
typedef int (*create_fn)(void **);
typedef int (*set_stream_fn)(void *, cudaStream_t);
typedef int (*set_workspace_fn)(void *, void *, size_t);
typedef int (*gemm_fn)(void *, int, int, int, int, int, const void *, const void *, cudaDataType,
                       int, const void *, cudaDataType, int, const void *, void *, cudaDataType,
                       int, int, int);

static set_stream_fn set_stream;
static set_workspace_fn set_workspace;

static void succeeded(int status, const char *call)
{
    if (status == SUCCESS)
        return;
    fprintf(stderr, "cuBLAS: %s: status %d\n", call, status);
    exit(1);
}

/* RA_CUBLAS names the file; its companion lies beside it. */
static void *open_cublas()
{
    const char *named = getenv("RA_CUBLAS");
    std::string tried;
    if (named && *named) {
        std::string companion = named;
        size_t at = companion.rfind("libcublas.");
        if (at != std::string::npos)
            dlopen(companion.replace(at, 9, "libcublasLt").c_str(), RTLD_NOW | RTLD_GLOBAL);
        if (void *library = dlopen(named, RTLD_NOW))
            return library;
        tried = std::string(dlerror()) + ", ";
    }
    for (const char *name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
        if (void *library = dlopen(name, RTLD_NOW))
            return library;
        tried += std::string(name) + " ";
    }
    fprintf(stderr, "no cuBLAS for the products of a step: tried %s; RA_CUBLAS may name it\n",
            tried.c_str());
    exit(3);
}

static void *function(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found)
        return found;
    fprintf(stderr, "cuBLAS: expected a function %s, found none\n", name);
    exit(3);
}

step_gemm::step_gemm() : workspace((size_t)64 << 20)
{
    void *library = open_cublas();
    create_fn create = (create_fn)function(library, "cublasCreate_v2");
    set_stream = (set_stream_fn)function(library, "cublasSetStream_v2");
    set_workspace = (set_workspace_fn)function(library, "cublasSetWorkspace_v2");
    call = function(library, "cublasGemmEx");
    succeeded(create(&handle), "cublasCreate");
}

/* Choosing a stream resets the workspace, and one of cuBLAS's own cannot be had in a capture. */
void step_gemm::use(cudaStream_t stream) const
{
    succeeded(set_stream(handle, stream), "cublasSetStream");
    succeeded(set_workspace(handle, workspace.get(), workspace.bytes()), "cublasSetWorkspace");
}

/* Row-major arrays are cuBLAS's transposed ones. */
void step_gemm::multiply(cudaStream_t, const __nv_bfloat16 *w, const __nv_bfloat16 *x,
                         __nv_bfloat16 *y, int rows, int columns, int B) const
{
    const float one = 1, zero = 0;
    succeeded(((gemm_fn)call)(handle, TRANSPOSED, NOT_TRANSPOSED, rows, B, columns, &one, w,
                              CUDA_R_16BF, columns, x, CUDA_R_16BF, columns, &zero, y, CUDA_R_16BF,
                              rows, COMPUTE_F32, ANY_ALGORITHM),
              "cublasGemmEx");
}

#else

/* A thread a product. */
static __global__ void multiply_plain(const __nv_bfloat16 *w, const __nv_bfloat16 *x,
                                      __nv_bfloat16 *y, int rows, int columns)
{
    int row = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (row >= rows)
        return;
    float sum = 0;
    for (int i = 0; i < columns; i++)
        sum += __bfloat162float(ra_ld(w + (int64_t)row * columns + i)) *
               __bfloat162float(ra_ld(x + (int64_t)blockIdx.y * columns + i));
    ra_st(y + (int64_t)blockIdx.y * rows + row, __float2bfloat16_rn(sum));
}

step_gemm::step_gemm()
{
}

void step_gemm::use(cudaStream_t) const
{
}

void step_gemm::multiply(cudaStream_t stream, const __nv_bfloat16 *w, const __nv_bfloat16 *x,
                         __nv_bfloat16 *y, int rows, int columns, int B) const
{
    GPU(ra_launch(multiply_plain, dim3((unsigned)(rows + 63) / 64, (unsigned)B), 64, 0, stream, w,
                  x, y, rows, columns));
}

#endif
