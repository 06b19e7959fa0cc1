/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules that every policy keeps, run for each row of the registry, so that a new policy is tested
 * before its author writes a test: names, sources, spellings, ranges of parameters, values of their
 * own for layers, and sets that are sorted, unique, within the context, with self and within the
 * budget.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/base/text.h"
#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

/* Values small enough for the driver's runs, of what has no default or too large a one. */
static const char *small_value(const struct ra_param *row)
{
    static const char *const values[][2] = {
        {"window", "2"}, {"page", "2"}, {"chunk", "2"}, {"select", "0"}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (strcmp(row->name, values[i][0]) == 0)
            return values[i][1];
    return row->fallback ? NULL : "6";
}

static void write_required(struct ra_writer *out, const struct ra_param *table, const char *but)
{
    for (; table && table->name; table++)
        if (small_value(table) && strcmp(table->name, but) != 0)
            ra_write(out, "%c%s=%s", strchr(out->out, ':') ? ',' : ':', table->name,
                     small_value(table));
}

static void spell(const struct ra_policy_ops *ops, const char *key, const char *value, char *text,
                  size_t size)
{
    struct ra_writer out = {text, size, 0};
    ra_write(&out, "%s", ops->name);
    write_required(&out, ops->params, key);
    if (*key)
        ra_write(&out, "%c%s=%s", strchr(text, ':') ? ',' : ':', key, value);
}

struct record {
    struct ra_sha256 lanes[DRIVE_LAYERS];
    struct ra_sha256 heads[DRIVE_HEADS]; /* KV heads of layer 1 */
    int32_t K;
};

static void check_step(struct drive *d, void *context)
{
    struct record *record = context;
    struct ra_sha256 *hash = &record->lanes[d->step.layer];
    assert_true(!d->plan.is_full || d->plan.attend != RA_ATTEND_SETS);
    /* Else everything would be attended to at the price of a sparse step. */
    assert_true(d->plan.is_full || d->plan.attend != RA_ATTEND_ALL);
    assert_true(!d->plan.rule || d->plan.rebuilds ||
                ra_policy_spec_caches(d->spec) == RA_CACHES_FULL);
    ra_sha256_i64(hash, d->plan.is_full);
    for (int i = 0; i < d->n_sets; i++) {
        const int32_t *set = d->attended[i];
        int32_t n = d->n_attended[i];
        for (int32_t j = 0; j < n; j++)
            assert_true(set[j] >= 0 && set[j] <= d->step.self && (j == 0 || set[j - 1] < set[j]));
        assert_int_equal(set[n - 1], d->step.self);
        assert_true(d->plan.attend == RA_ATTEND_ALL || record->K < 0 || n - 1 <= record->K);
        ra_sha256_i32s(hash, set, (size_t)n);
        if (d->step.layer == 1)
            ra_sha256_i32s(&record->heads[i * d->model.Hkv / d->n_sets], set, (size_t)n);
    }
}

static void check_views(const struct drive *d)
{
    for (int layer = 0; layer < d->n_layers; layer++)
        for (int h = 0; h < d->model.Hkv; h++) {
            struct ra_retained view;
            if (!ra_policy_view(d->policy, layer, h, &view))
                continue;
            assert_int_equal(view.set.n, view.evict.n);
            assert_true(view.n_pinned <= view.set.n);
        }
}

/* Runs an opened policy; hashes of what each layer attended to. */
static void run_parts(struct drive *d, char lanes[DRIVE_LAYERS][RA_SHA256_HEX],
                      char heads[DRIVE_HEADS][RA_SHA256_HEX])
{
    struct record record = {.K = ra_policy_spec_most(d->spec, d->P, d->N)};
    for (int layer = 0; layer < d->n_layers; layer++)
        ra_sha256_init(&record.lanes[layer]);
    for (int head = 0; head < DRIVE_HEADS; head++)
        ra_sha256_init(&record.heads[head]);
    drive_all(d, check_step, &record);
    check_views(d);
    for (int head = 0; head < DRIVE_HEADS; head++)
        ra_sha256_hex(&record.heads[head], heads[head]);
    for (int layer = 0; layer < d->n_layers; layer++)
        ra_sha256_hex(&record.lanes[layer], lanes[layer]);
}

static void run_lanes(struct drive *d, char lanes[DRIVE_LAYERS][RA_SHA256_HEX])
{
    char heads[DRIVE_HEADS][RA_SHA256_HEX];
    run_parts(d, lanes, heads);
}

/* The same as one hash. */
static void run(struct drive *d, char hex[RA_SHA256_HEX])
{
    char lanes[DRIVE_LAYERS][RA_SHA256_HEX];
    struct ra_sha256 all;
    run_lanes(d, lanes);
    ra_sha256_init(&all);
    for (int layer = 0; layer < d->n_layers; layer++)
        ra_sha256_bytes(&all, lanes[layer], RA_SHA256_HEX - 1);
    ra_sha256_hex(&all, hex);
}

static void test_descriptions(void **state)
{
    const struct ra_policy_ops *ops = *state;
    for (const char *c = ops->name; *c; c++)
        assert_true(islower(*c) || isdigit(*c) || (*c == '-' && c > ops->name && islower(c[1])));
    int same = 0;
    for (int i = 0; ra_policies[i]; i++)
        same += strcmp(ra_policies[i]->name, ops->name) == 0;
    assert_int_equal(same, 1);
    assert_in_range(strlen(ops->summary), 1, 72);
    assert_true(*ops->source);
    assert_true(ops->caches && ops->open && ops->plan && ops->close);
    for (const struct ra_param *row = ops->params; row && row->name; row++) {
        assert_true(row->help && *row->help && ra_params_find(ops->params, row->name) == row);
        assert_true(row->type == RA_PARAM_LIST ||
                    (row->type == RA_PARAM_CHOICE) == (row->choices != NULL));
    }
    ops->close(NULL);
}

/* The canonical spelling is a fixed point, names the policy and every parameter. */
static void test_canonical(void **state)
{
    const struct ra_policy_ops *ops = *state;
    struct ra_policy_spec *spec, *again;
    struct ra_error err;
    char text[256];
    spell(ops, "", "", text, sizeof text);
    ra_assert_ok(ra_policy_parse(&spec, text, &err));
    const char *canonical = ra_policy_spec_canonical(spec);
    ra_assert_ok(ra_policy_parse(&again, canonical, &err));
    assert_string_equal(canonical, ra_policy_spec_canonical(again));
    assert_ptr_equal(ra_policy_spec_ops(again), ops);
    assert_memory_equal(canonical, ops->name, strlen(ops->name));
    for (const struct ra_param *row = ops->params; row && row->name; row++) {
        char key[64];
        snprintf(key, sizeof key, "%s=", row->name);
        assert_non_null(strstr(canonical, key));
    }
    ra_policy_spec_close(spec);
    ra_policy_spec_close(again);
}

/* Same input, same sets: twice, through install, and in the other order of layers. */
static void test_determinism(void **state)
{
    static struct drive d;
    const struct ra_policy_ops *ops = *state;
    struct ra_error err;
    char text[256], first[RA_SHA256_HEX], hex[RA_SHA256_HEX];
    spell(ops, "", "", text, sizeof text);
    for (int variant = 0; variant < 4; variant++) {
        drive_init(&d, 11);
        d.step_major = variant == 1 || variant == 3;
        d.by_install = variant >= 2;
        ra_assert_ok(drive_open(&d, text, &err));
        run(&d, variant ? hex : first);
        drive_close(&d);
        assert_string_equal(variant ? hex : first, first);
    }
}

/* Without `stride` in the way, budgets from 1 to beyond the whole run, and prompts of any length.
 */
static void test_shapes(void **state)
{
    static struct drive d;
    const struct ra_policy_ops *ops = *state;
    struct ra_error err;
    if (!ra_params_find(ops->params, "k"))
        return;
    for (uint64_t seed = 0; seed < 100; seed++) {
        uint64_t random = seed;
        char text[256], k[16], hex[RA_SHA256_HEX];
        drive_init(&d, seed);
        d.P = 1 + (int32_t)drive_random(&random, 20);
        d.N = 1 + (int32_t)drive_random(&random, 20);
        d.n_layers = 1 + (int)drive_random(&random, DRIVE_LAYERS);
        drive_queries(&d, 1);
        snprintf(k, sizeof k, "%u", 1 + drive_random(&random, 45));
        spell(ops, "k", k, text, sizeof text);
        enum ra_status st = drive_open(&d, text, &err);
        if (st == RA_OK)
            run(&d, hex);
        else
            assert_int_equal(st, RA_EUSAGE);
        drive_close(&d);
    }
}

/* A short run of a spelling; false when it is refused. */
static bool run_spelling(const char *text, char lanes[DRIVE_LAYERS][RA_SHA256_HEX])
{
    static struct drive d;
    struct ra_error err;
    drive_init(&d, 13);
    enum ra_status st = drive_open(&d, text, &err);
    if (st == RA_OK)
        run_lanes(&d, lanes);
    drive_close(&d);
    return st == RA_OK;
}

/* "key@1=value" does to layer 1 what "key=value" does, and nothing to layer 0. */
static bool check_layer_value(const struct ra_policy_ops *ops, const struct ra_param *row,
                              const char *value)
{
    char lanes[3][DRIVE_LAYERS][RA_SHA256_HEX], texts[2][256], mixed[512];
    const char *usual = small_value(row) ? small_value(row) : row->fallback;
    spell(ops, row->name, usual, texts[0], sizeof texts[0]);
    spell(ops, row->name, value, texts[1], sizeof texts[1]);
    snprintf(mixed, sizeof mixed, "%s,%s@1=%s", texts[0], row->name, value);
    if (!run_spelling(texts[0], lanes[0]) || !run_spelling(texts[1], lanes[1]) ||
        !run_spelling(mixed, lanes[2]))
        return false;
    assert_string_equal(lanes[2][0], lanes[0][0]);
    assert_string_equal(lanes[2][1], lanes[1][1]);
    return strcmp(lanes[0][1], lanes[1][1]) != 0;
}

/* Every parameter that may differ between layers does; of those without a default some value is
 * seen to matter, so that what is compared is not all the same. */
static void test_layers(void **state)
{
    const struct ra_policy_ops *ops = *state;
    static const char *const numbers[] = {"0", "1", "2", "3", "5", "0.5", "none"};
    for (const struct ra_param *row = ops->params; row && row->name; row++) {
        bool matters = false;
        char value[64];
        if (row->reach == RA_REACH_ALL)
            continue;
        for (const char *at = row->choices; at && *at; at += strspn(at, "|")) {
            size_t n = strcspn(at, "|");
            snprintf(value, sizeof value, "%.*s", (int)n, at);
            matters |= check_layer_value(ops, row, value);
            at += n;
        }
        for (size_t i = 0; !row->choices && i < sizeof numbers / sizeof *numbers; i++)
            matters |= check_layer_value(ops, row, numbers[i]);
        if (!row->fallback)
            assert_true(matters);
    }
}

/* "key@1.0=value" does to KV head 0 of layer 1 what "key=value" does, and nothing to head 1. */
static void test_heads(void **state)
{
    static struct drive d;
    const struct ra_policy_ops *ops = *state;
    static const char *const values[] = {"3", "4", "9"};
    struct ra_error err;
    for (const struct ra_param *row = ops->params; row && row->name; row++)
        for (size_t i = 0; row->reach == RA_REACH_HEAD && i < sizeof values / sizeof *values; i++) {
            char lanes[DRIVE_LAYERS][RA_SHA256_HEX], heads[3][DRIVE_HEADS][RA_SHA256_HEX];
            char texts[3][640];
            spell(ops, row->name, small_value(row), texts[0], 512);
            spell(ops, row->name, values[i], texts[1], 512);
            struct ra_writer out = {texts[2], sizeof texts[2], 0};
            ra_write(&out, "%s,%s@1.0=%s", texts[0], row->name, values[i]);
            for (int j = 0; j < 3; j++) {
                drive_init(&d, 13);
                ra_assert_ok(drive_open(&d, texts[j], &err));
                run_parts(&d, lanes, heads[j]);
                drive_close(&d);
            }
            bool follows = strcmp(ops->name, "tidal") == 0 && atoi(values[i]) > 6;
            if (!follows) /* a layer that follows has no more than what it follows chose */
                assert_string_equal(heads[2][0], heads[1][0]);
            assert_string_equal(heads[2][1], heads[0][1]);
            assert_string_not_equal(heads[1][0], heads[0][0]);
        }
}

static void try_value(const struct ra_policy_ops *ops, const struct ra_param *row,
                      const char *value)
{
    static struct drive d;
    struct ra_error err = {.msg = ""};
    char text[512], hex[RA_SHA256_HEX];
    spell(ops, row->name, value, text, sizeof text);
    drive_init(&d, 12);
    enum ra_status st = drive_open(&d, text, &err);
    if (st == RA_OK) {
        run(&d, hex);
    } else {
        assert_int_equal(st, RA_EUSAGE);
        assert_non_null(strstr(err.msg, ops->name));
        assert_non_null(strstr(err.msg, "expected"));
    }
    drive_close(&d);
}

/* Every parameter at its ends, and every choice, runs or is refused with a message. */
static void test_ranges(void **state)
{
    const struct ra_policy_ops *ops = *state;
    for (const struct ra_param *row = ops->params; row && row->name; row++) {
        char value[64];
        if (row->fallback)
            try_value(ops, row, row->fallback);
        for (const char *choice = row->choices; choice && *choice; choice += strspn(choice, "|")) {
            size_t n = strcspn(choice, "|");
            snprintf(value, sizeof value, "%.*s", (int)n, choice);
            try_value(ops, row, value);
            choice += n;
        }
        if (row->type == RA_PARAM_CHOICE)
            continue;
        const double ends[] = {row->min, row->max};
        for (int i = 0; i < 2; i++) {
            snprintf(value, sizeof value, "%.17g", ends[i]);
            char *plus = strchr(value, '+');
            if (plus)
                memmove(plus, plus + 1, strlen(plus));
            try_value(ops, row, value);
        }
        if (row->type == RA_PARAM_FRACTION) {
            try_value(ops, row, "1/2147483647");
            try_value(ops, row, "2147483647/1");
        }
    }
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction test;
    } rules[] = {{"descriptions", test_descriptions},
                 {"canonical", test_canonical},
                 {"determinism", test_determinism},
                 {"shapes", test_shapes},
                 {"layers", test_layers},
                 {"heads", test_heads},
                 {"ranges", test_ranges}};
    enum { N_RULES = sizeof rules / sizeof rules[0], MOST = 64 };
    static struct CMUnitTest tests[MOST * N_RULES];
    static char names[MOST * N_RULES][64];
    size_t n = 0;
    for (int i = 0; ra_policies[i] && i < MOST; i++)
        for (int j = 0; j < N_RULES; j++, n++) {
            snprintf(names[n], sizeof names[n], "%s: %s", ra_policies[i]->name, rules[j].name);
            tests[n] = (struct CMUnitTest){.name = names[n],
                                           .test_func = rules[j].test,
                                           .initial_state = (void *)(uintptr_t)ra_policies[i]};
        }
    return _cmocka_run_group_tests("policies", tests, n, NULL, NULL);
}
