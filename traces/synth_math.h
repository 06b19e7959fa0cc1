/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp and log from additions, multiplications and divisions alone. The C library's differ in the
 * last bit between machines, and a fit that starts from such a bit ends in other rows. Relative
 * error below 1e-14. Internal to traces/.
 */
#ifndef RA_TRACES_SYNTH_MATH_H
#define RA_TRACES_SYNTH_MATH_H

#ifdef __cplusplus
extern "C" {
#endif

/* e^x for x <= 0; 0 below -700. */
double ra_synth_exp(double x);

/* Natural logarithm of a positive normal number. */
double ra_synth_log(double x);

/* log(p / (1 - p)), p first moved into 1e-5 .. 1 - 1e-5. */
double ra_synth_logit(double p);

#ifdef __cplusplus
}
#endif

#endif
