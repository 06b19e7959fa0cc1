/* SPDX-License-Identifier: Apache-2.0 */
/* What the double puts into config images (names of metrics, line by line) and counter images. */
#ifndef RA_TESTS_FAKE_CUPTI_IMAGE_H
#define RA_TESTS_FAKE_CUPTI_IMAGE_H

#include <stddef.h>
#include <stdint.h>

enum { FAKE_IMAGE_MAGIC = 0x46434944 };

struct fake_range {
    char name[48];
    uint64_t kernels, load_bytes, store_bytes, sectors, duration_ns;
};

struct fake_image {
    uint64_t magic, n_ranges;
};

inline size_t fake_image_bytes(size_t max_ranges)
{
    return sizeof(struct fake_image) + max_ranges * sizeof(struct fake_range);
}
inline const struct fake_image *fake_image_of(const uint8_t *image)
{
    return (const struct fake_image *)(const void *)image;
}
inline struct fake_range *fake_ranges(uint8_t *image)
{
    return (struct fake_range *)(void *)(image + sizeof(struct fake_image));
}
inline const struct fake_range *fake_range_at(const uint8_t *image, size_t i)
{
    return (const struct fake_range *)(const void *)(image + sizeof(struct fake_image)) + i;
}

uint64_t fake_config_passes(const uint8_t *config, size_t bytes);

#endif
