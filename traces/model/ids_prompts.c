/* SPDX-License-Identifier: Apache-2.0 */
/* Many prompts: tensors are read whole, checked against each other, and pointed into. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "traces/model/ids.h"
#include "traces/model/ids_file.h"

/* What the prompts point into. */
struct memory {
    int32_t *tokens;     /* of all prompts */
    int32_t *pairs;      /* [n_probes][2] */
    int32_t *candidates; /* [n_probes][width]; each row's own first */
    size_t n_tokens, width;
};

struct reader {
    struct ra_prompts *p;
    struct memory *memory;
    const struct ra_shards *file;
    int vocab;
};

static enum ra_status read_tensor(const struct reader *r, const char *name, bool required,
                                  struct ra_ids_shape *shape, int32_t **out, struct ra_error *err)
{
    void *values;
    RA_TRY(ra_ids_file_tensor(r->file, name, required, shape, &values, err));
    *out = values;
    return RA_OK;
}

static enum ra_status read_tensors(const struct reader *r, struct ra_error *err)
{
    struct ra_prompts *p = r->p;
    struct memory *memory = r->memory;
    struct ra_ids_shape tokens = {RA_ST_I32, 1, {0}}, lengths = tokens;
    RA_TRY(read_tensor(r, "tokens", true, &tokens, &memory->tokens, err));
    memory->n_tokens = (size_t)tokens.length[0];
    RA_TRY(read_tensor(r, "lengths", true, &lengths, &p->length, err));
    p->n = (size_t)lengths.length[0];
    RA_TRY(read_tensor(r, "prompt_len", true, &lengths, &p->prompt_len, err));
    struct ra_ids_shape seeds = {RA_ST_I64, 1, {p->n}}, depths = {RA_ST_F32, 1, {p->n}};
    void *values;
    RA_TRY(ra_ids_file_tensor(r->file, "seed", true, &seeds, &values, err));
    p->seed = values;
    RA_TRY(ra_ids_file_tensor(r->file, "depth", false, &depths, &values, err));
    p->depth = values;
    struct ra_ids_shape probes = {RA_ST_I32, 2, {0, 2}};
    RA_TRY(read_tensor(r, "probe", true, &probes, &memory->pairs, err));
    p->n_probes = (size_t)probes.length[0];
    struct ra_ids_shape candidates = {RA_ST_I32, 2, {p->n_probes, 0}};
    RA_TRY(read_tensor(r, "candidates", false, &candidates, &memory->candidates, err));
    memory->width = memory->candidates ? (size_t)candidates.length[1] : 0;
    return RA_OK;
}

/* Lengths, and where each prompt begins. */
static enum ra_status lay_out(const struct reader *r, struct ra_error *err)
{
    struct ra_prompts *p = r->p;
    size_t at = 0;
    p->tokens = calloc(p->n, sizeof *p->tokens);
    if (!p->tokens)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", ra_shards_path(r->file));
    for (size_t i = 0; i < p->n; i++) {
        char expected[64];
        size_t left = r->memory->n_tokens - at;
        if (p->length[i] < 2 || (size_t)p->length[i] > left) {
            snprintf(expected, sizeof expected, "at least 2 tokens, of which %zu are left", left);
            return ra_ids_file_fail(r->file, "lengths", i, expected, p->length[i], err);
        }
        if (p->prompt_len[i] < 1 || p->prompt_len[i] >= p->length[i]) {
            snprintf(expected, sizeof expected, "1 to %d, one less than its length",
                     p->length[i] - 1);
            return ra_ids_file_fail(r->file, "prompt_len", i, expected, p->prompt_len[i], err);
        }
        p->tokens[i] = r->memory->tokens + at;
        at += (size_t)p->length[i];
    }
    if (at != r->memory->n_tokens)
        return ra_fail(err, RA_EFORMAT, "%s: tokens: expected %zu, the sum of lengths, got %zu",
                       ra_shards_path(r->file), at, r->memory->n_tokens);
    return ra_ids_file_range(r->file, "tokens", r->memory->tokens, at, 0, r->vocab - 1, err);
}

static enum ra_status check_depths(const struct reader *r, struct ra_error *err)
{
    const struct ra_prompts *p = r->p;
    for (size_t i = 0; p->depth && i < p->n; i++)
        if (!isnan(p->depth[i]) && !(p->depth[i] >= 0 && p->depth[i] <= 1))
            return ra_fail(err, RA_EFORMAT,
                           "%s: depth: element %zu: expected 0 to 1, or NaN, got %g",
                           ra_shards_path(r->file), i, (double)p->depth[i]);
    return RA_OK;
}

