/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder on a real model at 2048 tokens: a dense prefill, against the matrix products of its
 * weights alone; decode steps under full attention, one sequence, against one read of the weights.
 * Ids are drawn: what a text says costs nothing. Prints lines of JSON.
 * usage: bench_decoder MODEL_DIR
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "sim/base/rng.h"
#include "traces/model/gemm.h"
#include "traces/model/loop.h"

enum { P = 2048, CHECK_P = 300, PREFILLS = 3, STEPS = 16, DECODES = 7, N = STEPS * DECODES + 1 };

struct bench {
    struct ra_lm_config *config;
    struct ra_lm_weights *weights;
    struct ra_pool *pool;
    struct ra_lm lm;
    int32_t tokens[P + N + 1];
    float *a, *c; /* [RA_LM_CHUNK][widest] of products alone */
    float *logits;
    double sums[64]; /* of reads, so that they are made */
    double gap;      /* of the check */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor time of all threads, which a crowded machine changes less than it does the clock's. */
static double processor(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* The matrices of a layer: outputs, inputs. */
struct matrix {
    const float *at;
    int outs, ins;
};
enum { PER_LAYER = 7 };

static void matrices_of(const struct bench *b, int layer, struct matrix out[PER_LAYER])
{
    const struct ra_lm_config *c = b->config;
    const struct ra_lm_layer *w = &b->weights->layers[layer];
    int q = c->Hq * c->D, kv = c->Hkv * c->D;
    out[0] = (struct matrix){w->q, q, c->hidden};
    out[1] = (struct matrix){w->k, kv, c->hidden};
    out[2] = (struct matrix){w->v, kv, c->hidden};
    out[3] = (struct matrix){w->o, c->hidden, q};
    out[4] = (struct matrix){w->gate, c->ffn, c->hidden};
    out[5] = (struct matrix){w->up, c->ffn, c->hidden};
    out[6] = (struct matrix){w->down, c->hidden, c->ffn};
}

/* What a prefill multiplies, chunk by chunk; attention's own products are not among it. */
static void products_alone(struct bench *b)
{
    struct matrix all[PER_LAYER];
    for (int begin = 0; begin < P; begin += RA_LM_CHUNK)
        for (int l = 0; l < b->config->n_layers; l++) {
            matrices_of(b, l, all);
            for (int i = 0; i < PER_LAYER; i++)
                ra_gemm_nt(RA_LM_CHUNK, all[i].outs, all[i].ins,
                           (struct ra_matrix){b->a, all[i].ins},
                           (struct ra_matrix){(float *)all[i].at, all[i].ins},
                           (struct ra_matrix){b->c, all[i].outs});
        }
}

/* Task: a share of every matrix, read once. */
static void read_share(void *context, size_t index, int worker)
{
    struct bench *b = context;
    size_t n_shares = (size_t)ra_pool_threads(b->pool);
    float lanes[16] = {0};
    (void)worker;
    for (int l = 0; l <= b->config->n_layers; l++) {
        struct matrix all[PER_LAYER] = {{b->weights->head, b->config->vocab, b->config->hidden}};
        if (l < b->config->n_layers)
            matrices_of(b, l, all);
        for (int i = 0; i < (l < b->config->n_layers ? PER_LAYER : 1); i++) {
            size_t n = (size_t)all[i].outs * (size_t)all[i].ins / 16;
            for (size_t j = n * index / n_shares; j < n * (index + 1) / n_shares; j++)
                for (size_t lane = 0; lane < 16; lane++)
                    lanes[lane] += all[i].at[16 * j + lane];
        }
    }
    for (int lane = 0; lane < 16; lane++)
        b->sums[index % 64] += (double)lanes[lane];
}

static enum ra_status prefill(struct bench *b, int32_t n, struct ra_lm_prompt **prompt,
                              struct ra_error *err)
{
    struct ra_lm_prompt_config config = {.tokens = b->tokens, .P = n, .W = 1, .pool = b->pool};
    return ra_lm_prompt_open(prompt, &b->lm, &config, err);
}

static enum ra_status open_loop(struct bench *b, const struct ra_lm_prompt *prompt,
                                const struct ra_policy_spec *spec, struct ra_lm_loop **loop,
                                struct ra_error *err)
{
    static const struct ra_policy_spec *specs[1];
    specs[0] = spec;
    struct ra_lm_loop_config config = {.lm = &b->lm,
                                       .prompt = prompt,
                                       .n = 1,
                                       .specs = specs,
                                       .backend = ra_backend_find("cpu"),
                                       .N = N,
                                       .pool = b->pool};
    return ra_lm_loop_open(loop, &config, err);
}

static enum ra_status step(struct bench *b, struct ra_lm_loop *loop, const int32_t *token,
                           struct ra_error *err)
{
    const float *hidden;
    RA_TRY(ra_lm_loop_step(loop, token, &hidden, err));
    ra_lm_logits(&b->lm, 1, hidden, b->logits);
    return RA_OK;
}

/* A step's logits are those of a prefill one token longer, but for roundings. */
static enum ra_status check(struct bench *b, const struct ra_policy_spec *spec,
                            struct ra_error *err)
{
    struct ra_lm_prompt *prompt, *longer;
    struct ra_lm_loop *loop;
    double largest = 1e-30;
    RA_TRY(prefill(b, CHECK_P, &prompt, err));
    RA_TRY(prefill(b, CHECK_P + 1, &longer, err));
    RA_TRY(open_loop(b, prompt, spec, &loop, err));
    RA_TRY(step(b, loop, &b->tokens[CHECK_P], err));
    for (int i = 0; i < b->config->vocab; i++) {
        b->gap = fmax(b->gap, fabs((double)b->logits[i] - (double)longer->logits[i]));
        largest = fmax(largest, fabs((double)longer->logits[i]));
    }
    b->gap /= largest;
    ra_lm_loop_close(loop);
    ra_lm_prompt_close(prompt);
    ra_lm_prompt_close(longer);
    return b->gap < 1e-2
               ? RA_OK
               : ra_fail(err, RA_EDIVERGED, "a step and a prefill differ by %.3g", b->gap);
}

/* Of one run: rates of one side and of what bounds it, processor time of the former. */
struct run {
    double rate, bound, cpu;
};

static void put(const struct bench *b, const char *name, const struct run *runs, int n)
{
    static const char *const keys[] = {"tokens_per_s", "bound", "cpu_ms_per_token"};
    printf("{\"case\":\"%s\",\"gap\":%.3g,\"threads\":%d,\"gemm\":\"%s\"", name, b->gap,
           ra_pool_threads(b->pool), ra_gemm_name());
    for (int key = 0; key < 3; key++) {
        printf(",\"%s\":[", keys[key]);
        for (int i = 0; i < n; i++) {
            const struct run *r = &runs[i];
            double value = key == 0 ? r->rate : key == 1 ? r->bound : 1000 * r->cpu;
            printf("%s%.6g", i ? "," : "", value);
        }
        putchar(']');
    }
    puts("}");
}

static enum ra_status time_prefill(struct bench *b, struct ra_lm_prompt **prompt,
                                   struct ra_error *err)
{
    struct run runs[PREFILLS];
    for (int i = 0; i < PREFILLS; i++) {
        ra_lm_prompt_close(*prompt);
        *prompt = NULL;
        double start = now(), cpu = processor();
        RA_TRY(prefill(b, P, prompt, err));
        runs[i].rate = P / (now() - start);
        runs[i].cpu = (processor() - cpu) / P;
        start = now();
        products_alone(b);
        runs[i].bound = P / (now() - start);
    }
    put(b, "prefill", runs, PREFILLS);
    return RA_OK;
}

static enum ra_status time_steps(struct bench *b, const struct ra_lm_prompt *prompt,
                                 const struct ra_policy_spec *spec, struct ra_error *err)
{
    struct ra_lm_loop *loop;
    struct run runs[DECODES];
    const int32_t *token = b->tokens + P;
    RA_TRY(open_loop(b, prompt, spec, &loop, err));
    RA_TRY(step(b, loop, token++, err));
    for (int i = 0; i < DECODES; i++) {
        double start = now(), cpu = processor();
        for (int j = 0; j < STEPS; j++)
            RA_TRY(step(b, loop, token++, err));
        runs[i].rate = STEPS / (now() - start);
        runs[i].cpu = (processor() - cpu) / STEPS;
        start = now();
        for (int j = 0; j < STEPS; j++)
            ra_pool_run(b->pool, (size_t)ra_pool_threads(b->pool), read_share, b);
        runs[i].bound = STEPS / (now() - start);
    }
    ra_lm_loop_close(loop);
    put(b, "decode", runs, DECODES);
    return RA_OK;
}

static enum ra_status prepare(struct bench *b, const char *dir, struct ra_error *err)
{
    RA_TRY(ra_pool_open(&b->pool, 0, err));
    RA_TRY(ra_gemm_open(RA_GEMM_BLAS, ra_pool_threads(b->pool), err));
    RA_TRY(ra_lm_config_open(&b->config, dir, err));
    RA_TRY(ra_lm_weights_open(&b->weights, b->config, dir, NULL, NULL, err));
    RA_TRY(ra_lm_open(&b->lm, b->config, b->weights, RA_F16, RA_LM_CHUNK, err));
    const struct ra_lm_config *c = b->config;
    int widest = c->ffn > c->Hq * c->D ? c->ffn : c->Hq * c->D;
    widest = widest > c->hidden ? widest : c->hidden;
    b->a = calloc((size_t)RA_LM_CHUNK * (size_t)widest, sizeof *b->a);
    b->c = calloc((size_t)RA_LM_CHUNK * (size_t)widest, sizeof *b->c);
    b->logits = malloc((size_t)c->vocab * sizeof *b->logits);
    if (!b->a || !b->c || !b->logits)
        return ra_fail(err, RA_ENOMEM, "out of memory");
    for (int i = 0; i < RA_LM_CHUNK * widest; i++)
        b->a[i] = (float)ra_rng_normal(1, (uint64_t)i);
    for (int i = 0; i < P + N + 1; i++)
        b->tokens[i] = ra_rng_int(2, (uint64_t)i, 0, c->vocab - 1);
    return RA_OK;
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct ra_error err = {.msg = "expected one argument: MODEL_DIR"};
    struct ra_policy_spec *spec = NULL;
    struct ra_lm_prompt *prompt = NULL;
    enum ra_status st = argc == 2 ? prepare(&b, argv[1], &err) : RA_EUSAGE;
    if (st == RA_OK)
        st = ra_policy_parse(&spec, "full", &err);
    if (st == RA_OK)
        st = check(&b, spec, &err);
    if (st == RA_OK)
        st = time_prefill(&b, &prompt, &err);
    if (st == RA_OK)
        st = time_steps(&b, prompt, spec, &err);
    if (st != RA_OK)
        fprintf(stderr, "bench: decoder: %s\n", err.msg);
    ra_lm_prompt_close(prompt);
    ra_policy_spec_close(spec);
    ra_lm_close(&b.lm);
    ra_lm_weights_close(b.weights);
    ra_lm_config_close(b.config);
    ra_pool_close(b.pool);
    free(b.a);
    free(b.c);
    free(b.logits);
    return st == RA_OK ? 0 : st == RA_ENODEV ? 3 : 1;
}
