/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces that are computed, not recorded: a name such as "synth:case=needle,P=1024" is the whole
 * trace. Every row is a function of its place and the seed, so rows may be read in any order, by
 * any thread, and are the same bytes on every machine. Nothing is cached but what was fitted.
 *
 * synth:case=NAME[,P=256][,N=32][,W=none][,layers=2][,Hq=4][,Hkv=2][,D=32][,Dv=none][,dtype=f16]
 *           [,seed=1][,window=none]
 *     A case with a property that can be proved, stated below. W=none: the smaller of P and 32;
 *     Dv=none: D; window=w: layers 1, 3, 5, ... are sliding-window layers of width w. There is no
 *     rotary embedding, and attn_scale is 1/8 whatever D is, so that logits are exact.
 *
 * synth:like=TRACE[,layers=none][,L=none][,N=none][,seed=1][,Hq=none][,Hkv=none][,D=none]
 *     [,dtype=none]
 *     Layer i is fitted to full-attention layer i mod n of TRACE's first sequence and measures like
 *     it, by the list in traces/synth_fit.h. Only that is kept: not texts, nor what heads are for.
 *     layers, L (prompt tokens), N: none means as in TRACE. Budgets, and how far recent tokens
 *     reach (P/32), are shares of the prompt and so mean the same at another L; lags stay steps.
 *     The fit is made at L and N, up to 8192 and 512. Prompts far below 1024 leave little to choose
 *     from and may miss; longer ones are stretched from 8192: sink and top masses then hold to
 *     about 0.15, run lengths to 10 %. `info --fit` says. Keys are as long as in TRACE.
 *     Values are random, correlated by 0.5 with what their keys carry, and small at position 0;
 *     nothing about them is fitted, so output errors are not those of TRACE (they come out larger).
 *     There is no rotary embedding: cosines before and after rotation are one. No comma in TRACE.
 *     Hq, Hkv, D, dtype: none means as in TRACE, and TRACE's own value means none; the fit is made
 *     at the shape asked for. What is reproduced are means over heads: each drawn head is fitted to
 *     the mean over its share of TRACE's heads, so the spread between heads gets smaller where
 *     shares straddle them. With another D, values are as wide as keys, and components of keys and
 *     logits stay as large: keys grow with the root of D, attn_scale shrinks with it. A D far below
 *     32 has too few dimensions and misses.
 */
#ifndef RA_TRACES_SYNTH_H
#define RA_TRACES_SYNTH_H

#include "traces/trace_source.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct ra_trace_source_ops ra_trace_source_synth;

/*
 * The cases, in the order of "case="; L = P + t + 1 is the context of step t, c = ra_synth_peak.
 *
 * needle   at steps with t mod 4 = 3 (the last prompt token, t = -1, is one) position
 *          ra_synth_needle(P) has the logit c and all others 0: its mass is e^c/(e^c + L - 1),
 *          at least 0.99. At the other steps all logits are 0.
 * drift    the four positions from ra_synth_drift(P, t) on have equal mass, together at least 0.99.
 *          They advance by four per step and start anew at the end of the prompt.
 * sink     position 0 has the logit bits(P + N) and all others 0: mass e^b/(e^b + L - 1), at least
 *          1/2 at every step.
 * flat     all logits are 0: a set of n positions has the mass n/L.
 * integer  q, k and v are whole numbers of at most 8, 1 and 4 in absolute value. Logits of a query
 *          are multiples of 1/8, exact in f32 in any order of summation; two of them are equal or
 *          at least 1/8 apart, and with more keys than levels many are equal.
 */
enum ra_synth_case {
    RA_SYNTH_NEEDLE,
    RA_SYNTH_DRIFT,
    RA_SYNTH_SINK,
    RA_SYNTH_FLAT,
    RA_SYNTH_INTEGER
};

enum { RA_SYNTH_DRIFT_WIDTH = 4 };
#define RA_SYNTH_SCALE 0.125

/* Digits of n in binary: 2^bits > n. */
int ra_synth_bits(int32_t n);
/* bits(P + N) + 5. */
int ra_synth_peak(int32_t P, int32_t N);
int32_t ra_synth_needle(int32_t P);
bool ra_synth_needle_step(int32_t t);
int32_t ra_synth_drift(int32_t P, int32_t t);

#ifdef __cplusplus
}
#endif

#endif
