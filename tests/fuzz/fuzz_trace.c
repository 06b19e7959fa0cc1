/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace reader on any bytes: a file, or, when the input starts with '{', a folder of an index
 * (up to a NUL) and two shards. Whatever opens is read to its last row into buffers of exactly the
 * promised size, checked, and described; a container that opens is written anew and is then the
 * same. Inputs are mutated with the header's length kept true, or nothing behind it would be seen.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "sim/cli/commands.h"
#include "traces/check.h"
#include "traces/safetensors.h"
#include "traces/trace.h"

enum { MAX_SEQS = 3, MAX_COPIED = 64, MAX_REPLAYED = 256 };

/* A buffer of exactly n bytes: one more is a finding. */
static void *room(size_t n)
{
    void *out = malloc(n ? n : 1);
    FUZZ_CHECK(out, "%zu bytes", n);
    return out;
}

static void read_part(const struct ra_trace *trace, struct ra_trace_slice slice, int n_heads,
                      int32_t last)
{
    const struct ra_model *model = &ra_trace_info(trace)->model;
    size_t width = (size_t)(slice.part == RA_TRACE_V ? model->Dv : model->D);
    struct ra_error err = FUZZ_NO_ERROR;
    slice.n = last - slice.first;
    size_t bytes = (size_t)slice.n * width * ra_dtype_bytes(model->dtype);
    for (slice.head = 0; slice.head < n_heads; slice.head++) {
        void *out = room(bytes);
        fuzz_check_error(ra_trace_read(trace, &slice, out, &err), &err);
        free(out);
    }
}

static void read_layer(const struct ra_trace *trace, int seq, int layer)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_trace_seq *s = &info->seqs[seq];
    const struct ra_model *m = &info->model;
    struct ra_trace_slice slice = {seq, layer, RA_TRACE_K, 0, info->layers[layer].first, 0};
    struct ra_error err = FUZZ_NO_ERROR;
    size_t Hq = (size_t)m->Hq, rows = Hq * (size_t)s->n_check;
    read_part(trace, slice, m->Hkv, s->P + s->N);
    slice.part = RA_TRACE_V;
    read_part(trace, slice, m->Hkv, s->P + s->N);
    slice.part = RA_TRACE_Q;
    slice.first = 0;
    read_part(trace, slice, m->Hq, s->W + s->N);
    if (s->has_acc) {
        float *acc = room(Hq * (size_t)s->P * sizeof *acc);
        fuzz_check_error(ra_trace_acc(trace, seq, layer, acc, &err), &err);
        free(acc);
    }
    if (s->has_check) {
        float *o = room(rows * (size_t)m->Dv * sizeof *o), *lse = room(rows * sizeof *lse);
        fuzz_check_error(ra_trace_check_rows(trace, seq, layer, o, lse, &err), &err);
        fuzz_check_error(ra_trace_check_rows(trace, seq, layer, o, NULL, &err), &err);
        free(o);
        free(lse);
    }
}

