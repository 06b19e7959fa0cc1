/* SPDX-License-Identifier: Apache-2.0 */
/* All tensors are found and checked before memory is asked for, so that its size is bounded by that
 * of the files; then they are read one after the other. */
#include "traces/model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/file.h"
#include "traces/model/weights_list.h"
#include "traces/shards.h"

#define ONE_FILE "model.safetensors"
#define INDEX "model.safetensors.index.json"

enum {
    ALIGNMENT = 64,
    FLOATS = ALIGNMENT / sizeof(float), /* tensors begin at multiples of it */
    CHUNK = 4 << 20,                    /* bytes read at a time */
    MAX_PATH = 4096
};

/* Gemma 3 with its vision part keeps the text model below another name, which changed. */
static const struct ra_lm_naming namings[] = {
    {"model.", "lm_head.weight"},
    {"language_model.model.", "language_model.lm_head.weight"},
    {"model.language_model.", "lm_head.weight"},
};

struct found {
    struct ra_lm_tensor tensor;
    struct ra_shard_tensor in;
    uint64_t at; /* floats before it */
};

struct loader {
    const struct ra_lm_config *config;
    struct ra_shards *shards;
    const struct ra_lm_naming *naming;
    struct found *found; /* [n], ascending names */
    size_t n;
    uint64_t n_floats;
    char *raw; /* [CHUNK] */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    uint64_t done, total; /* bytes */
};

static uint64_t padded(uint64_t n)
{
    return (n + FLOATS - 1) / FLOATS * FLOATS;
}

size_t ra_lm_weights_bytes(const struct ra_lm_config *config)
{
    uint64_t floats = 0;
    for (size_t i = 0; i < ra_lm_tensor_count(config); i++)
        floats += padded(ra_lm_tensor_at(config, NULL, i).n);
    return (size_t)floats * sizeof(float) + (size_t)config->n_layers * sizeof(struct ra_lm_layer);
}

/* --- files ------------------------------------------------------------------------------------ */

static enum ra_status path_of(char path[MAX_PATH], const char *dir, const char *name,
                              struct ra_error *err)
{
    if (snprintf(path, MAX_PATH, "%s/%s", dir, name) >= MAX_PATH)
        return ra_fail(err, RA_EIO, "%.100s...: the path is too long", dir);
    return RA_OK;
}

static enum ra_status open_shards(struct ra_shards **shards, const char *dir, struct ra_error *err)
{
    char path[MAX_PATH];
    RA_TRY(path_of(path, dir, ONE_FILE, err));
    if (access(path, F_OK) == 0)
        return ra_shards_open(shards, path, err);
    RA_TRY(path_of(path, dir, INDEX, err));
    if (access(path, F_OK) == 0)
        return ra_shards_open_index(shards, dir, INDEX, err);
    return ra_fail(err, RA_EIO, "%s: expected " ONE_FILE " or " INDEX ", found neither", dir);
}

/* --- what is there ---------------------------------------------------------------------------- */

static bool is_nested(const struct loader *l)
{
    return l->naming != &namings[0];
}

static void choose_naming(struct loader *l)
{
    l->naming = &namings[0];
    if (!l->config->norm_plus_one)
        return;
    for (size_t i = 0; i < sizeof namings / sizeof namings[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "%sembed_tokens.weight", namings[i].body);
        if (ra_shards_find(l->shards, name).tensor)
            l->naming = &namings[i];
    }
}

