/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RA_WIDE before a function: one source, several instruction sets, chosen when the program starts.
 * Contraction is off and no sum is reassociated, so all give the same bits. Loops must be compiled
 * with -O3 to gain from it (the Makefile lists such files). Sanitizers do not survive the
 * resolvers.
 */
#ifndef RA_SIM_BASE_WIDE_H
#define RA_SIM_BASE_WIDE_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define RA_WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define RA_WIDE
#endif

#endif
