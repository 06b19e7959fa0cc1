/* SPDX-License-Identifier: Apache-2.0 */
/* Random problems and the slowest possible attention, written for reading. */
#include "tests/support/backend_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/ra_test.h"

uint64_t ra_case_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int32_t ra_case_below(uint64_t *state, int32_t n)
{
    return (int32_t)(ra_case_random(state) % (uint64_t)n);
}

float ra_case_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)(ra_case_random(state) >> 40) * 0x1p-24f;
    return sum - 6;
}

static void *allocate(size_t n, size_t each)
{
    void *memory = calloc(n, each);
    assert_non_null(memory);
    return memory;
}

static size_t k_count(const struct ra_case *c)
{
    return (size_t)c->model.Hkv * (size_t)c->config.max_rows * (size_t)c->model.D;
}

static size_t v_count(const struct ra_case *c)
{
    return (size_t)c->model.Hkv * (size_t)c->config.max_rows * (size_t)c->model.Dv;
}

const int32_t *ra_case_each(int32_t K)
{
    static int32_t each[64];
    for (size_t head = 0; head < sizeof each / sizeof *each; head++)
        each[head] = K;
    return each;
}

void ra_case_init(struct ra_case *c, enum ra_dtype dtype, int Hkv, int G, int D, int Dv,
                  int32_t max_rows, uint64_t seed)
{
    *c = (struct ra_case){.seed = seed, .ops = ra_backend_find("cpu")};
    c->model = (struct ra_model){.n_layers = 4,
                                 .Hq = Hkv * G,
                                 .Hkv = Hkv,
                                 .G = G,
                                 .D = D,
                                 .Dv = Dv,
                                 .dtype = dtype,
                                 .attn_scale = 1 / sqrt(D)};
    c->config = (struct ra_backend_config){
        .n_layers = 1, .max_rows = max_rows, .max_retained = max_rows, .n_threads = 1};
    size_t element = ra_dtype_bytes(dtype);
    c->k = allocate(k_count(c), element);
    c->v = allocate(v_count(c), element);
    c->kf = allocate(k_count(c), sizeof *c->kf);
    c->vf = allocate(v_count(c), sizeof *c->vf);
    c->q = allocate((size_t)(c->model.Hq * D), sizeof *c->q);
    c->out = allocate((size_t)(c->model.Hq * Dv), sizeof *c->out);
    ra_case_fill(c, 1, 1);
    ra_case_query(c, 1);
}

void ra_case_fini(struct ra_case *c)
{
    ra_case_close(c);
    free(c->k);
    free(c->v);
    free(c->kf);
    free(c->vf);
    free(c->q);
    free(c->out);
}

static void random_rows(struct ra_case *c, float *wide, char *stored, size_t n, float size)
{
    for (size_t i = 0; i < n; i++)
        wide[i] = size * ra_case_normal(&c->seed);
    ra_narrow(c->model.dtype, wide, n, stored);
    ra_widen(c->model.dtype, stored, n, wide);
}

void ra_case_fill(struct ra_case *c, float k_size, float v_size)
{
    random_rows(c, c->kf, c->k, k_count(c), k_size);
    random_rows(c, c->vf, c->v, v_count(c), v_size);
}

void ra_case_query(struct ra_case *c, float size)
{
    size_t n = (size_t)(c->model.Hq * c->model.D);
    char *stored = allocate(n, ra_dtype_bytes(c->model.dtype));
    random_rows(c, c->q, stored, n, size);
    free(stored);
}

void ra_case_open(struct ra_case *c, int32_t P)
{
    struct ra_error err = {0};
    size_t rows = (size_t)c->config.max_rows, element = ra_dtype_bytes(c->model.dtype);
    c->config.model = &c->model;
    c->config.window = c->window;
    ra_assert_ok(c->ops->open(&c->self, &c->config, &err));
    const struct ra_prompt_rows prompt = {.k = c->k,
                                          .v = c->v,
                                          .k_stride = rows * (size_t)c->model.D * element,
                                          .v_stride = rows * (size_t)c->model.Dv * element,
                                          .P = P};
    for (int layer = 0; layer < c->config.n_layers; layer++)
        ra_assert_ok(c->ops->load(c->self, layer, &prompt, &err));
}

void ra_case_close(struct ra_case *c)
{
    c->ops->close(c->self);
    c->self = NULL;
}

void ra_case_append(struct ra_case *c, int layer, int32_t row)
{
    struct ra_error err = {0};
    size_t element = ra_dtype_bytes(c->model.dtype), Hkv = (size_t)c->model.Hkv;
    size_t k_row = (size_t)c->model.D * element, v_row = (size_t)c->model.Dv * element;
    char *k = allocate(Hkv, k_row), *v = allocate(Hkv, v_row);
    for (size_t head = 0; head < Hkv; head++) {
        size_t at = head * (size_t)c->config.max_rows + (size_t)row;
        memcpy(k + head * k_row, c->k + at * k_row, k_row);
        memcpy(v + head * v_row, c->v + at * v_row, v_row);
    }
    ra_assert_ok(c->ops->append(c->self, layer, k, v, &err));
    free(k);
    free(v);
}

void ra_case_attend(const struct ra_case *c, int head, const int32_t *pos, int32_t n, double *prob,
                    double *out)
{
    const struct ra_model *m = &c->model;
    double *p = allocate((size_t)n, sizeof *p), largest = -INFINITY, sum = 0;
    size_t first = (size_t)(head / m->G) * (size_t)c->config.max_rows;
    for (int32_t i = 0; i < n; i++) {
        const float *row = c->kf + (first + (size_t)pos[i]) * (size_t)m->D;
        for (int d = 0; d < m->D; d++)
            p[i] += (double)c->q[head * m->D + d] * (double)row[d];
        p[i] *= m->attn_scale;
        largest = fmax(largest, p[i]);
    }
    for (int32_t i = 0; i < n; i++)
        sum += exp(p[i] - largest);
    memset(out, 0, (size_t)m->Dv * sizeof *out);
    for (int32_t i = 0; i < n; i++) {
        const float *row = c->vf + (first + (size_t)pos[i]) * (size_t)m->Dv;
        double weight = exp(p[i] - largest) / sum;
        if (prob)
            prob[i] = weight;
        for (int d = 0; d < m->Dv; d++)
            out[d] += weight * (double)row[d];
    }
    free(p);
}

double ra_case_error(const struct ra_case *c, const struct ra_positions *lists, int n_lists)
{
    double worst = 0, *expected = allocate((size_t)c->model.Dv, sizeof *expected);
    for (int head = 0; head < c->model.Hq; head++) {
        const struct ra_positions *list = &lists[head / (c->model.Hq / n_lists)];
        ra_case_attend(c, head, list->pos, list->n, NULL, expected);
        double error =
            ra_relative_error(c->out + head * c->model.Dv, expected, (size_t)c->model.Dv);
        assert_true(error >= 0); /* not NaN */
        worst = fmax(worst, error);
    }
    free(expected);
    return worst;
}
