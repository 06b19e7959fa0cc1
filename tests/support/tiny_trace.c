/* SPDX-License-Identifier: Apache-2.0 */
/* Writes through the library's own writer; values and check rows are the test's. */
#include "tests/support/tiny_trace.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/ra_test.h"
#include "traces/safetensors.h"

static const double scale = 0.3;

struct tiny_trace tiny_trace_default(void)
{
    return (struct tiny_trace){
        .P = 6, .N = 4, .W = 3, .Hq = 4, .Hkv = 2, .D = 8, .Dv = 8, .n_layers = 1, .dtype = RA_F32};
}

float tiny_trace_value(enum ra_trace_part part, int layer, int head, int32_t row, int d)
{
    uint32_t x = (uint32_t)part * 2654435761u + (uint32_t)layer * 40503u + (uint32_t)head * 69069u +
                 (uint32_t)row * 1664525u + (uint32_t)d * 22695477u;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return (float)((int32_t)(x & 255) - 128) / 64;
}

int32_t tiny_trace_check_step(const struct tiny_trace *t, int32_t i)
{
    return (int32_t)((int64_t)i * t->N / t->n_check);
}

static int32_t window_of(const struct tiny_trace *t, int layer)
{
    return layer % 2 ? t->window : 0;
}

struct writing {
    struct ra_st_writer *writer;
    const struct tiny_trace *t;
};

static void put_text(struct writing *w, const char *key, const char *value)
{
    for (const char *const *extra = w->t->extra; extra && *extra; extra += 2)
        if (strcmp(extra[0], key) == 0 && extra[1] != value)
            return; /* the test's own value comes instead */
    struct ra_error err;
    ra_assert_ok(ra_st_writer_metadata(w->writer, key, value, &err));
}

static void put_number(struct writing *w, const char *key, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    put_text(w, key, text);
}

static void put_metadata(struct writing *w)
{
    const struct tiny_trace *t = w->t;
    char zeros[RA_SHA256_HEX], layers[256] = "", types[512] = "";
    memset(zeros, '0', sizeof zeros - 1);
    zeros[sizeof zeros - 1] = '\0';
    put_text(w, "format", "rattn-trace");
    put_text(w, "version", "1.0");
    if (!t->no_checksum)
        put_text(w, "content.sha256", zeros);
    put_number(w, "n_layers", 2 * t->n_layers);
    put_number(w, "n_q_heads", t->Hq);
    put_number(w, "n_kv_heads", t->Hkv);
    put_number(w, "head_dim", t->D);
    put_number(w, "v_head_dim", t->Dv);
    put_text(w, "attn_scale", "0.3");
    put_number(w, "n_seq", 1);
    put_number(w, "s0.prompt_len", t->P);
    put_number(w, "s0.decode_len", t->N);
    put_number(w, "s0.q_tail", t->W);
    for (int i = 0; i < t->n_layers; i++) {
        const char *type = window_of(t, i) ? "sliding" : "full";
        sprintf(layers + strlen(layers), "%s%d", i ? "," : "", 2 * i);
        sprintf(types + strlen(types), "%s%s,full", i ? "," : "", type);
        char key[32];
        snprintf(key, sizeof key, "kv_first.l%d", 2 * i);
        if (window_of(t, i))
            put_number(w, key, t->first);
    }
    put_text(w, "layers", layers);
    if (t->window) {
        put_text(w, "layer_types", types);
        put_number(w, "sliding_window", t->window);
    }
    for (const char *const *extra = t->extra; extra && *extra; extra += 2)
        put_text(w, extra[0], extra[1]);
}

static size_t declare(struct writing *w, const char *suffix, int layer, enum ra_st_dtype dtype,
                      int rank, const uint64_t *shape)
{
    char name[48];
    size_t index;
    struct ra_error err;
    if (layer < 0)
        snprintf(name, sizeof name, "s0.%s", suffix);
    else
        snprintf(name, sizeof name, "s0.l%d.%s", 2 * layer, suffix);
    ra_assert_ok(ra_st_writer_tensor(w->writer, name, dtype, rank, shape, &index, &err));
    return index;
}

static void put_part(struct writing *w, size_t index, enum ra_trace_part part, int layer)
{
    const struct tiny_trace *t = w->t;
    bool is_query = part == RA_TRACE_Q;
    int heads = is_query ? t->Hq : t->Hkv, width = part == RA_TRACE_V ? t->Dv : t->D;
    int32_t begin = !is_query && window_of(t, layer) ? t->first : 0;
    int32_t end = is_query ? t->W + t->N : t->P + t->N;
    uint64_t at = 0;
    float row[256];
    uint8_t stored[1024];
    size_t bytes = (size_t)width * ra_dtype_bytes(t->dtype);
    struct ra_error err;
    for (int head = 0; head < heads; head++)
        for (int32_t r = begin; r < end; r++) {
            for (int d = 0; d < width; d++)
                row[d] = tiny_trace_value(part, layer, head, r, d);
            ra_narrow(t->dtype, row, (size_t)width, stored);
            ra_assert_ok(ra_st_writer_put(w->writer, index, at, stored, bytes, &err));
            at += bytes;
        }
}

