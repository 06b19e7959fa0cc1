/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256, incremental; integers are fed as little-endian, so digests agree between machines. */
#ifndef RA_SIM_BASE_HASH_H
#define RA_SIM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include <nettle/sha2.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RA_SHA256_HEX 65 /* 64 digits and the terminator */

struct ra_sha256 {
    struct sha256_ctx ctx;
};

void ra_sha256_init(struct ra_sha256 *hash);
void ra_sha256_bytes(struct ra_sha256 *hash, const void *bytes, size_t n);
void ra_sha256_i64(struct ra_sha256 *hash, int64_t value);
void ra_sha256_i32s(struct ra_sha256 *hash, const int32_t *values, size_t n);

/* Write 64 lower-case hex digits and a NUL to `hex`; the hash starts anew afterwards. */
void ra_sha256_hex(struct ra_sha256 *hash, char hex[RA_SHA256_HEX]);

#ifdef __cplusplus
}
#endif

#endif
