/* SPDX-License-Identifier: Apache-2.0 */
/* One table for all families: a row has its place, its two dimensions, and when it is there. */
#include "traces/model/weights_list.h"

#include <stdio.h>
#include <string.h>

enum dim { NONE, HIDDEN, FFN, VOCAB, Q, KV, HEAD };
enum when { ALWAYS, IF_BIAS, IF_QK_NORM, IF_POST_NORMS, IF_NO_POST_NORMS, IF_UNTIED };

struct row {
    const char *name;
    size_t slot;
    enum dim rows, cols;
    enum when when;
    bool is_norm;
};

#define LAYER(member) offsetof(struct ra_lm_layer, member)
#define MODEL(member) offsetof(struct ra_lm_weights, member)

/* post_attention_layernorm comes after attention in one family and before the MLP, which is after
 * the residual is added, in the others. */
static const struct row of_layer[] = {
    {"input_layernorm.weight", LAYER(input_norm), HIDDEN, NONE, ALWAYS, true},
    {"self_attn.q_proj.weight", LAYER(q), Q, HIDDEN, ALWAYS, false},
    {"self_attn.k_proj.weight", LAYER(k), KV, HIDDEN, ALWAYS, false},
    {"self_attn.v_proj.weight", LAYER(v), KV, HIDDEN, ALWAYS, false},
    {"self_attn.q_proj.bias", LAYER(q_bias), Q, NONE, IF_BIAS, false},
    {"self_attn.k_proj.bias", LAYER(k_bias), KV, NONE, IF_BIAS, false},
    {"self_attn.v_proj.bias", LAYER(v_bias), KV, NONE, IF_BIAS, false},
    {"self_attn.q_norm.weight", LAYER(q_norm), HEAD, NONE, IF_QK_NORM, true},
    {"self_attn.k_norm.weight", LAYER(k_norm), HEAD, NONE, IF_QK_NORM, true},
    {"self_attn.o_proj.weight", LAYER(o), HIDDEN, Q, ALWAYS, false},
    {"post_attention_layernorm.weight", LAYER(attn_post_norm), HIDDEN, NONE, IF_POST_NORMS, true},
    {"pre_feedforward_layernorm.weight", LAYER(mlp_norm), HIDDEN, NONE, IF_POST_NORMS, true},
    {"post_attention_layernorm.weight", LAYER(mlp_norm), HIDDEN, NONE, IF_NO_POST_NORMS, true},
    {"mlp.gate_proj.weight", LAYER(gate), FFN, HIDDEN, ALWAYS, false},
    {"mlp.up_proj.weight", LAYER(up), FFN, HIDDEN, ALWAYS, false},
    {"mlp.down_proj.weight", LAYER(down), HIDDEN, FFN, ALWAYS, false},
    {"post_feedforward_layernorm.weight", LAYER(mlp_post_norm), HIDDEN, NONE, IF_POST_NORMS, true},
};

static const struct row of_model[] = {
    {"embed_tokens.weight", MODEL(embed), VOCAB, HIDDEN, ALWAYS, false},
    {"norm.weight", MODEL(norm), HIDDEN, NONE, ALWAYS, true},
    {NULL, MODEL(head), VOCAB, HIDDEN, IF_UNTIED, false}, /* named by the naming */
};

enum { N_OF_LAYER = sizeof of_layer / sizeof of_layer[0] };
enum { N_OF_MODEL = sizeof of_model / sizeof of_model[0] };

static bool is_there(const struct ra_lm_config *c, enum when when)
{
    switch (when) {
    case ALWAYS:
        return true;
    case IF_BIAS:
        return c->qkv_bias;
    case IF_QK_NORM:
        return c->qk_norm;
    case IF_POST_NORMS:
        return c->post_norms;
    case IF_NO_POST_NORMS:
        return !c->post_norms;
    case IF_UNTIED:
        return !c->tied;
    }
    return false;
}

static uint64_t length(const struct ra_lm_config *c, enum dim dim)
{
    switch (dim) {
    case NONE:
        return 1;
    case HIDDEN:
        return (uint64_t)c->hidden;
    case FFN:
        return (uint64_t)c->ffn;
    case VOCAB:
        return (uint64_t)c->vocab;
    case Q:
        return (uint64_t)c->Hq * (uint64_t)c->D;
    case KV:
        return (uint64_t)c->Hkv * (uint64_t)c->D;
    case HEAD:
        return (uint64_t)c->D;
    }
    return 0;
}

static size_t count(const struct ra_lm_config *c, const struct row *rows, size_t n)
{
    size_t there = 0;
    for (size_t i = 0; i < n; i++)
        there += is_there(c, rows[i].when);
    return there;
}

size_t ra_lm_tensor_count(const struct ra_lm_config *config)
{
    return count(config, of_model, N_OF_MODEL) +
           (size_t)config->n_layers * count(config, of_layer, N_OF_LAYER);
}

/* The i-th that is there. */
static const struct row *row_at(const struct ra_lm_config *c, const struct row *rows, size_t i)
{
    for (; !is_there(c, rows->when) || i > 0; rows++)
        i -= is_there(c, rows->when);
    return rows;
}

static void write_name(struct ra_lm_tensor *tensor, const struct row *row,
                       const struct ra_lm_naming *naming)
{
    char *out = tensor->name;
    size_t room = sizeof tensor->name;
    if (tensor->layer >= 0)
        snprintf(out, room, "%slayers.%d.%s", naming->body, tensor->layer, row->name);
    else
        snprintf(out, room, "%s%s", row->name ? naming->body : naming->head,
                 row->name ? row->name : "");
}

struct ra_lm_tensor ra_lm_tensor_at(const struct ra_lm_config *config,
                                    const struct ra_lm_naming *naming, size_t i)
{
    size_t n_model = count(config, of_model, N_OF_MODEL);
    size_t n_layer = count(config, of_layer, N_OF_LAYER);
    bool of_a_layer = i >= n_model;
    const struct row *row = of_a_layer ? row_at(config, of_layer, (i - n_model) % n_layer)
                                       : row_at(config, of_model, i);
    struct ra_lm_tensor tensor = {
        .rank = row->cols == NONE ? 1 : 2,
        .shape = {length(config, row->rows), length(config, row->cols)},
        .is_norm = row->is_norm,
        .layer = of_a_layer ? (int)((i - n_model) / n_layer) : -1,
        .slot = row->slot,
    };
    tensor.n = tensor.shape[0] * tensor.shape[1];
    if (naming)
        write_name(&tensor, row, naming);
    return tensor;
}