static void read_seq(const struct ra_trace *trace, int seq)
{
    const struct ra_trace_seq *s = &ra_trace_info(trace)->seqs[seq];
    struct ra_error err = FUZZ_NO_ERROR;
    size_t positions = (size_t)s->P + (size_t)s->N;
    const char *names = NULL;
    int32_t *tokens = room((positions + 1) * sizeof *tokens);
    int32_t *steps = room((size_t)s->n_check * sizeof *steps);
    float *logprob = room((size_t)s->N * sizeof *logprob);
    uint8_t *types = room(positions);
    enum ra_status status = ra_trace_tokens(trace, seq, tokens, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK(s->has_tokens || status == RA_EUSAGE, "tokens of nothing");
    fuzz_check_error(ra_trace_logprob(trace, seq, logprob, &err), &err);
    fuzz_check_error(ra_trace_check_steps(trace, seq, steps, &err), &err);
    status = ra_trace_token_types(trace, seq, types, &names, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK(status != RA_OK || names, "types without names");
    free(types);
    free(logprob);
    free(steps);
    free(tokens);
}

static void check_info(const struct ra_trace_info *info)
{
    const struct ra_model *m = &info->model;
    FUZZ_CHECK(info->n_layers > 0 && info->n_layers <= m->n_layers && info->n_seq > 0, "counts");
    FUZZ_CHECK(m->Hkv > 0 && m->Hq == m->G * m->Hkv && m->D > 0 && m->Dv > 0, "shape");
    FUZZ_CHECK(m->attn_scale > 0 && info->check_tolerance > 0, "scale");
    FUZZ_CHECK(info->path && info->model_id, "names");
    for (int i = 0; i < info->n_layers; i++)
        FUZZ_CHECK(info->layers[i].id < m->n_layers && info->layers[i].first >= 0 &&
                       info->layers[i].window >= 0 &&
                       (i == 0 || info->layers[i].id > info->layers[i - 1].id),
                   "layer %d", i);
    for (int i = 0; i < info->n_seq; i++)
        FUZZ_CHECK(info->seqs[i].P > 0 && info->seqs[i].N > 0 && info->seqs[i].W > 0 &&
                       info->seqs[i].W <= info->seqs[i].P && info->seqs[i].mode &&
                       info->seqs[i].schedule,
                   "sequence %d", i);
}

/* Sound values may still be huge, or all equal: the engine takes them or says why not. */
static void replay(const struct ra_trace_info *info, const char *path)
{
    const char *out, *words[] = {"replay",     path,
                                 "-q",         "-j1",
                                 "--repeat=1", "--format=json",
                                 "-p",         "full",
                                 "-p",         "recycled:k=2,stride=2",
                                 "-p",         "streaming:k=3,sinks=1"};
    struct ra_error err;
    int64_t positions = 0;
    for (int seq = 0; seq < info->n_seq; seq++)
        positions += (int64_t)info->seqs[seq].P + info->seqs[seq].N;
    if (positions * info->n_layers * info->model.Hq > MAX_REPLAYED)
        return;
    enum ra_status status = fuzz_run(&ra_cmd_replay, 12, words, &out, &err);
    /* Values near the end of f32 may leave it when a backend adds them up, which it is told off
     * for; those of f16 may not. */
    bool may_differ = info->model.dtype != RA_F16 && status == RA_EDIVERGED;
    FUZZ_CHECK(status == RA_OK || status == RA_EUSAGE || may_differ, "%s", err.msg);
}

static void try_trace(const char *path)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_trace *trace;
    struct ra_trace_check_result result;
    const char *out;
    enum ra_status status = ra_trace_open(&trace, path, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (trace != NULL), "%s", path);
    if (status != RA_OK)
        return;
    const struct ra_trace_info *info = ra_trace_info(trace);
    check_info(info);
    for (int seq = 0; seq < info->n_seq && seq < MAX_SEQS; seq++) {
        read_seq(trace, seq);
        for (int layer = 0; layer < info->n_layers; layer++)
            read_layer(trace, seq, layer);
    }
    enum ra_status checked = ra_trace_check(trace, &result, NULL, NULL, &err);
    fuzz_check_error(checked, &err);
    if (checked == RA_OK || checked == RA_EDIVERGED)
        replay(info, path);
    ra_trace_close(trace);
    const char *text[] = {"info", "-vq", path},
               *json[] = {"info", "-q", "--format=json", "--verify", path};
    status = fuzz_run(&ra_cmd_info, 3, text, &out, &err);
    FUZZ_CHECK(status == RA_OK, "%s", err.msg);
    status = fuzz_run(&ra_cmd_info, 5, json, &out, &err);
    FUZZ_CHECK(status == checked, "%s", err.msg);
}

/* --- containers --------------------------------------------------------------------------------
 */

static enum ra_status copy(const struct ra_st_file *file, struct ra_st_writer *writer,
                           struct ra_error *err)
{
    size_t n = ra_st_count(file), index;
    for (size_t i = 0; i < ra_st_metadata_count(file); i++) {
        const char *key, *value;
        ra_st_metadata_at(file, i, &key, &value);
        if (strcmp(key, "content.sha256") != 0)
            RA_TRY(ra_st_writer_metadata(writer, key, value, err));
    }
    for (size_t i = 0; i < n; i++) {
        const struct ra_st_tensor *t = ra_st_at(file, i);
        RA_TRY(ra_st_writer_tensor(writer, t->name, t->dtype, t->rank, t->shape, &index, err));
    }
    RA_TRY(ra_st_writer_begin(writer, err));
    for (size_t i = 0; i < n; i++) {
        const struct ra_st_tensor *t = ra_st_at(file, i);
        void *bytes = room((size_t)t->bytes);
        enum ra_status status = ra_st_read(file, t, 0, bytes, (size_t)t->bytes, err);
        if (status == RA_OK)
            status = ra_st_writer_put(writer, i, 0, bytes, (size_t)t->bytes, err);
        free(bytes);
        RA_TRY(status);
    }
    return ra_st_writer_commit(writer, err);
}

static void same_container(const struct ra_st_file *a, const struct ra_st_file *b)
{
    FUZZ_CHECK(ra_st_count(a) == ra_st_count(b), "%zu tensors", ra_st_count(b));
    FUZZ_CHECK(ra_st_data_bytes(a) == ra_st_data_bytes(b), "bytes");
    for (size_t i = 0; i < ra_st_count(a); i++) {
        const struct ra_st_tensor *x = ra_st_at(a, i), *y = ra_st_find(b, x->name);
        FUZZ_CHECK(y && x->dtype == y->dtype && x->rank == y->rank && x->bytes == y->bytes &&
                       memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape) == 0,
                   "%s", x->name);
    }
    for (size_t i = 0; i < ra_st_metadata_count(a); i++) {
        const char *key, *value;
        ra_st_metadata_at(a, i, &key, &value);
        const char *other = ra_st_metadata(b, key);
        FUZZ_CHECK(strcmp(key, "content.sha256") == 0 || (other && strcmp(other, value) == 0), "%s",
                   key);
    }
}

