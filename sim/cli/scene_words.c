/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scene of a few words: one layer, one head. The default nine have the scores of the worked
 * example at the prefill and at step 2, the only ones its policy looks at; every other score is
 * drawn, as is the query that schedules with sim= compare.
 */
#include "sim/cli/scene.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"

enum { N_DECODED = 4, MAX_WORDS = 200, QUERY_D = 8 };

static const char default_text[] = "the quick brown fox jumps over the lazy dog";

/* Scores of the last prompt word, and of the third decoded one. */
static const double example_prefill[] = {0.40, 0.05, 0.10, 0.25, 0.20};
static const double example_step_2[] = {0.20, 0.02, 0.30, 0.03, 0.05, 0.10, 0.18, 0.12};

struct words {
    char *text;
    const char *word[MAX_WORDS];
    struct ra_model model;
    struct ra_queries queries;
    double *mean;
    int layer_id;
    uint64_t seed;
    bool is_example;
};

static enum ra_status enter(struct ra_scene *scene, int layer, struct ra_error *err)
{
    (void)scene, (void)layer, (void)err;
    return RA_OK;
}

/* A word's weight is mostly its own (stream 0) and partly the query's whim (stream t + 2). */
static void draw(uint64_t seed, int32_t t, int32_t L, double *prob)
{
    uint64_t own = ra_rng_key(seed, 0), whim = ra_rng_key(seed, (uint64_t)t + 2);
    double sum = 0;
    for (int32_t j = 0; j < L; j++) {
        prob[j] =
            exp(1.2 * ra_rng_normal(own, (uint64_t)j) + 0.8 * ra_rng_normal(whim, (uint64_t)j));
        sum += prob[j];
    }
    for (int32_t j = 0; j < L; j++)
        prob[j] /= sum;
}

static void score(struct ra_scene *scene, int32_t t, double *prob)
{
    const struct words *words = scene->self;
    if (words->is_example && t == -1)
        memcpy(prob, example_prefill, sizeof example_prefill);
    else if (words->is_example && t == 2)
        memcpy(prob, example_step_2, sizeof example_step_2);
    else
        draw(words->seed, t, scene->env.P + t + 1, prob);
}

static void name(const struct ra_scene *scene, int32_t pos, char out[RA_SCENE_NAME])
{
    const struct words *words = scene->self;
    snprintf(out, RA_SCENE_NAME, "%s", words->word[pos]);
}

static void close_words(struct ra_scene *scene)
{
    struct words *words = scene->self;
    if (words) {
        free(words->text);
        free(words->mean);
    }
    free(words);
}

/* Means that turn a little from step to step. */
static enum ra_status draw_queries(struct words *words, int32_t N, struct ra_error *err)
{
    words->mean = malloc((size_t)(N + 1) * QUERY_D * sizeof *words->mean);
    if (!words->mean)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for queries");
    uint64_t own = ra_rng_key(words->seed, 1000000);
    for (int32_t row = 0; row <= N; row++) {
        uint64_t whim = ra_rng_key(words->seed, 1000001 + (uint64_t)row);
        for (int d = 0; d < QUERY_D; d++)
            words->mean[row * QUERY_D + d] =
                ra_rng_normal(own, (uint64_t)d) + 0.6 * ra_rng_normal(whim, (uint64_t)d);
    }
    words->queries = (struct ra_queries){.n_layers = 1, .D = QUERY_D, .N = N, .mean = words->mean};
    return RA_OK;
}

static enum ra_status split(struct words *words, const char *text, int *n, struct ra_error *err)
{
    char *rest;
    words->text = strdup(text);
    if (!words->text)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for the text");
    *n = 0;
    for (char *word = strtok_r(words->text, " \t\r\n", &rest); word;
         word = strtok_r(NULL, " \t\r\n", &rest)) {
        if (*n == MAX_WORDS)
            return ra_fail(err, RA_EUSAGE, "--text: expected at most %d words", MAX_WORDS);
        words->word[(*n)++] = word;
    }
    if (*n <= N_DECODED)
        return ra_fail(err, RA_EUSAGE, "--text: expected at least %d words, got %d", N_DECODED + 1,
                       *n);
    return RA_OK;
}

enum ra_status ra_scene_words(struct ra_scene *scene, const char *text, uint64_t seed,
                              struct ra_error *err)
{
    int n = 0;
    memset(scene, 0, sizeof *scene);
    struct words *words = calloc(1, sizeof *words);
    if (!words)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for the text");
    scene->self = words;
    scene->close = close_words;
    enum ra_status status = split(words, text ? text : default_text, &n, err);
    words->seed = seed;
    words->is_example = !text && seed == 0;
    if (status == RA_OK)
        status = draw_queries(words, N_DECODED, err);
    if (status != RA_OK) {
        ra_scene_close(scene);
        return status;
    }
    words->model = (struct ra_model){.n_layers = 1,
                                     .Hq = 1,
                                     .Hkv = 1,
                                     .G = 1,
                                     .D = QUERY_D,
                                     .Dv = QUERY_D,
                                     .dtype = RA_F16,
                                     .attn_scale = 1,
                                     .rope = {.type = RA_ROPE_NONE}};
    scene->env = (struct ra_policy_env){.model = &words->model,
                                        .P = n - N_DECODED,
                                        .N = N_DECODED,
                                        .n_layers = 1,
                                        .layer_ids = &words->layer_id,
                                        .queries = &words->queries};
    scene->title = text ? text : default_text;
    scene->scores = words->is_example
                        ? "of the worked example at the prefill and at i = 3; elsewhere drawn"
                        : "drawn from the seed; the words decide nothing";
    scene->enter = enter;
    scene->score = score;
    scene->name = name;
    return RA_OK;
}

void ra_scene_close(struct ra_scene *scene)
{
    if (scene->close)
        scene->close(scene);
    memset(scene, 0, sizeof *scene);
}
