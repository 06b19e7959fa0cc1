/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 on published vectors (FIPS 180-4), and the byte order of integers. */
#include "tests/support/ra_test.h"

#include <string.h>

#include "sim/base/hash.h"

static void fips_vectors(void **state)
{
    (void)state;
    struct ra_sha256 hash;
    char hex[RA_SHA256_HEX];
    ra_sha256_init(&hash);
    ra_sha256_bytes(&hash, "abc", 3);
    ra_sha256_hex(&hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ra_sha256_hex(&hash, hex); /* starts anew */
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* Digests must agree between machines: integers enter as little-endian bytes. */
static void integers_are_little_endian(void **state)
{
    (void)state;
    struct ra_sha256 a, b;
    char left[RA_SHA256_HEX], right[RA_SHA256_HEX];
    int32_t many[150];
    unsigned char bytes[8 + 600];
    memcpy(bytes, "\x15\xcd\x5b\x07\xff\xff\xff\xff", 8); /* 0xffffffff075bcd15 */
    for (int i = 0; i < 150; i++) {
        many[i] = 0x01020300 + i;
        bytes[8 + 4 * i] = (unsigned char)i;
        bytes[8 + 4 * i + 1] = 3;
        bytes[8 + 4 * i + 2] = 2;
        bytes[8 + 4 * i + 3] = 1;
    }
    ra_sha256_init(&a);
    ra_sha256_init(&b);
    ra_sha256_i64(&a, (int64_t)0xffffffff075bcd15);
    ra_sha256_i32s(&a, many, 150);
    ra_sha256_bytes(&b, bytes, sizeof bytes);
    ra_sha256_hex(&a, left);
    ra_sha256_hex(&b, right);
    assert_string_equal(left, right);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fips_vectors),
        cmocka_unit_test(integers_are_little_endian),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
