/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one block of memory of the cpu backend. The same walk over its pieces adds up their sizes and
 * later places them, so what is announced is what is taken.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* Hands out consecutive pieces of a block; without a base it only adds up. */
struct arena {
    char *base;
    size_t used;
    bool overflow;
};

static void *take(struct arena *arena, size_t n, size_t each)
{
    size_t bytes, end;
    if (__builtin_mul_overflow(n, each, &bytes) ||
        __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes) ||
        __builtin_add_overflow(arena->used, bytes / ALIGNMENT * ALIGNMENT, &end)) {
        arena->overflow = true;
        return NULL;
    }
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used = end;
    return piece;
}

static struct ra_cpu_retained lay_out_retained(const struct ra_cpu *cpu, struct arena *arena)
{
    size_t cap = (size_t)cpu->cap;
    struct ra_cpu_retained cache = {
        .cap = cpu->cap,
        .pos = take(arena, cap, sizeof *cache.pos),
        .slot = take(arena, cap, sizeof *cache.slot),
        .score = take(arena, cap, sizeof *cache.score),
        .slot_pos = take(arena, cap, sizeof *cache.slot_pos),
        .free_slot = take(arena, cap, sizeof *cache.free_slot),
        .queue = take(arena, cap, sizeof *cache.queue),
        .next_pos = take(arena, cap, sizeof *cache.next_pos),
        .next_evict = take(arena, cap, sizeof *cache.next_evict),
        .next_slot = take(arena, cap, sizeof *cache.next_slot),
        .next_score = take(arena, cap, sizeof *cache.next_score),
        .given_score = take(arena, cap, sizeof *cache.given_score),
        .k_bytes = ra_cpu_k_bytes(cpu),
        .v_bytes = ra_cpu_v_bytes(cpu),
        .self_pos = -1,
    };
    if (cpu->config.cache == RA_CACHE_COMPACT) {
        cache.k = take(arena, cap, cache.k_bytes);
        cache.v = take(arena, cap, cache.v_bytes);
    }
    return cache;
}

/* Windows are copied into the layers, so that the caller's array is not needed later. */
static void lay_out_layer(const struct ra_cpu *cpu, int number, struct arena *arena)
{
    size_t Hkv = (size_t)cpu->model.Hkv, max_rows = (size_t)cpu->config.max_rows;
    struct ra_cpu_layer layer = {
        .window = cpu->config.window[number],
        .k = take(arena, Hkv * max_rows, ra_cpu_k_bytes(cpu)),
        .v = take(arena, Hkv * max_rows, ra_cpu_v_bytes(cpu)),
        .reference = take(arena, (size_t)cpu->model.D, sizeof(double)),
    };
    if (cpu->cap > 0 && layer.window == 0) {
        layer.order = take(arena, Hkv * (size_t)cpu->cap, sizeof *layer.order);
        layer.retained = take(arena, Hkv, sizeof *layer.retained);
        for (size_t head = 0; head < Hkv; head++) {
            struct ra_cpu_retained cache = lay_out_retained(cpu, arena);
            if (layer.retained)
                layer.retained[head] = cache;
        }
    }
    if (cpu->config.pages && cpu->config.pages[number].page > 0) {
        layer.pages = cpu->config.pages[number];
        size_t pages = (size_t)ra_cpu_page_count(cpu->config.max_rows, &layer.pages);
        size_t most = (size_t)ra_cpu_page_most(cpu->config.max_rows, &layer.pages);
        layer.digest =
            take(arena, Hkv * pages, RA_CPU_DIGESTS * (size_t)cpu->model.D * sizeof *layer.digest);
        layer.page_order = take(arena, Hkv * most, sizeof *layer.page_order);
    }
    if (cpu->layers)
        cpu->layers[number] = layer;
}

static void lay_out_select(const struct ra_cpu *cpu, struct arena *arena)
{
    size_t rows = (size_t)cpu->config.max_rows;
    for (int head = 0; head < cpu->model.Hkv; head++) {
        struct ra_cpu_select select = {
            .raw = take(arena, rows, sizeof *select.raw),
            .pooled = take(arena, rows, sizeof *select.pooled),
            .window = take(arena, rows, sizeof *select.window),
            .keys = take(arena, rows, sizeof *select.keys),
            .ranks = take(arena, 2 * (size_t)cpu->cap, sizeof *select.ranks),
        };
        if (cpu->select)
            cpu->select[head] = select;
    }
}