static void try_container(const char *path)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_st_file *file, *again;
    struct ra_st_writer *writer;
    const char *target = fuzz_path("copy");
    enum ra_status status = ra_st_open(&file, path, &err);
    fuzz_check_error(status, &err);
    if (status != RA_OK)
        return;
    bool is_known = ra_st_count(file) <= MAX_COPIED;
    for (size_t i = 0; i < ra_st_count(file); i++)
        is_known = is_known && ra_st_at(file, i)->dtype != RA_ST_UNKNOWN;
    status = is_known ? ra_st_writer_open(&writer, target, &err) : RA_END;
    FUZZ_CHECK(status == RA_OK || status == RA_END, "%s", err.msg);
    if (status == RA_OK) {
        status = copy(file, writer, &err);
        ra_st_writer_close(writer);
        /* The format allows an empty name, and any extents beside a zero; the writer does not. */
        FUZZ_CHECK(status == RA_OK || strstr(err.msg, "cannot name a tensor") ||
                       strstr(err.msg, "its size exceeds 63 bits"),
                   "%s", err.msg);
    }
    if (status == RA_OK) {
        status = ra_st_open(&again, target, &err);
        FUZZ_CHECK(status == RA_OK, "%s", err.msg);
        same_container(file, again);
        ra_st_close(again);
    }
    ra_st_close(file);
}

/* --- inputs ------------------------------------------------------------------------------------
 */

static uint64_t length_of(const uint8_t *data)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | data[i];
    return n;
}

/* Index, NUL, then the first shard with its size (16 bits) before it, and the second one. */
static void try_folder(struct fuzz_input input)
{
    const uint8_t *end = memchr(input.at, 0, input.n);
    size_t n = end ? (size_t)(end - input.at) : input.n;
    fuzz_write(fuzz_path("shards/trace.index.json"), input.at, n);
    input.at += n;
    input.n -= n;
    if (input.n > 0)
        fuzz_take_byte(&input);
    size_t first = fuzz_take_byte(&input);
    first |= (size_t)fuzz_take_byte(&input) << 8;
    first = first < input.n ? first : input.n;
    fuzz_write(fuzz_path("shards/a.safetensors"), input.at, first);
    fuzz_write(fuzz_path("shards/b.safetensors"), input.at + first, input.n - first);
    try_trace(fuzz_path("shards"));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_clean("shards");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_path("trace");
    if (size > 0 && data[0] == '{') {
        try_folder((struct fuzz_input){data, size});
        return 0;
    }
    fuzz_write(path, data, size);
    try_container(path);
    try_trace(path);
    return 0;
}

/* Half of the time only the JSON text changes, and the length before it follows. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t n = size >= 8 ? length_of(data) : 0;
    if (seed % 2 || n == 0 || n > size - 8)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t behind = size - 8 - (size_t)n, most = max_size - 8 - behind;
    uint8_t *text = room(most);
    memcpy(text, data + 8, (size_t)n);
    size_t now = LLVMFuzzerMutate(text, (size_t)n, most);
    memmove(data + 8 + now, data + 8 + n, behind);
    memcpy(data + 8, text, now);
    for (int i = 0; i < 8; i++)
        data[i] = (uint8_t)((uint64_t)now >> (8 * i));
    free(text);
    return 8 + now + behind;
}
