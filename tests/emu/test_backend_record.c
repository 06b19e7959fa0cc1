/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the cuda backend recorded as graphs and played: the same bits as when they were called,
 * as often as they are played, and every runtime call may fail. Would catch an operand that is read
 * where the checked run had it, state that a play does not rewind, an output in another's place,
 * and a failing card that goes unnoticed.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/emu/control.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 3, D = 64, LAYERS = 2, PROMPT = 90, STEPS = 12, K = 20 };
enum { FLOATS = HKV * G * D };

static const struct ra_backend_ops *cuda;

/* A run of a schedule that mixes everything, called or recorded. */
struct run {
    struct ra_case c;
    bool records;
    float *out; /* [STEPS][LAYERS][FLOATS] when called */
};

/* Queries are a function of the step, so that both passes have the same. */
static void query_of(struct run *run, int32_t t, int layer)
{
    for (int i = 0; i < FLOATS; i++)
        run->c.q[i] = run->c.kf[(size_t)(t + 1) * 977 % 400 * D / 64 + (size_t)(i + 31 * layer)];
}

/* Choose by the rule, adopt what was chosen. */
static enum ra_status choose(struct run *run, int layer, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    struct ra_select_rule rule = {.K = K, .pool = 3};
    struct ra_positions order[HKV];
    int64_t moved;
    RA_TRY(c->ops->select(c->self, layer, &rule, order, err));
    for (int h = 0; h < HKV; h++) {
        int32_t set[K], n = 0;
        for (int32_t p = 0; p < c->config.max_rows; p++)
            for (int32_t i = 0; i < order[h].n; i++)
                if (order[h].pos[i] == p)
                    set[n++] = p;
        struct ra_retained retained = {.set = {.pos = set, .n = n}, .evict = order[h]};
        c->ops->adopt(c->self, layer, h, &retained);
    }
    return c->ops->refresh(c->self, layer, &moved, err);
}

static enum ra_status attend(struct run *run, int32_t t, int layer, struct ra_error *err)
{
    static const int32_t few[] = {1, 4, 7};
    struct ra_case *c = &run->c;
    struct ra_positions sets[HKV] = {{.pos = few, .n = 3}, {.pos = few, .n = 2}};
    double cosine;
    RA_TRY(c->ops->cosine(c->self, layer, c->q, &cosine, err));
    if (t % 6 == 5)
        return c->ops->attend_sets(c->self, layer, c->q, sets, HKV, c->out, err);
    if (t % 3 == 2) {
        RA_TRY(c->ops->set_reference(c->self, layer, c->q, err));
        return c->ops->attend_full(c->self, layer, c->q, true, c->out, err);
    }
    return c->ops->attend_recycled(c->self, layer, c->q, false, c->out, err);
}

static enum ra_status layer_step(struct run *run, int32_t t, int layer, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    query_of(run, t, layer);
    if (t < 0) {
        RA_TRY(c->ops->score(c->self, layer, c->q, err));
        return choose(run, layer, err);
    }
    char k[HKV * D * 4], v[HKV * D * 4];
    size_t row = (size_t)D * ra_dtype_bytes(c->model.dtype);
    for (size_t h = 0; h < HKV; h++) {
        size_t at = (h * (size_t)c->config.max_rows + (size_t)(PROMPT + t)) * row;
        memcpy(k + h * row, c->k + at, row);
        memcpy(v + h * row, c->v + at, row);
    }
    RA_TRY(c->ops->append(c->self, layer, k, v, err));
    RA_TRY(attend(run, t, layer, err));
    if (run->out && !run->records)
        memcpy(run->out + (size_t)(t * LAYERS + layer) * FLOATS, c->out, FLOATS * sizeof *c->out);
    if (t % 6 == 2)
        return choose(run, layer, err);
    return c->ops->insert_evict(c->self, layer, K, NULL, err);
}

static enum ra_status all_steps(struct run *run, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    size_t rows = (size_t)c->config.max_rows * (size_t)D * ra_dtype_bytes(c->model.dtype);
    const struct ra_prompt_rows prompt = {
        .k = c->k, .v = c->v, .k_stride = rows, .v_stride = rows, .P = PROMPT};
    c->ops->reset(c->self);
    for (int layer = 0; layer < LAYERS; layer++)
        RA_TRY(c->ops->load(c->self, layer, &prompt, err));
    for (int32_t t = -1; t < STEPS; t++) {
        if (run->records)
            RA_TRY(c->ops->record_step(c->self, t, err));
        for (int layer = 0; layer < LAYERS; layer++)
            RA_TRY(layer_step(run, t, layer, err));
    }
    return RA_OK;
}

static int n_begun, n_ended;

static void on_step(int32_t t, bool begins)
{
    assert_int_equal(t + 1, n_ended % (STEPS + 1));
    n_begun += begins;
    n_ended += !begins;
    assert_int_equal(n_begun, n_ended + begins);
}

