/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole decode step of a model: its layers' other operations around our attention, on random
 * weights. What a schedule saves is judged on this, not on attention alone.
 */
#ifndef RA_KERNELS_BENCH_STEP_CUH
#define RA_KERNELS_BENCH_STEP_CUH

#include <memory>

#include "kernels/bench/gpu_bed.cuh"

/* A dense decoder: RMSNorm, grouped queries with RoPE, gated MLP with SiLU. */
struct step_shape {
    const char *model;
    int layers, Hkv, heads, D, hidden, ffn, vocab;
    bool has_bias; /* of QKV */
    float rope_base;
    int B, L, K;

    int qkv() const
    {
        return (Hkv * heads + 2 * Hkv) * D;
    }
    gpu_shape attention() const
    {
        return {model, layers, Hkv, heads, D, RA_BF16, B, L, K};
    }
    double layer_weights() const /* elements */
    {
        double h = hidden;
        return h * qkv() + (double)Hkv * heads * D * h + 3 * h * ffn + 2 * h +
               (has_bias ? qkv() : 0);
    }
    double weight_bytes() const
    {
        return 2 * (layers * layer_weights() + (double)hidden * vocab + hidden);
    }
};

/* y [B][rows] = x [B][columns] w^T, w [rows][columns]; bf16, summed in f32. On a card by cuBLAS,
 * which is opened at run time; in emulation by a plain kernel. */
class step_gemm
{
    void *handle = nullptr, *call = nullptr;
    gpu_array<uint8_t> workspace;

  public:
    step_gemm(); /* exits with 3 and what was looked for where cuBLAS is not to be had */
    void use(cudaStream_t stream) const; /* before a capture on it */
    void multiply(cudaStream_t stream, const __nv_bfloat16 *w, const __nv_bfloat16 *x,
                  __nv_bfloat16 *y, int rows, int columns, int B) const;
};

/* The operations between products. residual is f32, activations are bf16. */
struct step_operations {
    static void normalize(cudaStream_t stream, const float *residual, const __nv_bfloat16 *weight,
                          __nv_bfloat16 *y, int n, int B);
    /* Bias, RoPE at position L - 1, rows to where attention looks: q, self, and the last of C_f. */
    static void rotate(cudaStream_t stream, const step_shape &s, const __nv_bfloat16 *qkv,
                       const __nv_bfloat16 *bias, const gpu_layer &to);
    static void narrow(cudaStream_t stream, const float *x, __nv_bfloat16 *y, int n);
    static void add(cudaStream_t stream, const __nv_bfloat16 *x, float *residual, int n);
    /* gate [B][2][n]: y = silu(first) * second */
    static void gate(cudaStream_t stream, const __nv_bfloat16 *gate_up, __nv_bfloat16 *y, int n,
                     int B);
    static void fill(__nv_bfloat16 *to, uint64_t n, uint64_t seed, float scale);
};

/* What a step's attention is. */
enum step_kind { STEP_FULL, STEP_REFRESH, STEP_RECYCLED, STEP_REST };

class step_model
{
  public:
    step_model(const step_shape &shape, const gpu_card &card, const step_gemm &gemm);
    static double memory(const step_shape &shape);

    /* A step of the first n_layers; all of them and the vocabulary where n_layers is `layers`. A
     * refresh is to one of two sets, 0 and 1, of which 70 % are the same. */
    void record(cudaStream_t stream, enum step_kind kind, int n_layers, int set = 0) const;

    /* Relative error against f64 on the host of what the first layer adds to the residual, or of
     * the keys and values it makes, whichever is larger; NaN where one is not written. */
    double check(enum step_kind kind);
    /* Is every value after a whole step a number? */
    bool is_finite(enum step_kind kind);

    const step_shape s;

  private:
    struct layer {
        gpu_array<__nv_bfloat16> before, qkv, bias, o, after, gate_up, down;
    };
    void record_layer(cudaStream_t stream, enum step_kind kind, int number) const;
    void start();

    double check_new_rows(int sequence, const std::vector<double> &keys,
                          const std::vector<double> &values) const;
    std::vector<float> run_first(enum step_kind kind, int sequence);
    std::vector<double> attend_on_host(enum step_kind kind, int sequence,
                                       const std::vector<double> &q) const;

    const step_gemm &gemm;
    gpu_bed bed;
    int other; /* set than 0 */
    std::vector<layer> layers;
    gpu_array<__nv_bfloat16> last_norm, vocabulary, x, wide, heads, y, logits;
    gpu_array<float> residual;
    std::vector<float> first_residual;
};

#endif
