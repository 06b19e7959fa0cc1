/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by nettle; only the byte order of integers is ours. */
#include "sim/base/hash.h"

void ra_sha256_init(struct ra_sha256 *hash)
{
    sha256_init(&hash->ctx);
}

void ra_sha256_bytes(struct ra_sha256 *hash, const void *bytes, size_t n)
{
    sha256_update(&hash->ctx, n, bytes);
}

static void put_le(uint8_t *out, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

void ra_sha256_i64(struct ra_sha256 *hash, int64_t value)
{
    uint8_t bytes[8];
    put_le(bytes, (uint64_t)value, 8);
    sha256_update(&hash->ctx, sizeof bytes, bytes);
}

void ra_sha256_i32s(struct ra_sha256 *hash, const int32_t *values, size_t n)
{
    uint8_t bytes[4 * 64];
    while (n > 0) {
        size_t now = n < 64 ? n : 64;
        for (size_t i = 0; i < now; i++)
            put_le(bytes + 4 * i, (uint32_t)values[i], 4);
        sha256_update(&hash->ctx, 4 * now, bytes);
        values += now;
        n -= now;
    }
}

void ra_sha256_hex(struct ra_sha256 *hash, char hex[RA_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(&hash->ctx, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
}