/* Textbook: all logits, their maximum, then the sums. */
static void attend(const struct tiny_trace *t, int layer, int head, int32_t step, float *o,
                   float *lse)
{
    int32_t self = t->P + step, window = window_of(t, layer);
    int32_t first = window > 0 && self - window + 1 > 0 ? self - window + 1 : 0;
    int kv_head = head / (t->Hq / t->Hkv);
    double *logits = malloc((size_t)(self + 1) * sizeof *logits), top = -INFINITY, sum = 0;
    assert_non_null(logits);
    for (int32_t p = first; p <= self; p++) {
        logits[p] = 0;
        for (int d = 0; d < t->D; d++)
            logits[p] += scale * (double)tiny_trace_value(RA_TRACE_Q, layer, head, t->W + step, d) *
                         (double)tiny_trace_value(RA_TRACE_K, layer, kv_head, p, d);
        top = fmax(top, logits[p]);
    }
    for (int32_t p = first; p <= self; p++)
        sum += exp(logits[p] - top);
    for (int d = 0; d < t->Dv; d++) {
        double value = 0;
        for (int32_t p = first; p <= self; p++)
            value += exp(logits[p] - top) / sum *
                     (double)tiny_trace_value(RA_TRACE_V, layer, kv_head, p, d);
        o[d] = (float)value;
    }
    *lse = (float)(top + log(sum));
    free(logits);
}

static void put_check_rows(struct writing *w, size_t o_index, size_t lse_index, int layer)
{
    const struct tiny_trace *t = w->t;
    struct ra_error err;
    for (int head = 0; head < t->Hq; head++)
        for (int32_t i = 0; i < t->n_check; i++) {
            float o[256], lse;
            uint64_t row = (uint64_t)head * (uint64_t)t->n_check + (uint64_t)i;
            size_t bytes = (size_t)t->Dv * sizeof *o;
            attend(t, layer, head, tiny_trace_check_step(t, i), o, &lse);
            ra_assert_ok(ra_st_writer_put(w->writer, o_index, row * bytes, o, bytes, &err));
            ra_assert_ok(ra_st_writer_put(w->writer, lse_index, row * 4, &lse, 4, &err));
        }
}

enum { MAX_LAYERS = 8 };
struct indices {
    size_t parts[3], o, lse, acc;
};

static void declare_layer(struct writing *w, int layer, struct indices *index)
{
    static const enum ra_st_dtype dtypes[] = {RA_ST_F16, RA_ST_BF16, RA_ST_F32};
    const struct tiny_trace *t = w->t;
    uint64_t Hq = (uint64_t)t->Hq, Hkv = (uint64_t)t->Hkv, C = (uint64_t)t->n_check;
    uint64_t rows = (uint64_t)(t->P + t->N - (window_of(t, layer) ? t->first : 0));
    const uint64_t k[] = {Hkv, rows, (uint64_t)t->D}, v[] = {Hkv, rows, (uint64_t)t->Dv};
    const uint64_t q[] = {Hq, (uint64_t)(t->W + t->N), (uint64_t)t->D};
    const uint64_t o[] = {Hq, C, (uint64_t)t->Dv}, acc[] = {Hq, (uint64_t)t->P};
    index->parts[RA_TRACE_K] = declare(w, "k", layer, dtypes[t->dtype], 3, k);
    index->parts[RA_TRACE_V] = declare(w, "v", layer, dtypes[t->dtype], 3, v);
    index->parts[RA_TRACE_Q] = declare(w, "q", layer, dtypes[t->dtype], 3, q);
    if (C) {
        index->o = declare(w, "o", layer, RA_ST_F32, 3, o);
        index->lse = declare(w, "lse", layer, RA_ST_F32, 2, o);
    }
    if (t->has_acc)
        index->acc = declare(w, "acc", layer, RA_ST_F32, 2, acc);
}

static void fill_layer(struct writing *w, int layer, const struct indices *index)
{
    const struct tiny_trace *t = w->t;
    struct ra_error err;
    for (int part = RA_TRACE_K; part <= RA_TRACE_Q; part++)
        put_part(w, index->parts[part], (enum ra_trace_part)part, layer);
    if (t->n_check)
        put_check_rows(w, index->o, index->lse, layer);
    const float one = 1;
    for (uint64_t i = 0; t->has_acc && i < (uint64_t)t->Hq * (uint64_t)t->P; i++)
        ra_assert_ok(ra_st_writer_put(w->writer, index->acc, 4 * i, &one, 4, &err));
}

void tiny_trace_write(const char *path, const struct tiny_trace *t)
{
    struct writing w = {.t = t};
    struct indices indices[MAX_LAYERS];
    struct ra_error err;
    size_t steps = 0;
    const uint64_t C[] = {(uint64_t)t->n_check};
    assert_true(t->n_layers <= MAX_LAYERS);
    ra_assert_ok(ra_st_writer_open(&w.writer, path, &err));
    put_metadata(&w);
    if (t->n_check)
        steps = declare(&w, "check_steps", -1, RA_ST_I32, 1, C);
    for (int layer = 0; layer < t->n_layers; layer++)
        declare_layer(&w, layer, &indices[layer]);
    ra_assert_ok(ra_st_writer_begin(w.writer, &err));
    for (int layer = 0; layer < t->n_layers; layer++)
        fill_layer(&w, layer, &indices[layer]);
    for (int32_t i = 0; i < t->n_check; i++) {
        int32_t step = tiny_trace_check_step(t, i);
        ra_assert_ok(ra_st_writer_put(w.writer, steps, 4 * (uint64_t)i, &step, 4, &err));
    }
    ra_assert_ok(ra_st_writer_commit(w.writer, &err));
    ra_st_writer_close(w.writer);
}

void tiny_trace_patch(const char *path, const char *tensor, size_t offset, const void *bytes,
                      size_t n)
{
    struct ra_error err;
    struct ra_st_file *file;
    struct stat info;
    ra_assert_ok(ra_st_open(&file, path, &err));
    const struct ra_st_tensor *t = ra_st_find(file, tensor);
    assert_non_null(t);
    assert_true(offset + n <= t->bytes);
    assert_int_equal(stat(path, &info), 0);
    off_t at = info.st_size - (off_t)ra_st_data_bytes(file) + (off_t)(t->offset + offset);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), n);
    close(fd);
    ra_st_close(file);
}
