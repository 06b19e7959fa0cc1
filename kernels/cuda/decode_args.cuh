/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decode attention is given, and who of a CTA holds what of it.
 */
#ifndef RA_KERNELS_CUDA_DECODE_ARGS_CUH
#define RA_KERNELS_CUDA_DECODE_ARGS_CUH

#include "kernels/cuda/pages.cuh"

enum { RA_DECODE_THREADS = 128, RA_DECODE_WARPS = 4, RA_DECODE_MAX_SPLITS = 256 };

/* All pointers are the device's; what is read through n, self_in and gate may change between two
 * launches of one graph. */
struct ra_decode_args {
    const float *q;         /* [B][Hq][D] */
    const void *k, *v;      /* [B][Hkv][row_stride][D]; paged: [pages][Hkv][RA_PAGE][D] */
    const int32_t *n;       /* [B][Hkv] keys, self_k not counted */
    const int32_t *index;   /* [B][Hkv][index_stride] key i is position index[i]; NULL: i */
    const int32_t *pages;   /* [B][page_stride] position p is slot p % RA_PAGE of page
                             * pages[p / RA_PAGE]; NULL: row p */
    const void *self_k;     /* [B][Hkv][D] one key more, after the n; NULL: none */
    const void *self_v;     /* [B][Hkv][D] */
    const int32_t *self_in; /* [B][Hkv] not 0: self is among the n already; NULL: never */
    const int32_t *gate;    /* [B] run only where it is gate_value; NULL: always */
    float *out;             /* [B][Hq][D] */
    float *lse;             /* [B][Hq] natural log of the sum of weights; NULL: unwanted */
    float *logits;          /* [B][Hq][logit_stride] scaled; self in column n */
    float *partial;         /* [B][Hkv * parts][n_splits][G][D] */
    float *partial_sums;    /* [B][Hkv * parts][n_splits][2][G] largest logit, sum of weights */
    uint32_t *ticket;       /* [B][Hkv * parts] zero; zero again afterwards */
    int64_t row_stride, index_stride, page_stride, logit_stride;
    int32_t window; /* see the last `window` of the n keys; 0: all */
    int32_t gate_value;
    int32_t Hkv, heads; /* KV heads; query heads of each */
    int32_t early; /* not 0: the launch ahead writes nothing of n, index, pages, self_in, gate, and
                    * of k, v, self_k and self_v nothing that is attended to */
    float scale;
};

constexpr int ra_power_of_two_from(int n)
{
    int p = 1;
    while (p < n)
        p *= 2;
    return p;
}

/* Who holds what in a warp. */
template <class T, int D, int G, int R> struct ra_decode_shape {
    static constexpr int kVec = 16 / (int)sizeof(T); /* elements of a lane */
    static constexpr int kLanes = D / kVec;          /* lanes of a row */
    static constexpr int kBytes = D * (int)sizeof(T);
    static constexpr int kGroups = 32 / kLanes; /* rows side by side in a warp */
    static constexpr int kTurn = R * kGroups;   /* rows of a turn */
    static constexpr int kStride = kTurn * RA_DECODE_WARPS;
    /* After the folds a lane holds kKept of its row group's R * kHeads logits; where there are
     * more lanes than logits, kTwins lanes hold the same one. */
    static constexpr int kHeads = ra_power_of_two_from(G);
    static constexpr int kValues = R * kHeads;
    static constexpr int kKept = kValues > kLanes ? kValues / kLanes : 1;
    static constexpr int kTwins = kLanes > kValues ? kLanes / kValues : 1;
    static_assert(kLanes <= 32 && 32 % kLanes == 0 && D % kVec == 0, "a row is at most 512 bytes");
    static_assert(R <= kLanes && R == ra_power_of_two_from(R), "a lane's logits are of one row");
    static_assert(RA_DECODE_MAX_SPLITS <= RA_DECODE_WARPS * D, "the merge's weights fit");
};

#endif
