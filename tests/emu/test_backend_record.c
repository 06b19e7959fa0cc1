/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the cuda backend recorded as graphs and played: the same bits as when they were called,
 * as often as they are played, and every runtime call may fail. Would catch an operand that is read
 * where the checked run had it, state that a play does not rewind, an output in another's place,
 * and a failing card that goes unnoticed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emu/control.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 3, D = 64, LAYERS = 2, PROMPT = 90, STEPS = 12, K = 20, COPIES = 3 };
enum { FLOATS = HKV * G * D };

static const struct ra_backend_ops *cuda;

/* A run of a schedule that mixes everything, called or recorded. Copies that are apart are at
 * different places of it. */
struct run {
    struct ra_case c;
    bool records;
    int copies;            /* that take turns */
    int32_t surprise_step; /* at which the recording expects another decision; -1: none */
    float *out;            /* [STEPS][LAYERS][copies][FLOATS] when called */
};

/* Queries are a function of the step, so that both passes have the same. */
static void query_of(struct run *run, int32_t t, int layer, int copy)
{
    size_t at = (size_t)(t + 1) * 977 % 400 * D / 64 + (size_t)(31 * layer + 7 * copy);
    for (int i = 0; i < FLOATS; i++)
        run->c.q[i] = run->c.kf[at + (size_t)i];
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

/* A full step that chooses, taken or not. */
static enum ra_status full_branch(struct run *run, int layer, bool is_taken, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    struct ra_select_rule rule = {.K = K, .pool = 3};
    struct ra_positions order[HKV];
    int64_t moved;
    c->ops->branch(c->self, RA_BRANCH_FULL, is_taken);
    RA_TRY(c->ops->attend_full(c->self, layer, c->q, true, c->out, err));
    if (is_taken)
        return choose(run, layer, err);
    RA_TRY(c->ops->select(c->self, layer, &rule, order, err));
    return c->ops->refresh(c->self, layer, &moved, err);
}

static enum ra_status recycled_branch(struct run *run, int layer, bool is_taken,
                                      struct ra_error *err)
{
    struct ra_case *c = &run->c;
    c->ops->branch(c->self, RA_BRANCH_RECYCLED, is_taken);
    RA_TRY(c->ops->attend_recycled(c->self, layer, c->q, false, c->out, err));
    return c->ops->insert_evict(c->self, layer, ra_case_each(K), NULL, err);
}

/* Every third step, by the decision of a card that is told what to decide. */
static enum ra_status decided_step(struct run *run, int32_t t, int layer, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    bool full = t % 3 == 2, both = c->config.decide == RA_DECIDE_DEVICE;
    bool expected = full != (run->records && run->surprise_step == t && layer == 1);
    double cosine;
    RA_TRY(c->ops->decide(c->self, layer, c->q, full ? 2 : -2, expected, &cosine, err));
    if (both || full)
        RA_TRY(full_branch(run, layer, full, err));
    if (both || !full)
        RA_TRY(recycled_branch(run, layer, !full, err));
    c->ops->branch(c->self, RA_BRANCH_NONE, true);
    return RA_OK;
}

static enum ra_status layer_step(struct run *run, int32_t t, int layer, int copy,
                                 struct ra_error *err)
{
    struct ra_case *c = &run->c;
    query_of(run, t, layer, copy);
    if (c->config.apart)
        c->ops->turn(c->self, copy);
    if (t < 0) {
        RA_TRY(c->ops->set_reference(c->self, layer, c->q, err));
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
    bool decides = c->config.decide != RA_DECIDE_KNOWN;
    RA_TRY(decides ? decided_step(run, t + copy, layer, err) : attend(run, t + copy, layer, err));
    if (run->out && !run->records)
        memcpy(run->out + (size_t)((t * LAYERS + layer) * run->copies + copy) * FLOATS, c->out,
               FLOATS * sizeof *c->out);
    if (decides)
        return RA_OK;
    if ((t + copy) % 6 == 2)
        return choose(run, layer, err);
    return c->ops->insert_evict(c->self, layer, ra_case_each(K), NULL, err);
}

/* Of the prompt, copies that are apart have less and less. */
static enum ra_status load(struct run *run, int layer, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    size_t rows = (size_t)c->config.max_rows * (size_t)D * ra_dtype_bytes(c->model.dtype);
    for (int copy = 0; copy < run->copies; copy++) {
        const struct ra_prompt_rows prompt = {
            .k = c->k, .v = c->v, .k_stride = rows, .v_stride = rows, .P = PROMPT - 3 * copy};
        if (c->config.apart)
            c->ops->turn(c->self, copy);
        RA_TRY(c->ops->load(c->self, layer, &prompt, err));
    }
    return RA_OK;
}

static enum ra_status all_steps(struct run *run, struct ra_error *err)
{
    struct ra_case *c = &run->c;
    c->ops->reset(c->self);
    for (int layer = 0; layer < LAYERS; layer++)
        RA_TRY(load(run, layer, err));
    for (int32_t t = -1; t < STEPS; t++) {
        if (run->records)
            RA_TRY(c->ops->record_step(c->self, t, err));
        for (int i = 0; i < LAYERS * run->copies; i++)
            RA_TRY(layer_step(run, t, i / run->copies, i % run->copies, err));
    }
    return RA_OK;
}

static int n_begun, n_ended;

static void on_step(void *context, int32_t t, bool begins)
{
    (void)context;
    assert_int_equal(t + 1, n_ended % (STEPS + 1));
    n_begun += begins;
    n_ended += !begins;
    assert_int_equal(n_begun, n_ended + begins);
}

static void init(struct run *run, int number)
{
    *run = (struct run){.records = false, .copies = 1, .surprise_step = -1};
    struct ra_case *c = &run->c;
    ra_case_init(c, (enum ra_dtype)(number % 3), HKV, G, D, D, PROMPT + STEPS, (uint64_t)number);
    c->ops = cuda;
    c->config.n_layers = LAYERS;
    c->config.max_retained = K;
    c->config.cache = number & 1 ? RA_CACHE_GATHER : RA_CACHE_COMPACT;
    c->config.select = (enum ra_select_mode)(number % 3);
    c->config.model = &c->model;
    c->config.window = c->window;
    static const struct ra_backend_watch watch = {.step = on_step};
    c->config.watch = &watch;
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
        if (run->out && run->copies == 1)
            assert_memory_equal(out, run->out, sizeof(float) * STEPS * LAYERS * FLOATS);
        /* Launched together, splits of the keys are others, and so is the rounding. */
        for (int i = 0; run->copies > 1 && i < STEPS * LAYERS * COPIES * FLOATS; i++)
            assert_true(fabsf(out[i] - run->out[i]) <= 1e-5f * (1 + fabsf(run->out[i])));
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

static void set_apart(struct run *run)
{
    run->copies = run->c.config.batch = COPIES;
    run->c.config.apart = true;
}

static void play_all(struct run *run, int n_plays)
{
    struct ra_error err = {0};
    run->out = calloc((size_t)(STEPS * LAYERS * run->copies * FLOATS), sizeof *run->out);
    ra_assert_ok(call_and_play(run, n_plays, &err));
    free(run->out);
    ra_case_fini(&run->c);
    assert_int_equal(ra_emu_allocated(), 0);
}

/* Copies of unequal length, whose full steps fall on different steps. */
static void test_copies_apart(void **state)
{
    (void)state;
    static const struct {
        int number; /* of init: selected deferred, inline, side; compact, gathered */
        int page;
        bool early, no_graph;
    } ways[] = {
        {0, 0, false, false}, {1, 16, false, true}, {2, 0, true, false}, {5, 16, true, true}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct run run;
        init(&run, ways[i].number);
        set_apart(&run);
        run.c.config.page = ways[i].page;
        run.c.config.early = ways[i].early;
        run.c.config.no_graph = ways[i].no_graph;
        play_all(&run, 2);
    }
}

/* --- who watches -------------------------------------------------------------------------------
 */

static struct {
    uint64_t nodes[STEPS + 1], works[STEPS + 1];
    int n_open;
    void *last; /* node, of this step's graph: another's may stand where it stood */
    int32_t last_step;
} watched;

static void see_work(void *context, int32_t t, int layer, const char *op, bool begins)
{
    assert_ptr_equal(context, &watched);
    assert_true(layer >= -1 && layer < LAYERS && strlen(op) > 0);
    watched.works[t + 1] += begins;
    watched.n_open += begins ? 1 : -1;
    assert_true(watched.n_open == begins);
}

static void see_node(void *context, int32_t t, int layer, const char *op, void *node)
{
    assert_ptr_equal(context, &watched);
    assert_true(layer >= -1 && layer < LAYERS && strlen(op) > 0);
    assert_true(node && (node != watched.last || t != watched.last_step));
    watched.last = node;
    watched.last_step = t;
    watched.nodes[t + 1]++;
}

/* However they are launched, steps launch the same, and each kernel is told of once. */
static void test_watched(void **state)
{
    (void)state;
    static const struct ra_backend_watch watch = {
        .context = &watched, .work = see_work, .node = see_node};
    for (int number = 0; number < 6; number++) {
        struct ra_step_launches first[STEPS + 1];
        for (int stream = 0; stream < 2; stream++) {
            struct run run;
            struct ra_error err = {0};
            init(&run, number);
            run.c.config.watch = &watch;
            run.c.config.no_graph = stream;
            run.out = calloc((size_t)STEPS * LAYERS * FLOATS, sizeof *run.out);
            memset(&watched, 0, sizeof watched);
            ra_assert_ok(call_and_play(&run, 2, &err));
            const struct ra_step_launches *launched = cuda->launched(run.c.self);
            if (!stream)
                memcpy(first, launched, sizeof first);
            assert_memory_equal(first, launched, sizeof first);
            for (int i = 0; i <= STEPS; i++) {
                assert_true(launched[i].n > 0 && launched[i].n == first[i].n);
                assert_int_equal(watched.nodes[i], stream ? 0 : launched[i].n);
                assert_true(stream ? watched.works[i] > 0 : watched.works[i] == 0);
                assert_true(watched.works[i] <= 2 * launched[i].n); /* one may launch several */
                assert_true(i == 0 || launched[i].hash != launched[0].hash);
            }
            free(run.out);
            ra_case_fini(&run.c);
        }
    }
}

static uint64_t launches_of(const char *kernel)
{
    struct ra_emu_traffic traffic;
    ra_emu_get_traffic(kernel, &traffic);
    return traffic.launches;
}

/* Every copy appends in one launch; what copies choose at one step, all layers choose in one. */
static void test_copies_apart_share_launches(void **state)
{
    (void)state;
    struct run run;
    init(&run, 0);
    set_apart(&run);
    struct ra_error err = {0};
    struct ra_step_time times[STEPS + 1];
    const float *out;
    run.out = calloc((size_t)(STEPS * LAYERS * COPIES * FLOATS), sizeof *run.out);
    ra_assert_ok(call_and_play(&run, 1, &err));
    ra_emu_count_traffic(1);
    ra_emu_reset_traffic();
    ra_assert_ok(run.c.ops->play(run.c.self, times, &out, &err));
    ra_emu_count_traffic(0);
    assert_int_equal(launches_of("append_rows"), STEPS * LAYERS);
    int choices = 1; /* all copies, at the prefill */
    for (int t = 0; t < STEPS; t++)
        for (int copy = 0; copy < COPIES; copy++)
            choices += (t + copy) % 6 == 2;
    assert_int_equal(launches_of("select_topk"), choices);
    free(run.out);
    ra_case_fini(&run.c);
}

/* The host waits, or both branches are launched: the outputs are those of the one taken. */
static void test_decisions(void **state)
{
    (void)state;
    for (int number = 0; number < 6; number++) {
        struct run run;
        init(&run, number);
        if (number >= 4)
            set_apart(&run);
        run.c.config.decide = number % 2 ? RA_DECIDE_DEVICE : RA_DECIDE_HOST;
        run.c.config.no_graph = number >= 2;
        run.c.config.early = number >= 3;
        play_all(&run, 1);
    }
}

/* A card that decides otherwise than when it was asked before does not go unnoticed. */
static void test_surprises(void **state)
{
    (void)state;
    struct run run;
    struct ra_error err = {0};
    init(&run, 0);
    run.c.config.decide = RA_DECIDE_HOST;
    run.surprise_step = 4;
    ra_assert_fails(call_and_play(&run, 1, &err), RA_EDIVERGED,
                    "cuda: layer 1 of the replay: the card decided otherwise than before");
    ra_case_fini(&run.c);
    init(&run, 0);
    double cosine;
    ra_assert_ok(run.c.ops->open(&run.c.self, &run.c.config, &err));
    run.c.ops->reset(run.c.self);
    query_of(&run, 0, 0, 0);
    ra_assert_ok(run.c.ops->set_reference(run.c.self, 0, run.c.q, &err));
    ra_assert_ok(run.c.ops->decide(run.c.self, 0, run.c.q, 0.5, false, &cosine, &err));
    assert_true(fabs(cosine - 1) < 1e-12);
    ra_assert_fails(run.c.ops->decide(run.c.self, 0, run.c.q, 0.5, true, &cosine, &err),
                    RA_EDIVERGED, "by a cosine of 1, sim 0.5, the step is recycled, expected full");
    ra_case_fini(&run.c);
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
    const char *seed = getenv("RA_EMU_SEED");
    bool few = seed && strcmp(seed, "0") != 0; /* the order of threads makes no other call fail */
    for (long n = 1; n < 1600; n += few ? 97 : n < 120 ? 1 : 11) {
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
    assert_true(said > (few ? 8 : 150));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_played_as_called),
        cmocka_unit_test(test_copies_apart),
        cmocka_unit_test(test_watched),
        cmocka_unit_test(test_copies_apart_share_launches),
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_surprises),
        cmocka_unit_test(test_deferred_choices_share_a_launch),
        cmocka_unit_test(test_no_room_for_a_recording),
        cmocka_unit_test(test_every_call_may_fail),
    };
    cuda = ra_backend_find("cuda");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
