/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the cuda backend that cut C_r by scores, recorded and played: the same outputs as when
 * they were called, whoever goes, the rule's choice or another's; and choose among pages. Would
 * catch an operand that is read where the checked run had it, scores that a play does not begin
 * anew, and copies whose scores mix.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emu/control.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 3, D = 64, LAYERS = 2, PROMPT = 90, STEPS = 12, K = 20, COPIES = 3 };
enum { FLOATS = HKV * G * D };

struct way {
    enum ra_dtype dtype;
    enum ra_cache_mode cache;
    int page, copies; /* copies apart, from 2 on */
    bool of_layer, told, early, no_graph;
    bool chooses; /* among pages too */
};

struct run {
    const struct way *way;
    struct ra_case c;
    bool records;
    float *out;       /* [STEPS][LAYERS][copies][FLOATS] when called */
    uint32_t *chosen; /* [STEPS][LAYERS][copies] when called: pages */
    int32_t *evicted; /* [STEPS][LAYERS][copies][HKV] when called: the rule's choices */
};

static void query_of(struct run *run, int32_t t, int layer, int copy)
{
    size_t at = (size_t)(t + 1) * 977 % 400 * D / 64 + (size_t)(31 * layer + 7 * copy);
    for (int i = 0; i < FLOATS; i++)
        run->c.q[i] = run->c.kf[at + (size_t)i];
}

/* Every fourth position of the prompt, with scores; of each copy others. */
static enum ra_status install(struct run *run, int layer, int copy, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    int64_t moved;
    for (int h = 0; h < HKV; h++) {
        int32_t set[K - 2];
        double score[K - 2];
        for (int i = 0; i < K - 2; i++) {
            set[i] = 4 * i + (run->way->of_layer ? 0 : h) + copy;
            score[i] = (double)((7 * i + 3 * h + layer + copy) % (K - 2)) / K;
        }
        struct ra_positions all = {.pos = set, .n = K - 2};
        struct ra_retained retained = {.set = all, .evict = all, .score = score};
        c->ops->adopt(c->self, layer, h, &retained);
    }
    return c->ops->refresh(c->self, layer, &moved, err);
}

static enum ra_status append(struct run *run, int32_t t, int layer, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    char k[HKV * D * 4], v[HKV * D * 4];
    size_t row = (size_t)D * ra_dtype_bytes(c->model.dtype);
    for (size_t h = 0; h < HKV; h++) {
        size_t at = (h * (size_t)c->config.max_rows + (size_t)(PROMPT + t)) * row;
        memcpy(k + h * row, c->k + at, row);
        memcpy(v + h * row, c->v + at, row);
    }
    return c->ops->append(c->self, layer, k, v, err);
}

static int32_t prompt_of(const struct run *run, int copy)
{
    return run->way->copies > 1 ? PROMPT - 3 * copy : PROMPT;
}

/* Copies are cut by rules of their own. Every fourth step self goes, whatever the rule says; a
 * recording may be told who goes at the others, as the engine does. */
static enum ra_status cut(struct run *run, int32_t t, int layer, int copy, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    const struct way *way = run->way;
    const float *scores[HKV];
    int32_t now[HKV], instead[HKV], self = prompt_of(run, copy) + t;
    int32_t *then = run->evicted + ((t * LAYERS + layer) * way->copies + copy) * HKV;
    struct ra_cut_rule rule = {.K = K - copy / 2,
                               .recent = 3 * (1 - copy % 2),
                               .agg = RA_AGG_SUM,
                               .adds_up = !way->of_layer,
                               .of_layer = way->of_layer};
    for (int h = 0; h < HKV; h++)
        instead[h] = t % 4 == 3 ? self : run->records && way->told ? then[h] : -1;
    RA_TRY(c->ops->accumulate(c->self, layer, rule.agg, rule.adds_up, scores, err));
    RA_TRY(c->ops->cut(c->self, layer, &rule, instead, now, err));
    if (run->records)
        assert_memory_equal(now, then, sizeof now);
    memcpy(then, now, sizeof now);
    return RA_OK;
}

/* Layers differ; the second's pages are those of the prompt. */
static const struct ra_page_rule pages_of[LAYERS] = {
    {.K = 40, .page = 8, .least = 1, .takes_newest = true},
    {.K = 30, .page = 4, .least = 1, .rows = PROMPT, .digest = RA_PAGE_MEAN}};

/* What a recording returns is what was chosen when it was called. */
static enum ra_status choose(struct run *run, int32_t t, int layer, int copy, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    struct ra_positions order[HKV];
    uint32_t *then = run->chosen + (t * LAYERS + layer) * run->way->copies + copy, now = 1;
    RA_TRY(c->ops->select_pages(c->self, layer, c->q, &pages_of[layer], order, err));
    for (int h = 0; h < HKV; h++)
        for (int32_t i = 0; i < order[h].n; i++)
            now = now * 31 + (uint32_t)order[h].pos[i];
    assert_true(now != 1 && (!run->records || now == *then));
    *then = now;
    return RA_OK;
}