/* Row i of the candidates, those that are none left out. */
static enum ra_status take_candidates(const struct reader *r, size_t i, struct ra_error *err)
{
    struct ra_probe *probe = &r->p->probes[i];
    size_t width = r->memory->width;
    int32_t *row = width ? r->memory->candidates + i * width : NULL;
    const int32_t *tokens = r->p->tokens[probe->prompt];
    RA_BUG_ON(!tokens);
    for (size_t j = 0; j < width; j++) {
        if (row[j] == tokens[probe->at])
            return ra_ids_file_fail(r->file, "candidates", i * width + j,
                                    "another token than the one that is judged", row[j], err);
        if (row[j] >= 0)
            row[probe->n_candidates++] = row[j];
    }
    probe->candidates = row;
    return RA_OK;
}

static enum ra_status take_probes(const struct reader *r, struct ra_error *err)
{
    struct ra_prompts *p = r->p;
    RA_TRY(ra_ids_file_range(r->file, "candidates", r->memory->candidates,
                             p->n_probes * r->memory->width, -1, r->vocab - 1, err));
    p->probes = calloc(p->n_probes, sizeof *p->probes);
    if (!p->probes)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", ra_shards_path(r->file));
    int32_t last_prompt = 0, last = -1;
    for (size_t i = 0; i < p->n_probes; i++) {
        int32_t prompt = r->memory->pairs[2 * i], at = r->memory->pairs[2 * i + 1];
        char expected[80];
        if (prompt < last_prompt || (size_t)prompt >= p->n) {
            snprintf(expected, sizeof expected, "a prompt from %d to %zu, ascending", last_prompt,
                     p->n - 1);
            return ra_ids_file_fail(r->file, "probe", 2 * i, expected, prompt, err);
        }
        int32_t first = prompt > last_prompt || last < 0 ? p->prompt_len[prompt] : last + 1;
        if (at < first || at >= p->length[prompt]) {
            snprintf(expected, sizeof expected, "a token of prompt %d from %d to %d, ascending",
                     prompt, first, p->length[prompt] - 1);
            return ra_ids_file_fail(r->file, "probe", 2 * i + 1, expected, at, err);
        }
        p->probes[i] = (struct ra_probe){.prompt = prompt, .at = at};
        RA_TRY(take_candidates(r, i, err));
        last_prompt = prompt;
        last = at;
    }
    return RA_OK;
}

static enum ra_status read_prompts(const struct reader *r, struct ra_error *err)
{
    struct ra_prompts *p = r->p;
    RA_TRY(read_tensors(r, err));
    RA_TRY(lay_out(r, err));
    RA_TRY(check_depths(r, err));
    RA_TRY(take_probes(r, err));
    RA_TRY(ra_ids_file_text(r->file, "task", true, &p->task, err));
    RA_TRY(ra_ids_file_text(r->file, "family", true, &p->family, err));
    RA_TRY(ra_ids_file_text(r->file, "source", false, &p->source, err));
    RA_TRY(ra_ids_file_text(r->file, "source_sha256", false, &p->source_sha256, err));
    RA_TRY(ra_ids_file_text(r->file, "license", false, &p->license, err));
    return ra_ids_file_text(r->file, "tokenizer.sha256", false, &p->tokenizer_sha256, err);
}

enum ra_status ra_prompts_open(struct ra_prompts **prompts, const char *path, int vocab,
                               struct ra_error *err)
{
    *prompts = NULL;
    struct ra_shards *file = NULL;
    RA_TRY(ra_ids_file_open(&file, path, "rattn-prompts", err));
    struct ra_prompts *p = calloc(1, sizeof *p);
    struct reader r = {p, p ? calloc(1, sizeof *r.memory) : NULL, file, vocab};
    if (p)
        p->memory = r.memory;
    enum ra_status st =
        r.memory ? read_prompts(&r, err) : ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    ra_shards_close(file);
    if (st == RA_OK)
        *prompts = p;
    else
        ra_prompts_close(p);
    return st;
}

void ra_prompts_close(struct ra_prompts *prompts)
{
    if (!prompts)
        return;
    struct memory *memory = prompts->memory;
    if (memory) {
        free(memory->tokens);
        free(memory->pairs);
        free(memory->candidates);
        free(memory);
    }
    free((void *)prompts->tokens);
    free(prompts->length);
    free(prompts->prompt_len);
    free(prompts->seed);
    free(prompts->depth);
    free(prompts->probes);
    free(prompts->task);
    free(prompts->family);
    free(prompts->source);
    free(prompts->source_sha256);
    free(prompts->license);
    free(prompts->tokenizer_sha256);
    free(prompts);
}