static int32_t most_pages(const struct ra_backend_config *config)
{
    int32_t most = 0;
    for (int layer = 0; config->pages && layer < config->n_layers; layer++) {
        if (config->pages[layer].page == 0)
            continue;
        int32_t n = ra_cpu_page_count(config->max_rows, &config->pages[layer]);
        most = n > most ? n : most;
    }
    return most;
}

/* Assign every piece; `cpu` itself is the first. Run once to count and once to place. */
static void lay_out(struct ra_cpu *cpu, struct arena *arena)
{
    const struct ra_backend_config *config = &cpu->config;
    size_t Hq = (size_t)cpu->model.Hq, Hkv = (size_t)cpu->model.Hkv;
    size_t columns = (size_t)(config->max_rows > cpu->cap ? config->max_rows : cpu->cap) + 1;
    cpu->score_stride = columns;
    cpu->max_splits = (int32_t)((columns + RA_CPU_SPLIT - 1) / RA_CPU_SPLIT);
    take(arena, 1, sizeof *cpu);
    cpu->layers = take(arena, (size_t)config->n_layers, sizeof *cpu->layers);
    cpu->keys = take(arena, Hq, sizeof *cpu->keys);
    cpu->scores = take(arena, Hq * columns, sizeof *cpu->scores);
    cpu->partial = take(arena, Hq * (size_t)cpu->max_splits,
                        ((size_t)cpu->model.Dv + 2) * sizeof *cpu->partial);
    if (cpu->cap > 0) {
        cpu->select = take(arena, Hkv, sizeof *cpu->select);
        cpu->moved = take(arena, Hkv, sizeof *cpu->moved);
        cpu->accumulated = take(arena, Hkv * ((size_t)cpu->cap + 1), sizeof *cpu->accumulated);
        lay_out_select(cpu, arena);
    }
    cpu->max_pages = most_pages(config);
    if (cpu->max_pages > 0) {
        cpu->page_scores = take(arena, Hq * (size_t)cpu->max_pages, sizeof *cpu->page_scores);
        cpu->page_ranks = take(arena, Hkv * (size_t)cpu->max_pages, sizeof *cpu->page_ranks);
    }
    for (int layer = 0; layer < config->n_layers; layer++)
        lay_out_layer(cpu, layer, arena);
}

static struct ra_cpu shape_of(const struct ra_backend_config *config)
{
    return (struct ra_cpu){.config = *config, .model = *config->model, .cap = config->max_retained};
}

/* Of the block; its size is a multiple of it. */
static size_t alignment_of(size_t bytes)
{
    return bytes < 2 * HUGE_PAGE ? ALIGNMENT : HUGE_PAGE;
}

size_t ra_cpu_memory(const struct ra_backend_config *config)
{
    struct ra_cpu shape = shape_of(config);
    struct arena count = {0};
    lay_out(&shape, &count);
    size_t alignment = alignment_of(count.used);
    if (count.overflow || count.used > SIZE_MAX - alignment)
        return SIZE_MAX;
    return (count.used + alignment - 1) / alignment * alignment;
}

enum ra_status ra_cpu_allocate(struct ra_cpu **out, const struct ra_backend_config *config,
                               struct ra_error *err)
{
    size_t size = ra_cpu_memory(config);
    size_t alignment = alignment_of(size);
    struct arena arena = {.base = size < SIZE_MAX ? aligned_alloc(alignment, size) : NULL};
    if (!arena.base)
        return ra_fail(err, RA_ENOMEM, "cpu: no memory for %d layers of %d rows (%zu bytes)",
                       config->n_layers, (int)config->max_rows, size);
    /* Rows of a gathered cache lie on as many pages: large ones spare most of the walks through
     * page tables. Only advice; nothing depends on it. */
    if (alignment == HUGE_PAGE)
        (void)madvise(arena.base, size, MADV_HUGEPAGE);
    /* Touch every page now: a first write inside a timed step would be charged to that step. */
    memset(arena.base, 0, size);
    struct ra_cpu shape = shape_of(config);
    lay_out(&shape, &arena);
    *out = (struct ra_cpu *)(void *)arena.base;
    **out = shape;
    return RA_OK;
}