static void init(struct run *run, int number)
{
    *run = (struct run){.records = false};
    struct ra_case *c = &run->c;
    ra_case_init(c, (enum ra_dtype)(number % 3), HKV, G, D, D, PROMPT + STEPS, (uint64_t)number);
    c->ops = cuda;
    c->config.n_layers = LAYERS;
    c->config.max_retained = K;
    c->config.cache = number & 1 ? RA_CACHE_GATHER : RA_CACHE_COMPACT;
    c->config.select = (enum ra_select_mode)(number % 3);
    c->config.model = &c->model;
    c->config.window = c->window;
    c->config.on_step = on_step;
    n_begun = n_ended = 0;
}

static enum ra_status call_and_play(struct run *run, int n_plays, struct ra_error *err)
{
    struct ra_step_time times[STEPS + 1];
    const float *out;
    RA_TRY(run->c.ops->open(&run->c.self, &run->c.config, err));
    RA_TRY(all_steps(run, err));
    RA_TRY(run->c.ops->record_begin(run->c.self, err));
    run->records = true;
    RA_TRY(all_steps(run, err));
    for (int play = 0; play < n_plays; play++) {
        memset(times, 0, sizeof times);
        RA_TRY(run->c.ops->play(run->c.self, times, &out, err));
        for (int i = 0; i <= STEPS; i++)
            assert_true(times[i].event_ns > 0 && times[i].end_ns >= times[i].begin_ns);
        if (run->out)
            assert_memory_equal(out, run->out, sizeof(float) * STEPS * LAYERS * FLOATS);
    }
    return RA_OK;
}

static void test_played_as_called(void **state)
{
    (void)state;
    for (int number = 0; number < 6; number++) {
        struct run run;
        struct ra_error err = {0};
        init(&run, number);
        run.out = calloc((size_t)STEPS * LAYERS * FLOATS, sizeof *run.out);
        ra_assert_ok(call_and_play(&run, 3, &err));
        free(run.out);
        assert_int_equal(n_ended, 3 * (STEPS + 1));
        ra_case_fini(&run.c);
        assert_int_equal(ra_emu_allocated(), 0);
    }
}

/* The prefill and every sixth step choose: layers together when deferred, else one by one. */
static void test_deferred_choices_share_a_launch(void **state)
{
    (void)state;
    for (int number = 0; number < 3; number++) {
        struct run run;
        struct ra_error err = {0};
        struct ra_emu_traffic once, twice;
        init(&run, number);
        ra_emu_count_traffic(1);
        ra_emu_reset_traffic();
        ra_assert_ok(call_and_play(&run, 1, &err));
        ra_emu_get_traffic("select_topk", &once);
        const float *out;
        struct ra_step_time times[STEPS + 1];
        ra_assert_ok(run.c.ops->play(run.c.self, times, &out, &err));
        ra_emu_get_traffic("select_topk", &twice);
        ra_emu_count_traffic(0);
        bool deferred = run.c.config.select == RA_SELECT_DEFERRED;
        assert_int_equal(twice.launches - once.launches, (1 + STEPS / 6) * (deferred ? 1 : LAYERS));
        ra_case_fini(&run.c);
    }
}

/* A card that has no room for what a recording needs says so; what it had is let go. */
static void test_no_room_for_a_recording(void **state)
{
    (void)state;
    struct run run;
    struct ra_error err = {0};
    init(&run, 0);
    ra_emu_set_card(run.c.ops->memory(&run.c.config) + 1000, 8);
    ra_assert_fails(call_and_play(&run, 1, &err), RA_ENOMEM,
                    "cuda: rows, choices and outputs of all steps need");
    ra_case_fini(&run.c);
    ra_emu_set_card((size_t)4 << 30, 8);
    assert_int_equal(ra_emu_allocated(), 0);
}

/* The n-th runtime call fails, for every n: an error that names cuda, and nothing is lost. A call
 * whose failure changes nothing may go unsaid. */
static void test_every_call_may_fail(void **state)
{
    (void)state;
    int said = 0;
    for (long n = 1; n < 1600; n += n < 120 ? 1 : 11) {
        struct run run;
        struct ra_error err = {0};
        init(&run, 0);
        ra_emu_fail_call(n, 719);
        enum ra_status st = call_and_play(&run, 1, &err);
        ra_emu_fail_call(0, 0);
        if (st != RA_OK) {
            assert_true(st == RA_EDEVICE || st == RA_ENOMEM || st == RA_ENODEV);
            assert_memory_equal(err.msg, "cuda: ", 6);
        }
        said += st != RA_OK;
        assert_int_equal(n_begun, n_ended);
        ra_case_fini(&run.c);
        assert_int_equal(ra_emu_allocated(), 0);
    }
    print_message("%d failures\n", said);
    assert_true(said > 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_played_as_called),
        cmocka_unit_test(test_deferred_choices_share_a_launch),
        cmocka_unit_test(test_no_room_for_a_recording),
        cmocka_unit_test(test_every_call_may_fail),
    };
    cuda = ra_backend_find("cuda");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
