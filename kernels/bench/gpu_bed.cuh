/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The card's side of a decoding run of one shape: caches of all layers, a recycled cache each, and
 * every operation on them as a function of a stream. Contents are random and known to the host only
 * by reading them back: what is checked is what is timed.
 */
#ifndef RA_KERNELS_BENCH_GPU_BED_CUH
#define RA_KERNELS_BENCH_GPU_BED_CUH

#include "kernels/bench/gpu.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/query.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"

struct gpu_shape {
    const char *model;
    int layers, Hkv, heads, D; /* query heads of a KV head */
    enum ra_dtype dtype;
    int B, L, K;

    int rows() const /* KV heads of all layers and sequences */
    {
        return layers * B * Hkv;
    }
    double full_bytes() const /* of one layer's full step */
    {
        return 2.0 * B * Hkv * L * D * (double)ra_dtype_bytes(dtype);
    }
    double recycled_bytes() const
    {
        return 2.0 * B * Hkv * K * D * (double)ra_dtype_bytes(dtype);
    }
};

/* call(i) for i below n, on all processors. */
void gpu_each(int n, const std::function<void(int)> &call);

/* How keys of a step are found. */
enum gpu_keys { GPU_FULL, GPU_PAGED, GPU_GATHERED, GPU_COMPACT };

/* An attention: logits are kept, or are all that is wanted; it may start before the one ahead has
 * ended; its gate is shut. */
struct gpu_way {
    enum gpu_keys keys;
    bool logits, scores_alone, early;
    bool shut = false;
};

/* Where a layer's operands are, of all sequences. */
struct gpu_layer {
    float *q;              /* [B][Hq][D] */
    const float *out;      /* [B][Hq][D] */
    void *k, *v;           /* [B][Hkv][L][D] */
    void *self_k, *self_v; /* [B][Hkv][D] */
};

class gpu_bed
{
  public:
    gpu_bed(const gpu_shape &shape, const gpu_card &card);

    /* Bytes that a bed of this shape takes. */
    static double memory(const gpu_shape &shape);

    gpu_layer layer(int number) const;

    /* NaN where a step puts its position: self of all rows, and the last of C_f. */
    void forget_new_rows() const;

    /* Attention of one layer, or of all. */
    ra_decode_args attention(int layer, enum gpu_keys keys) const;
    void attend(cudaStream_t stream, int layer, const gpu_way &way) const;
    void attend_all(cudaStream_t stream, const gpu_way &way) const;

    /* From the logits of a layer, or of all where it is -1, to the chosen positions; their order.
     */
    void select(cudaStream_t stream, int layer) const;
    void order(cudaStream_t stream) const;

    /* A set of positions for each row that differs from set 0 in a share `changed`; its number. */
    int make_set(double changed);
    /* C_r of all rows to that set. */
    void plan(cudaStream_t stream, int set) const;
    void move(cudaStream_t stream) const;
    /* Self of all rows into C_r, and into C_f unless it is there. */
    void insert(cudaStream_t stream, bool appends = true) const;
    /* Self of the next insertion is a position later. */
    void advance(cudaStream_t stream) const;
    void cosine(cudaStream_t stream) const;

    /* Largest relative error of 64 outputs against f64 on the host; NaN where one is not written.
     */
    double check_attention(const gpu_way &way);
    /* Outputs that an attention writes. */
    int count_written(const gpu_way &way);
    /* Sampled rows: the worst key off its f64 score, in log space; NaN where the choice is not the
     * exact one of the keys as written. */
    double check_selection();
    /* Rows that C_r has wrong after a refresh to the set. */
    int check_refresh(int set);

    const gpu_shape s;
    int splits[4]; /* by gpu_keys */

  private:
    size_t row_bytes() const
    {
        return (size_t)s.D * ra_dtype_bytes(s.dtype);
    }
    const gpu_array<uint8_t> &k_of(enum gpu_keys by) const
    {
        return by == GPU_COMPACT ? cr_k : k;
    }
    const gpu_array<uint8_t> &v_of(enum gpu_keys by) const
    {
        return by == GPU_COMPACT ? cr_v : v;
    }
    int64_t stored_row(enum gpu_keys by, int row, int i) const;
    std::vector<double> read_rows(const gpu_array<uint8_t> &from, enum gpu_keys by, int row,
                                  int n) const;
    double check_head(const gpu_way &way, int row) const;
    double check_keys(int row, const std::vector<uint32_t> &got) const;

    int64_t queries;           /* of a layer */
    size_t kv_layer, cr_layer; /* bytes of a layer's K in C_f, in C_r */
    size_t n_pages;
    gpu_array<uint8_t> k, v, cr_k, cr_v, self_k, self_v;
    gpu_array<float> q, out, lse, logits, partial, sums;
    gpu_array<int32_t> n_full, n_cr, index, pages, chosen, n_chosen, order_of, set_n;
    gpu_array<int32_t> cache_n, slot_pos, queue, queue_first, queue_n, n_moves, position;
    gpu_array<int32_t> gate; /* [B] 0 */
    std::vector<gpu_array<int32_t>> sets;
    gpu_array<int2> moves;
    ra_select_plan select_plan, layer_plan;
    gpu_array<uint32_t> ticket, keys, select_scratch, layer_scratch;
    gpu_array<double> reference, cosines;
    gpu_array<int32_t> has_reference, fires;
    std::vector<int32_t> host_index, host_pages;
};

#endif
