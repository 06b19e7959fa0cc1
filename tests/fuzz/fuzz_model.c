/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model directory and files of token ids hold. The first byte says which: 'i', one text, and
 * 'p', prompts, are a safetensors header up to a NUL and data; all else is a config.json up to a
 * NUL, then header and data of the weights. Lengths of headers are always true. Whatever opens is
 * read to its last element.
 */
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "traces/model/ids.h"
#include "traces/model/weights.h"

enum { VOCAB = 50 };

/* What stands before a NUL, which is dropped. */
static struct fuzz_input take_part(struct fuzz_input *input)
{
    const uint8_t *nul = memchr(input->at, 0, input->n);
    struct fuzz_input part = {input->at, nul ? (size_t)(nul - input->at) : input->n};
    size_t used = part.n + (nul != NULL);
    *input = (struct fuzz_input){input->at + used, input->n - used};
    return part;
}

static const char *write_container(const char *path, struct fuzz_input input)
{
    struct fuzz_input header = take_part(&input);
    uint8_t *bytes = malloc(8 + header.n + input.n);
    FUZZ_CHECK(bytes, "memory");
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)header.n >> 8 * i);
    memcpy(bytes + 8, header.at, header.n);
    if (input.n > 0)
        memcpy(bytes + 8 + header.n, input.at, input.n);
    fuzz_write(path, bytes, 8 + header.n + input.n);
    free(bytes);
    return path;
}

static void check_tokens(const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(tokens[i] >= 0 && tokens[i] < VOCAB, "token %d", tokens[i]);
}

static void try_ids(struct fuzz_input input)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_ids *ids;
    enum ra_status status =
        ra_ids_open(&ids, write_container(fuzz_path("ids.safetensors"), input), VOCAB, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (ids != NULL), "ids");
    if (ids) {
        FUZZ_CHECK(ids->n > 0 && ids->source && ids->license, "ids");
        check_tokens(ids->tokens, ids->n);
    }
    ra_ids_close(ids);
}

static void check_probe(const struct ra_prompts *p, size_t i)
{
    const struct ra_probe *probe = &p->probes[i], *last = i ? probe - 1 : NULL;
    FUZZ_CHECK(probe->prompt >= 0 && (size_t)probe->prompt < p->n, "prompt %d", probe->prompt);
    FUZZ_CHECK(probe->at >= p->prompt_len[probe->prompt] && probe->at < p->length[probe->prompt],
               "at %d", probe->at);
    FUZZ_CHECK(!last || last->prompt < probe->prompt ||
                   (last->prompt == probe->prompt && last->at < probe->at),
               "order of %zu", i);
    check_tokens(probe->candidates, (size_t)probe->n_candidates);
    for (int j = 0; j < probe->n_candidates; j++)
        FUZZ_CHECK(probe->candidates[j] != p->tokens[probe->prompt][probe->at], "itself");
}

static void try_prompts(struct fuzz_input input)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_prompts *p;
    enum ra_status status =
        ra_prompts_open(&p, write_container(fuzz_path("prompts.safetensors"), input), VOCAB, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (p != NULL), "prompts");
    if (p) {
        FUZZ_CHECK(p->n > 0 && p->n_probes > 0 && p->task && p->family, "prompts");
        for (size_t i = 0; i < p->n; i++) {
            FUZZ_CHECK(p->prompt_len[i] > 0 && p->prompt_len[i] < p->length[i], "%zu", i);
            check_tokens(p->tokens[i], (size_t)p->length[i]);
        }
        for (size_t i = 0; i < p->n_probes; i++)
            check_probe(p, i);
    }
    ra_prompts_close(p);
}

static void check_floats(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(isfinite(values[i]), "element %zu", i);
}

static void try_weights(const struct ra_lm_config *c, const char *folder)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_lm_weights *w;
    char hex[RA_SHA256_HEX];
    enum ra_status status = ra_lm_weights_open(&w, c, folder, NULL, NULL, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (w != NULL), "weights");
    size_t hidden = (size_t)c->hidden, ffn = (size_t)c->ffn;
    for (int layer = 0; w && layer < c->n_layers; layer++) {
        const struct ra_lm_layer *l = &w->layers[layer];
        check_floats(l->q, (size_t)c->Hq * (size_t)c->D * hidden);
        check_floats(l->mlp_norm, hidden);
        check_floats(l->down, ffn * hidden);
        FUZZ_CHECK(!c->qkv_bias == !l->k_bias && !c->qk_norm == !l->k_norm, "layer %d", layer);
    }
    if (w)
        check_floats(w->head, (size_t)c->vocab * hidden);
    if (w) {
        status = ra_lm_weights_digest(folder, hex, &err);
        FUZZ_CHECK(status == RA_OK && strlen(hex) == 64, "digest");
    }
    ra_lm_weights_close(w);
}

static void try_model(struct fuzz_input input)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_lm_config *c;
    const char *folder = fuzz_path("model");
    struct fuzz_input text = take_part(&input);
    fuzz_write(fuzz_path("model/config.json"), text.at, text.n);
    enum ra_status status = ra_lm_config_open(&c, folder, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (c != NULL), "config");
    if (!c)
        return;
    struct ra_model model = ra_lm_config_model(c, RA_F16);
    FUZZ_CHECK(ra_model_check(&model, &err) == RA_OK, "%s", err.msg);
    FUZZ_CHECK(c->n_eos >= 0 && c->n_eos <= RA_LM_MAX_EOS && c->bos >= -1, "tokens");
    FUZZ_CHECK(c->rope.theta >= 1 && c->rope_local.theta >= 1 && c->norm_eps > 0, "reals");
    bool any = false;
    for (int layer = 0; layer < c->n_layers; layer++)
        any = any || c->slides[layer];
    FUZZ_CHECK(any == (c->window > 0), "window %d", c->window);
    if (input.n > 0) {
        write_container(fuzz_path("model/model.safetensors"), input);
        try_weights(c, folder);
    }
    ra_lm_config_close(c);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_clean("model");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    if (size > 0 && data[0] != 'i' && data[0] != 'p') {
        try_model(input);
        return 0;
    }
    if (fuzz_take_byte(&input) == 'i')
        try_ids(input);
    else
        try_prompts(input);
    return 0;
}
