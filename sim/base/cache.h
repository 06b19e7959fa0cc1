/* SPDX-License-Identifier: Apache-2.0 */
/* How much the processor's last-level cache holds. */
#ifndef RA_SIM_BASE_CACHE_H
#define RA_SIM_BASE_CACHE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Bytes of the largest cache that the first processor can use; 0 where the system does not say.
 * From the kernel's list of caches: the C library adds up the slices of a socket, most of which a
 * core cannot fill.
 */
size_t ra_cache_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