static void shape_text(char *out, size_t size, int rank, const uint64_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int d = 0; d < rank && used < size; d++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRIu64, d ? ", " : "", shape[d]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

static enum ra_status check_tensor(const struct found *f, struct ra_error *err)
{
    const struct ra_lm_tensor *wanted = &f->tensor;
    const struct ra_st_tensor *got = f->in.tensor;
    const char *path = ra_st_path(f->in.file);
    if (got->rank != wanted->rank || got->shape[0] != wanted->shape[0] ||
        (got->rank == 2 && got->shape[1] != wanted->shape[1])) {
        char expected[64], other[192];
        shape_text(expected, sizeof expected, wanted->rank, wanted->shape);
        shape_text(other, sizeof other, got->rank, got->shape);
        return ra_fail(err, RA_EFORMAT, "%s: %.100s: expected shape %s, got %s", path, got->name,
                       expected, other);
    }
    if (got->dtype != RA_ST_F32 && got->dtype != RA_ST_F16 && got->dtype != RA_ST_BF16)
        return ra_fail(err, RA_EFORMAT, "%s: %.100s: expected dtype F32, F16 or BF16, got %.20s",
                       path, got->name, got->dtype_text);
    return RA_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return strcmp(x->tensor.name, y->tensor.name);
}

static enum ra_status find_tensors(struct loader *l, struct ra_error *err)
{
    l->n = ra_lm_tensor_count(l->config);
    l->found = calloc(l->n, sizeof *l->found);
    if (!l->found)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", ra_shards_path(l->shards));
    for (size_t i = 0; i < l->n; i++) {
        struct found *f = &l->found[i];
        f->tensor = ra_lm_tensor_at(l->config, l->naming, i);
        f->in = ra_shards_find(l->shards, f->tensor.name);
        if (!f->in.tensor)
            return ra_fail(err, RA_EFORMAT, "%s: %s: missing", ra_shards_path(l->shards),
                           f->tensor.name);
        RA_TRY(check_tensor(f, err));
        f->at = l->n_floats;
        l->n_floats += padded(f->tensor.n);
        l->total += f->in.tensor->bytes;
    }
    qsort(l->found, l->n, sizeof *l->found, by_name);
    return RA_OK;
}

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static bool is_ignored(const struct loader *l, const char *name)
{
    static const char table[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name);
    if (n > sizeof table && strcmp(name + n - (sizeof table - 1), table) == 0)
        return true;
    if (l->config->tied && strcmp(name, l->naming->head) == 0)
        return true;
    if (!is_nested(l))
        return false;
    return begins(name, "vision_tower.") || begins(name, "multi_modal_projector.") ||
           begins(name, "model.vision_tower.") || begins(name, "model.multi_modal_projector.");
}

static int name_order(const void *key, const void *element)
{
    const struct found *f = element;
    return strcmp(key, f->tensor.name);
}

/* A tensor that is left out would be a model of another kind. */
static enum ra_status refuse_others(const struct loader *l, struct ra_error *err)
{
    for (size_t i = 0; i < ra_shards_count(l->shards); i++) {
        struct ra_shard_tensor in = ra_shards_at(l->shards, i);
        const char *name = in.tensor->name;
        if (!bsearch(name, l->found, l->n, sizeof *l->found, name_order) && !is_ignored(l, name))
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: expected no such tensor in a %s model",
                           ra_st_path(in.file), name, l->config->arch);
    }
    return RA_OK;
}

/* --- reading ---------------------------------------------------------------------------------- */

static enum ra_dtype dtype_of(const struct ra_st_tensor *tensor)
{
    return tensor->dtype == RA_ST_F16 ? RA_F16 : tensor->dtype == RA_ST_BF16 ? RA_BF16 : RA_F32;
}

/* Widen n elements from `first` on into out. */
static enum ra_status read_chunk(struct loader *l, const struct ra_shard_tensor *in, size_t first,
                                 size_t n, float *out, struct ra_error *err)
{
    enum ra_dtype dtype = dtype_of(in->tensor);
    size_t width = ra_dtype_bytes(dtype);
    void *raw = dtype == RA_F32 ? (void *)out : l->raw;
    RA_TRY(ra_st_read(in->file, in->tensor, first * width, raw, n * width, err));
    size_t bad = ra_first_nonfinite(dtype, raw, n);
    if (bad < n)
        return ra_fail(err, RA_EFORMAT,
                       "%s: %.100s: element %zu: expected a number, got NaN or Inf",
                       ra_st_path(in->file), in->tensor->name, first + bad);
    if (dtype != RA_F32)
        ra_widen(dtype, raw, n, out);
    l->done += n * width;
    if (l->progress)
        l->progress(l->context, l->done, l->total);
    return RA_OK;
}

