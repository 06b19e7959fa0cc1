/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine must notice a backend that is wrong: each test breaks one operation of the cpu backend
 * and expects the replay to stop, naming the place. A backend that only swaps near ties passes, and
 * the swap is counted.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/engine.h"
#include "traces/safetensors.h"

enum { P = 12, N = 6, HQ = 2, D = 8, NEAR_A = 3, NEAR_B = 9 };

static char path[64];
static uint64_t seed = 7;

static float draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(seed >> 33) / 0x1p30 - 1);
}

static void put(struct ra_st_writer *w, size_t tensor, const float *values, size_t n)
{
    struct ra_error err;
    assert_int_equal(ra_st_writer_put(w, tensor, 0, values, n * sizeof *values, &err), RA_OK);
}

/* One layer, one KV head, two query heads; key B is key A but for one part in 2^21. */
static int write_trace(void **state)
{
    (void)state;
    static const char *const metadata[][2] = {
        {"format", "rattn-trace"}, {"version", "1.0"},     {"n_layers", "1"},
        {"layers", "0"},           {"n_q_heads", "2"},     {"n_kv_heads", "1"},
        {"head_dim", "8"},         {"attn_scale", "1"},    {"n_seq", "1"},
        {"s0.prompt_len", "12"},   {"s0.decode_len", "6"}, {"s0.q_tail", "1"}};
    float k[(P + N) * D], v[(P + N) * D], q[HQ * (1 + N) * D];
    uint64_t rows[] = {1, P + N, D}, queries[] = {HQ, 1 + N, D};
    size_t ik, iv, iq;
    struct ra_st_writer *w;
    struct ra_error err;
    for (int i = 0; i < (P + N) * D; i++) {
        k[i] = draw();
        v[i] = draw();
    }
    for (int i = 0; i < HQ * (1 + N) * D; i++)
        q[i] = draw();
    for (int d = 0; d < D; d++)
        k[NEAR_B * D + d] = k[NEAR_A * D + d] * (1 + 0x1p-21f);
    snprintf(path, sizeof path, "/tmp/rattn-test-engine-%d.safetensors", (int)getpid());
    assert_int_equal(ra_st_writer_open(&w, path, &err), RA_OK);
    for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++)
        assert_int_equal(ra_st_writer_metadata(w, metadata[i][0], metadata[i][1], &err), RA_OK);
    assert_int_equal(ra_st_writer_tensor(w, "s0.l0.k", RA_ST_F32, 3, rows, &ik, &err), RA_OK);
    assert_int_equal(ra_st_writer_tensor(w, "s0.l0.v", RA_ST_F32, 3, rows, &iv, &err), RA_OK);
    assert_int_equal(ra_st_writer_tensor(w, "s0.l0.q", RA_ST_F32, 3, queries, &iq, &err), RA_OK);
    assert_int_equal(ra_st_writer_begin(w, &err), RA_OK);
    put(w, ik, k, sizeof k / sizeof *k);
    put(w, iv, v, sizeof v / sizeof *v);
    put(w, iq, q, sizeof q / sizeof *q);
    assert_int_equal(ra_st_writer_commit(w, &err), RA_OK);
    ra_st_writer_close(w);
    return 0;
}

static int remove_trace(void **state)
{
    (void)state;
    return unlink(path);
}

/* --- a backend with one fault ------------------------------------------------------------------
 */

static const struct ra_backend_ops *cpu;
static struct ra_backend_ops broken;
static int32_t swap_a, swap_b; /* positions that the broken selection exchanges */
static int32_t shuffled[64];

static enum ra_status select_swapped(void *self, int layer, const struct ra_select_rule *rule,
                                     struct ra_positions *order, struct ra_error *err)
{
    enum ra_status st = cpu->select(self, layer, rule, order, err);
    if (st != RA_OK)
        return st;
    memcpy(shuffled, order[0].pos, (size_t)order[0].n * sizeof *shuffled);
    for (int32_t i = 0; i < order[0].n; i++)
        shuffled[i] = shuffled[i] == swap_a ? swap_b : shuffled[i] == swap_b ? swap_a : shuffled[i];
    order[0].pos = shuffled;
    return RA_OK;
}

static enum ra_status select_exchanges_ends(void *self, int layer,
                                            const struct ra_select_rule *rule,
                                            struct ra_positions *order, struct ra_error *err)
{
    enum ra_status st = cpu->select(self, layer, rule, order, err);
    if (st != RA_OK)
        return st;
    memcpy(shuffled, order[0].pos, (size_t)order[0].n * sizeof *shuffled);
    int32_t first = shuffled[0];
    shuffled[0] = shuffled[order[0].n - 1];
    shuffled[order[0].n - 1] = first;
    order[0].pos = shuffled;
    return RA_OK;
}