static enum ra_status layer_step(struct run *run, int32_t t, int layer, int copy,
                                 struct ra_error *err)
{
    struct ra_case *c = &run->c;
    int copies = run->way->copies;
    query_of(run, t, layer, copy);
    if (copies > 1)
        c->ops->turn(c->self, copy);
    if (t < 0)
        return install(run, layer, copy, err);
    RA_TRY(append(run, t, layer, err));
    if (run->way->chooses)
        RA_TRY(choose(run, t, layer, copy, err));
    RA_TRY(c->ops->attend_recycled(c->self, layer, c->q, true, c->out, err));
    if (!run->records)
        memcpy(run->out + (size_t)((t * LAYERS + layer) * copies + copy) * FLOATS, c->out,
               FLOATS * sizeof *c->out);
    return cut(run, t, layer, copy, err);
}

static enum ra_status all_steps(struct run *run, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    size_t rows = (size_t)c->config.max_rows * (size_t)D * ra_dtype_bytes(c->model.dtype);
    c->ops->reset(c->self);
    for (int i = 0; i < LAYERS * run->way->copies; i++) {
        int copy = i % run->way->copies;
        struct ra_prompt_rows prompt = {
            .k = c->k, .v = c->v, .k_stride = rows, .v_stride = rows, .P = prompt_of(run, copy)};
        if (run->way->copies > 1)
            c->ops->turn(c->self, copy);
        RA_TRY(c->ops->load(c->self, i / run->way->copies, &prompt, err));
    }
    for (int32_t t = -1; t < STEPS; t++) {
        if (run->records)
            RA_TRY(c->ops->record_step(c->self, t, err));
        for (int i = 0; i < LAYERS * run->way->copies; i++)
            RA_TRY(layer_step(run, t, i / run->way->copies, i % run->way->copies, err));
    }
    return RA_OK;
}

/* Launched together, splits of the keys are others, and so is the rounding. */
static void check_played(const struct run *run, const float *out)
{
    int copies = run->way->copies;
    for (int i = 0; i < STEPS * LAYERS * copies * FLOATS; i++)
        assert_true(copies > 1 ? fabsf(out[i] - run->out[i]) <= 1e-5f * (1 + fabsf(run->out[i]))
                               : out[i] == run->out[i]);
}

static void open_run(struct run *run, const struct way *way)
{
    struct ra_error err = {0};
    struct ra_case *c = &run->c;
    *run = (struct run){.way = way};
    size_t n = (size_t)(STEPS * LAYERS * way->copies);
    run->out = calloc(n * FLOATS, sizeof *run->out);
    run->chosen = calloc(n, sizeof *run->chosen);
    run->evicted = calloc(n * HKV, sizeof *run->evicted);
    ra_case_init(c, way->dtype, HKV, G, D, D, PROMPT + STEPS, 5);
    c->ops = ra_backend_find("cuda");
    c->config.n_layers = LAYERS;
    c->config.max_retained = K + 1;
    c->config.cache = way->cache;
    c->config.page = way->page;
    c->config.early = way->early;
    c->config.no_graph = way->no_graph;
    c->config.batch = way->copies;
    c->config.apart = way->copies > 1;
    c->config.pages = way->chooses ? pages_of : NULL;
    c->config.model = &c->model;
    c->config.window = c->window;
    ra_assert_ok(c->ops->open(&c->self, &c->config, &err));
}

static void test_played_as_called(void **state)
{
    (void)state;
    static const struct way ways[] = {
        {.dtype = RA_F16, .copies = 1},
        {.dtype = RA_BF16,
         .cache = RA_CACHE_GATHER,
         .copies = 1,
         .told = true,
         .early = true,
         .chooses = true},
        {.dtype = RA_F32, .page = 16, .copies = 1, .of_layer = true, .no_graph = true},
        {.dtype = RA_F16,
         .chooses = true,
         .page = 16,
         .cache = RA_CACHE_GATHER,
         .copies = COPIES,
         .told = true},
        {.dtype = RA_BF16, .copies = COPIES, .told = true, .of_layer = true, .early = true},
        {.dtype = RA_F32, .chooses = true, .copies = COPIES, .told = true, .no_graph = true},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct run run;
        struct ra_error err = {0};
        struct ra_step_time times[STEPS + 1];
        const float *out;
        open_run(&run, &ways[i]);
        ra_assert_ok(all_steps(&run, &err));
        ra_assert_ok(run.c.ops->record_begin(run.c.self, &err));
        run.records = true;
        ra_assert_ok(all_steps(&run, &err));
        for (int play = 0; play < 2; play++) {
            ra_assert_ok(run.c.ops->play(run.c.self, times, &out, &err));
            check_played(&run, out);
        }
        ra_case_fini(&run.c);
        free(run.out);
        free(run.chosen);
        free(run.evicted);
        assert_int_equal(ra_emu_allocated(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_played_as_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
