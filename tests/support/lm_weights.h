/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small model directories of each family in tmp_dir: names and shapes are written out here once
 * more, from the published models. Failures fail the test.
 */
#ifndef RA_TESTS_SUPPORT_LM_WEIGHTS_H
#define RA_TESTS_SUPPORT_LM_WEIGHTS_H

#include "traces/model/config.h"
#include "traces/safetensors.h"

/* Sizes that differ from each other: a transposed matrix cannot pass. LM_CHANGE goes with one of
 * the bases of lm_config.h. */
enum {
    LM_LAYERS = 2,
    LM_HIDDEN = 64,
    LM_FFN = 96,
    LM_VOCAB = 100,
    LM_D = 40,
    LM_Q = 4 * LM_D,
    LM_KV = 2 * LM_D
};
#define LM_CHANGE "'num_hidden_layers': 2, 'head_dim': 40"

struct lm_tensor {
    char name[96];
    uint64_t rows, cols; /* cols 0: a vector */
    enum ra_st_dtype dtype;
    int file;
};

/* What the next files will hold; may be changed between making and writing. */
extern struct lm_made {
    struct lm_tensor tensors[64];
    int n;
} lm_made;

/* A model of llama or mistral below `body`, "model."; with more tensors it is one of another
 * family. All f32, of file 0, without lm_head. */
void lm_make(const char *body);
void lm_add_qwen2(const char *body);
void lm_add_qwen3(const char *body);
void lm_make_gemma3(const char *body);
struct lm_tensor *lm_add(const char *prefix, const char *name, uint64_t rows, uint64_t cols);
struct lm_tensor *lm_named(const char *name);

/* Multiples of 1/64 in [-2, 2), exact in every type; differ by name and element. */
float lm_value(const char *name, uint64_t i);
uint64_t lm_elements(const struct lm_tensor *tensor);

/* The tensors of file number `file`. */
void lm_write_file(const char *name, int file);

/* model.safetensors of file 0, and a config.json (lm_config.h). */
struct ra_lm_config *lm_write_model(const char *base, const char *change);

#endif