/* One chosen position stands twice, in place of the last. */
static enum ra_status select_repeats(void *self, int layer, const struct ra_select_rule *rule,
                                     struct ra_positions *order, struct ra_error *err)
{
    enum ra_status st = cpu->select(self, layer, rule, order, err);
    if (st != RA_OK)
        return st;
    memcpy(shuffled, order[0].pos, (size_t)order[0].n * sizeof *shuffled);
    shuffled[order[0].n - 1] = shuffled[0];
    order[0].pos = shuffled;
    return RA_OK;
}

/* The protected current token goes first instead of last. */
static enum ra_status select_unprotected(void *self, int layer, const struct ra_select_rule *rule,
                                         struct ra_positions *order, struct ra_error *err)
{
    enum ra_status st = cpu->select(self, layer, rule, order, err);
    if (st != RA_OK)
        return st;
    int32_t n = order[0].n;
    memcpy(shuffled + 1, order[0].pos, (size_t)(n - 1) * sizeof *shuffled);
    shuffled[0] = order[0].pos[n - 1];
    order[0].pos = shuffled;
    return RA_OK;
}

/* The dropped current token is chosen after all. */
static enum ra_status select_undropped(void *self, int layer, const struct ra_select_rule *rule,
                                       struct ra_positions *order, struct ra_error *err)
{
    enum ra_status st = cpu->select(self, layer, rule, order, err);
    if (st != RA_OK)
        return st;
    memcpy(shuffled, order[0].pos, (size_t)order[0].n * sizeof *shuffled);
    shuffled[0] = P - 1; /* of the prefill */
    order[0].pos = shuffled;
    return RA_OK;
}

static enum ra_status attend_full_constant(void *self, int layer, const float *q, bool want_scores,
                                           float *out, struct ra_error *err)
{
    enum ra_status st = cpu->attend_full(self, layer, q, want_scores, out, err);
    out[0] = 123;
    return st;
}

static enum ra_status attend_recycled_off(void *self, int layer, const float *q, bool want_scores,
                                          float *out, struct ra_error *err)
{
    enum ra_status st = cpu->attend_recycled(self, layer, q, want_scores, out, err);
    out[3] += 1e-3f;
    return st;
}

static enum ra_status attend_full_nan(void *self, int layer, const float *q, bool want_scores,
                                      float *out, struct ra_error *err)
{
    enum ra_status st = cpu->attend_full(self, layer, q, want_scores, out, err);
    out[D] = NAN;
    return st;
}

static enum ra_status refresh_miscounts(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    enum ra_status st = cpu->refresh(self, layer, moved, err);
    ++*moved;
    return st;
}

static enum ra_status evict_keeps(void *self, int layer, const int32_t *K, int32_t *evicted,
                                  struct ra_error *err)
{
    enum ra_status st = cpu->insert_evict(self, layer, K, evicted, err);
    evicted[0] = -1;
    return st;
}

static enum ra_status cosine_off(void *self, int layer, const float *q, double *cosine,
                                 struct ra_error *err)
{
    enum ra_status st = cpu->cosine(self, layer, q, cosine, err);
    *cosine += 1e-3;
    return st;
}

static enum ra_status replay_of(const char *name, const char *policy,
                                struct ra_replay_result *result, struct ra_error *err)
{
    struct ra_trace *trace;
    struct ra_policy_spec *spec;
    assert_int_equal(ra_trace_open(&trace, name, err), RA_OK);
    assert_int_equal(ra_policy_parse(&spec, policy, err), RA_OK);
    struct ra_replay_config config = {.trace = trace,
                                      .specs = &spec,
                                      .n_policies = 1,
                                      .backend = &broken,
                                      .n_threads = 1,
                                      .repeats = 1,
                                      .last_step = -1,
                                      .quality = true};
    enum ra_status st = ra_replay(&config, result, err);
    ra_policy_spec_close(spec);
    ra_trace_close(trace);
    return st;
}

static enum ra_status replay(const char *policy, struct ra_replay_result *result,
                             struct ra_error *err)
{
    return replay_of(path, policy, result, err);
}

static int mend(void **state)
{
    (void)state;
    cpu = ra_backend_find("cpu");
    broken = *cpu;
    return 0;
}

#define RECYCLED "recycled:k=6,stride=3,pool=1"

static void expect_divergence(const char *policy, const char *text)
{
    struct ra_replay_result result;
    struct ra_error err;
    assert_int_equal(replay(policy, &result, &err), RA_EDIVERGED);
    if (!strstr(err.msg, text))
        fail_msg("expected '%s' in: %s", text, err.msg);
}

