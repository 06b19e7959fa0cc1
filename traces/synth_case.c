/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases with provable properties. The first dimensions carry the signal; of the others, keys use
 * the even ones and queries the odd ones, so that rows look alive while every product of them is
 * exactly zero. Stored queries are 8 times the wanted logit, which attn_scale = 1/8 takes back.
 */
#include "traces/synth_case.h"

#include "sim/base/rng.h"

enum { BACK = 8 }; /* 1 / RA_SYNTH_SCALE */

int ra_synth_bits(int32_t n)
{
    int bits = 0;
    while (n >> bits)
        bits++;
    return bits;
}

int ra_synth_peak(int32_t P, int32_t N)
{
    /* e^(bits + 5) > 148 * 2^bits > 99 * (P + N): a share of at least 0.99. */
    return ra_synth_bits(P + N) + 5;
}

int32_t ra_synth_needle(int32_t P)
{
    return P / 3;
}

bool ra_synth_needle_step(int32_t t)
{
    return (t & 3) == 3;
}

int32_t ra_synth_drift(int32_t P, int32_t t)
{
    int32_t n = P / RA_SYNTH_DRIFT_WIDTH, block = (n / 4 + t % n) % n;
    return (block < 0 ? block + n : block) * RA_SYNTH_DRIFT_WIDTH;
}

/* Binary digits that tell blocks of the drift apart. */
static int drift_digits(const struct ra_synth_case_params *params)
{
    return ra_synth_bits((params->P + params->N) / RA_SYNTH_DRIFT_WIDTH);
}

static int n_signal(const struct ra_synth_case_params *params)
{
    switch ((enum ra_synth_case)params->which) {
    case RA_SYNTH_NEEDLE:
    case RA_SYNTH_SINK:
        return 1;
    case RA_SYNTH_DRIFT:
        return drift_digits(params);
    case RA_SYNTH_FLAT:
        return 0;
    case RA_SYNTH_INTEGER:
        return params->D;
    }
    return 0;
}

enum ra_status ra_synth_case_check(const struct ra_synth_case_params *params, const char *where,
                                   struct ra_error *err)
{
    if (params->which == RA_SYNTH_DRIFT && params->P < 2 * RA_SYNTH_DRIFT_WIDTH)
        return ra_fail(err, RA_EUSAGE, "%s P: expected at least %d for case=drift, got %d", where,
                       2 * RA_SYNTH_DRIFT_WIDTH, params->P);
    if (params->which == RA_SYNTH_DRIFT && params->D < n_signal(params) + 2)
        return ra_fail(err, RA_EUSAGE,
                       "%s D: expected at least %d for case=drift and %d positions, "
                       "got %d",
                       where, n_signal(params) + 2, params->P + params->N, params->D);
    return RA_OK;
}

/* Binary digit d of a drift block, as -1 or 1. */
static float digit(int32_t block, int d)
{
    return block >> d & 1 ? 1.0f : -1.0f;
}

static void signal_key(const struct ra_synth_case_params *params, int32_t pos, float *out)
{
    if (params->which == RA_SYNTH_NEEDLE)
        out[0] = pos == ra_synth_needle(params->P) ? 1.0f : 0.0f;
    if (params->which == RA_SYNTH_SINK)
        out[0] = pos == 0 ? 1.0f : 0.0f;
    if (params->which == RA_SYNTH_DRIFT)
        for (int d = 0; d < n_signal(params); d++)
            out[d] = digit(pos / RA_SYNTH_DRIFT_WIDTH, d);
}

static void signal_query(const struct ra_synth_case_params *params, int32_t t, float *out)
{
    if (params->which == RA_SYNTH_NEEDLE)
        out[0] =
            ra_synth_needle_step(t) ? (float)(BACK * ra_synth_peak(params->P, params->N)) : 0.0f;
    if (params->which == RA_SYNTH_SINK)
        out[0] = (float)(BACK * ra_synth_bits(params->P + params->N));
    if (params->which == RA_SYNTH_DRIFT) {
        /* A block that differs in one digit falls behind by 2 * gain, at least bits + 5. */
        int gain = ra_synth_peak(params->P, params->N) / 2 + 1;
        int32_t block = ra_synth_drift(params->P, t) / RA_SYNTH_DRIFT_WIDTH;
        for (int d = 0; d < n_signal(params); d++)
            out[d] = digit(block, d) * (float)(BACK * gain);
    }
}

static void fill_integers(uint64_t key, int32_t row, int n, int32_t largest, float *out)
{
    for (int d = 0; d < n; d++)
        out[d] =
            (float)ra_rng_int(key, (uint64_t)row * (uint64_t)n + (uint64_t)d, -largest, largest);
}

/* Every second dimension from `first` on; the rest is left as it is, at zero. */
static void fill_noise(uint64_t key, int32_t row, int first, int D, float *out)
{
    for (int d = first; d < D; d += 2)
        out[d] = (float)ra_rng_normal(key, (uint64_t)row * (uint64_t)D + (uint64_t)d);
}

void ra_synth_case_row(const struct ra_synth_case_params *params, int layer,
                       enum ra_trace_part part, int head, int32_t row, float *out)
{
    uint64_t key = ra_rng_key(ra_rng_key((uint64_t)params->seed, (uint64_t)layer), (uint64_t)head);
    bool integer = params->which == RA_SYNTH_INTEGER;
    int signal = n_signal(params);
    int n = part == RA_TRACE_V ? params->Dv : params->D;
    key = ra_rng_key(key, (uint64_t)part);
    for (int d = 0; d < n; d++)
        out[d] = 0;
    switch (part) {
    case RA_TRACE_K:
        if (integer)
            fill_integers(key, row, n, 1, out);
        signal_key(params, row, out);
        fill_noise(key, row, signal, n, out);
        break;
    case RA_TRACE_Q:
        if (integer)
            fill_integers(key, row, n, 8, out);
        signal_query(params, row - params->W, out);
        fill_noise(key, row, signal + 1, n, out);
        break;
    case RA_TRACE_V:
        fill_integers(key, row, n, integer ? 4 : 64, out);
        for (int d = 0; d < n && !integer; d++)
            out[d] *= 0x1p-6f;
        break;
    }
}