static enum ra_status read_tensor(struct loader *l, const struct found *f, float *out,
                                  struct ra_error *err)
{
    size_t n = (size_t)f->tensor.n, step = CHUNK / sizeof(float);
    for (size_t first = 0; first < n; first += step) {
        size_t part = n - first < step ? n - first : step;
        RA_TRY(read_chunk(l, &f->in, first, part, out + first, err));
    }
    if (f->tensor.is_norm && l->config->norm_plus_one)
        for (size_t i = 0; i < n; i++)
            out[i] += 1;
    return RA_OK;
}

static enum ra_status read_all(struct loader *l, struct ra_lm_weights *w, struct ra_error *err)
{
    const char *path = ra_shards_path(l->shards);
    size_t bytes = (size_t)l->n_floats * sizeof(float);
    w->memory = aligned_alloc(ALIGNMENT, bytes);
    w->layers = calloc((size_t)l->config->n_layers, sizeof *w->layers);
    l->raw = malloc(CHUNK);
    if (!w->memory || !w->layers || !l->raw)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory: the weights need %zu bytes", path,
                       bytes);
    for (size_t i = 0; i < l->n; i++) {
        const struct found *f = &l->found[i];
        float *out = (float *)w->memory + f->at;
        char *holder = f->tensor.layer < 0 ? (char *)w : (char *)&w->layers[f->tensor.layer];
        memcpy(holder + f->tensor.slot, &out, sizeof out);
        RA_TRY(read_tensor(l, f, out, err));
    }
    if (l->config->tied)
        w->head = w->embed;
    return RA_OK;
}

enum ra_status ra_lm_weights_open(struct ra_lm_weights **weights, const struct ra_lm_config *config,
                                  const char *dir,
                                  void (*progress)(void *context, uint64_t done, uint64_t total),
                                  void *context, struct ra_error *err)
{
    *weights = NULL;
    struct loader l = {.config = config, .progress = progress, .context = context};
    struct ra_lm_weights *w = calloc(1, sizeof *w);
    enum ra_status st =
        w ? open_shards(&l.shards, dir, err) : ra_fail(err, RA_ENOMEM, "%s: out of memory", dir);
    if (st == RA_OK) {
        choose_naming(&l);
        st = find_tensors(&l, err);
    }
    if (st == RA_OK)
        st = refuse_others(&l, err);
    if (st == RA_OK)
        st = read_all(&l, w, err);
    free(l.raw);
    free(l.found);
    ra_shards_close(l.shards);
    if (st == RA_OK)
        *weights = w;
    else
        ra_lm_weights_close(w);
    return st;
}

void ra_lm_weights_close(struct ra_lm_weights *weights)
{
    if (!weights)
        return;
    free(weights->layers);
    free(weights->memory);
    free(weights);
}

/* --- digest ----------------------------------------------------------------------------------- */

static enum ra_status digest_config(const char *dir, char hex[RA_SHA256_HEX], struct ra_error *err)
{
    char path[MAX_PATH];
    int fd = -1;
    uint64_t bytes = 0;
    RA_TRY(path_of(path, dir, "config.json", err));
    RA_TRY(ra_file_open(path, &fd, &bytes, err));
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    enum ra_status st = RA_OK;
    char part[4096];
    for (uint64_t at = 0; st == RA_OK && at < bytes; at += sizeof part) {
        size_t n = bytes - at < sizeof part ? (size_t)(bytes - at) : sizeof part;
        st = ra_file_read(fd, path, at, part, n, err);
        if (st == RA_OK)
            ra_sha256_bytes(&hash, part, n);
    }
    close(fd);
    ra_sha256_hex(&hash, hex);
    return st;
}

enum ra_status ra_lm_weights_digest(const char *dir, char hex[RA_SHA256_HEX], struct ra_error *err)
{
    char config[RA_SHA256_HEX];
    struct ra_shards *shards;
    RA_TRY(digest_config(dir, config, err));
    RA_TRY(open_shards(&shards, dir, err));
    enum ra_status st = ra_shards_digest(shards, hex, err);
    ra_shards_close(shards);
    RA_TRY(st);
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    ra_sha256_bytes(&hash, config, RA_SHA256_HEX - 1);
    ra_sha256_bytes(&hash, hex, RA_SHA256_HEX - 1);
    ra_sha256_hex(&hash, hex);
    return RA_OK;
}