static void the_unbroken_backend_passes(void **state)
{
    (void)state;
    struct ra_replay_result result;
    struct ra_error err;
    assert_int_equal(replay(RECYCLED, &result, &err), RA_OK);
    assert_int_equal(result.near_ties, 0);
    assert_int_equal(result.selections, 3); /* prefill, t = 2, t = 5 */
    assert_true(result.kernel_err_max < 1e-5);
    assert_int_equal(result.full_layer_steps, 2);
}

static void a_swapped_near_tie_is_counted_and_allowed(void **state)
{
    (void)state;
    struct ra_replay_result result;
    struct ra_error err;
    broken.select = select_swapped;
    swap_a = NEAR_A;
    swap_b = NEAR_B;
    assert_int_equal(replay("recycled:k=17,stride=3,pool=1", &result, &err), RA_OK);
    assert_int_equal(result.near_ties, 3);
}

static void a_wrong_order_is_not(void **state)
{
    (void)state;
    broken.select = select_exchanges_ends;
    expect_divergence(RECYCLED, "selection");
    expect_divergence("recycled:k=6,stride=3,pool=1,evict=raw", "KV head 0");
}

static void a_wrong_set_is_not(void **state)
{
    (void)state;
    broken.select = select_swapped;
    /* Whatever is chosen at the prefill, one of these pairs trades a chosen for an unchosen one. */
    int stopped = 0;
    for (swap_a = 0; swap_a < P; swap_a++)
        for (swap_b = swap_a + 1; swap_b < P; swap_b++) {
            struct ra_replay_result result;
            struct ra_error err;
            enum ra_status st = replay("recycled:k=3,stride=9,pool=1", &result, &err);
            assert_true(st == RA_OK || st == RA_EDIVERGED);
            stopped += st == RA_EDIVERGED;
        }
    /* 3 chosen of 12: 3 pairs within, 27 across, 36 outside; across and within must all stop. */
    assert_in_range(stopped, 29, 30);
}

static void an_impossible_selection_is_not(void **state)
{
    (void)state;
    broken.select = select_repeats;
    expect_divergence(RECYCLED, "selection");
    broken.select = select_unprotected;
    expect_divergence("recycled:k=6,stride=3,pool=1,current=snapkv", "selection");
    broken.select = select_undropped;
    expect_divergence("recycled:k=11,stride=9,pool=1,current=drop", "selection");
}

static void a_wrong_window_layer_stops_the_replay(void **state)
{
    (void)state;
    static const char sliding[] = "synth:case=drift,P=40,N=8,layers=2,window=8";
    struct ra_replay_result result;
    struct ra_error err;
    assert_int_equal(replay_of(sliding, RECYCLED, &result, &err), RA_OK);
    assert_true(result.kernel_err_max < 1e-5);
    broken.attend_full = attend_full_constant;
    /* stride 9: no full step, so only the window layer comes this way */
    assert_int_equal(replay_of(sliding, "recycled:k=6,stride=9", &result, &err), RA_EDIVERGED);
    assert_non_null(strstr(err.msg, "output"));
}

static void a_wrong_output_stops_the_replay(void **state)
{
    (void)state;
    broken.attend_recycled = attend_recycled_off;
    expect_divergence(RECYCLED, "output");
    mend(NULL);
    broken.attend_full = attend_full_nan;
    expect_divergence("full", "output");
}

static void a_wrong_refresh_stops_the_replay(void **state)
{
    (void)state;
    broken.refresh = refresh_miscounts;
    expect_divergence(RECYCLED, "moved");
}

static void a_wrong_eviction_stops_the_replay(void **state)
{
    (void)state;
    broken.insert_evict = evict_keeps;
    expect_divergence(RECYCLED, "evicted");
}

static void a_wrong_cosine_stops_the_replay(void **state)
{
    (void)state;
    broken.cosine = cosine_off;
    expect_divergence("recycled:k=6,stride=2,sim=0.5,query=post", "cosine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_unbroken_backend_passes, mend),
        cmocka_unit_test_setup(a_swapped_near_tie_is_counted_and_allowed, mend),
        cmocka_unit_test_setup(a_wrong_order_is_not, mend),
        cmocka_unit_test_setup(a_wrong_set_is_not, mend),
        cmocka_unit_test_setup(an_impossible_selection_is_not, mend),
        cmocka_unit_test_setup(a_wrong_window_layer_stops_the_replay, mend),
        cmocka_unit_test_setup(a_wrong_output_stops_the_replay, mend),
        cmocka_unit_test_setup(a_wrong_refresh_stops_the_replay, mend),
        cmocka_unit_test_setup(a_wrong_eviction_stops_the_replay, mend),
        cmocka_unit_test_setup(a_wrong_cosine_stops_the_replay, mend),
    };
    return cmocka_run_group_tests_name("engine", tests, write_trace, remove_trace);
}
