/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of the host API's answers: a library of this file's own gives them, so that values
 * of a device can be among them. Whatever call is refused, with whatever code: an error, and as
 * many host objects closed as opened. Skipped where CUPTI's headers were missing.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "tests/support/ra_test.h"

/* The loader's interface, whose header needs CUPTI's. These stand in for it. */
struct ra_cupti;
enum ra_status ra_cupti_load(const struct ra_cupti **cupti, struct ra_error *err);
void *ra_cupti_symbol(const struct ra_cupti *cupti, const char *name);
const char *ra_cupti_result(const struct ra_cupti *cupti, int result, char text[96]);

/* Parameters as cupti_profiler_host.h of CUDA 13.0 lays them out; the header is C++. */
struct chips_parameters {
    size_t size;
    void *priv;
    size_t n;
    const char *const *names;
};
struct initialize_parameters {
    size_t size;
    void *priv;
    int profiler;
    const char *chip;
    const uint8_t *availability;
    void *object;
};
struct properties_parameters {
    size_t size;
    void *priv;
    void *object;
    const char *name, *text, *block, *unit;
    int type;
};
struct base_parameters {
    size_t size;
    void *priv;
    void *object;
    int type;
    const char **names;
    size_t n;
};
struct object_parameters { /* of several calls */
    size_t size;
    void *priv;
    void *object;
    union {
        size_t config_bytes;
        const char **names;
    };
    union {
        uint8_t *config;
        size_t n;
    };
};
struct passes_parameters {
    size_t size;
    void *priv;
    size_t config_bytes;
    const uint8_t *config;
    size_t n;
};
struct evaluate_parameters {
    size_t size;
    void *priv;
    void *object;
    const uint8_t *image;
    size_t image_bytes, range;
    const char **names;
    size_t n;
    double *values;
};
struct range_parameters {
    size_t size;
    void *priv;
    const uint8_t *image;
    size_t image_bytes, range;
    const char *delimiter, *name;
};

enum { CONFIG_BYTES = 300, PASSES = 2 };
static const uint8_t availability[] = {1, 2, 3};
static const uint8_t image[] = {4, 5, 6, 7};
static const char *const names[] = {"a__b.sum", "c__d.sum"};

static struct {
    const char *refused; /* the call that fails, with `code`; NULL: none */
    const char *lacking; /* the call that the library has not */
    int code, n_open, n_calls;
    const uint8_t *availability;
} world;

static char objects[2];

static int answer(const char *call)
{
    world.n_calls++;
    return world.refused && strcmp(world.refused, call) == 0 ? world.code : 0;
}

static int get_chips(struct chips_parameters *p)
{
    static const char *const chips[] = {"GH100", "GB202"};
    p->n = 2;
    p->names = chips;
    return answer("cuptiProfilerHostGetSupportedChips");
}

static int initialize(struct initialize_parameters *p)
{
    int code = answer("cuptiProfilerHostInitialize");
    assert_int_equal(p->size, sizeof *p);
    assert_int_equal(p->profiler, 0);
    world.availability = p->availability;
    if (code == 0) {
        p->object = objects;
        world.n_open++;
    }
    return code;
}

static int deinitialize(struct object_parameters *p)
{
    assert_ptr_equal(p->object, objects);
    world.n_open--;
    return answer("cuptiProfilerHostDeinitialize");
}

static int get_base(struct base_parameters *p)
{
    static const char *near[] = {"a__bc"};
    p->names = near;
    p->n = p->type == 1;
    return answer("cuptiProfilerHostGetBaseMetrics");
}

static int get_properties(struct properties_parameters *p)
{
    assert_ptr_equal(p->object, objects);
    p->block = p->unit = p->text = NULL;
    p->type = 0;
    return answer("cuptiProfilerHostGetMetricProperties");
}

static int add_metrics(struct object_parameters *p)
{
    assert_int_equal(p->n, 2);
    assert_string_equal(p->names[1], names[1]);
    return answer("cuptiProfilerHostConfigAddMetrics");
}

static int get_size(struct object_parameters *p)
{
    p->config_bytes = CONFIG_BYTES;
    return answer("cuptiProfilerHostGetConfigImageSize");
}

static int get_config(struct object_parameters *p)
{
    assert_int_equal(p->config_bytes, CONFIG_BYTES);
    memset(p->config, 0x5a, CONFIG_BYTES);
    return answer("cuptiProfilerHostGetConfigImage");
}

static int get_passes(struct passes_parameters *p)
{
    assert_int_equal(p->config_bytes, CONFIG_BYTES);
    assert_int_equal(p->config[CONFIG_BYTES - 1], 0x5a);
    p->n = PASSES;
    return answer("cuptiProfilerHostGetNumOfPasses");
}

static int evaluate(struct evaluate_parameters *p)
{
    assert_ptr_equal(p->object, objects);
    assert_ptr_equal(p->image, image);
    assert_int_equal(p->image_bytes, sizeof image);
    assert_int_equal(p->n, 2);
    assert_string_equal(p->names[0], names[0]);
    p->values[0] = (double)p->range + 0.5;
    p->values[1] = NAN;
    return answer("cuptiProfilerHostEvaluateToGpuValues");
}

static int get_range_name(struct range_parameters *p)
{
    int code = answer("cuptiProfilerHostGetRangeName");
    assert_ptr_equal(p->image, image);
    p->name = code == 0 ? strdup(p->range == 12 ? "4096" : "") : NULL;
    return code;
}

static const struct {
    const char *name;
    void (*call)(void);
} calls[] = {
    {"cuptiProfilerHostGetSupportedChips", (void (*)(void))get_chips},
    {"cuptiProfilerHostInitialize", (void (*)(void))initialize},
    {"cuptiProfilerHostDeinitialize", (void (*)(void))deinitialize},
    {"cuptiProfilerHostGetBaseMetrics", (void (*)(void))get_base},
    {"cuptiProfilerHostGetMetricProperties", (void (*)(void))get_properties},
    {"cuptiProfilerHostConfigAddMetrics", (void (*)(void))add_metrics},
    {"cuptiProfilerHostGetConfigImageSize", (void (*)(void))get_size},
    {"cuptiProfilerHostGetConfigImage", (void (*)(void))get_config},
    {"cuptiProfilerHostGetNumOfPasses", (void (*)(void))get_passes},
    {"cuptiProfilerHostEvaluateToGpuValues", (void (*)(void))evaluate},
    {"cuptiProfilerHostGetRangeName", (void (*)(void))get_range_name},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

enum ra_status ra_cupti_load(const struct ra_cupti **cupti, struct ra_error *err)
{
    static _Alignas(16) char nothing[1 << 14];
    (void)err;
    *cupti = (const struct ra_cupti *)nothing;
    return RA_OK;
}

void *ra_cupti_symbol(const struct ra_cupti *cupti, const char *name)
{
    (void)cupti;
    if (world.lacking && strcmp(world.lacking, name) == 0)
        return NULL;
    for (int i = 0; i < N_CALLS; i++)
        if (strcmp(calls[i].name, name) == 0) {
            void *call;
            memcpy(&call, &calls[i].call, sizeof call);
            return call;
        }
    fail_msg("%s is not known here", name);
    return NULL;
}

const char *ra_cupti_result(const struct ra_cupti *cupti, int result, char text[96])
{
    (void)cupti;
    snprintf(text, 96, "WORD (%d)", result);
    return text;
}

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    return 0;
}

#define NEEDS_HEADERS()                                                                            \
    do {                                                                                           \
        (void)state;                                                                               \
        if (ra_counter_probe("GH100", NULL) == RA_ENODEV)                                          \
            skip();                                                                                \
    } while (0)

static void test_plan(void **state)
{
    struct ra_counter_plan *plan;
    struct ra_error err;
    NEEDS_HEADERS();
    ra_assert_ok(ra_counter_plan_open(&plan, "GH100", availability, names, 2, &err));
    assert_ptr_equal(world.availability, availability);
    assert_int_equal(world.n_open, 1);
    assert_int_equal(plan->n_passes, PASSES);
    assert_int_equal(plan->config_bytes, CONFIG_BYTES);
    assert_int_equal(plan->config[7], 0x5a);
    ra_counter_plan_close(plan);
    assert_int_equal(world.n_open, 0);
    const char *const twice[] = {names[0], names[1], names[0]};
    ra_assert_fails(ra_counter_plan_open(&plan, "GH100", NULL, twice, 3, &err), RA_EUSAGE, "twice");
    ra_assert_fails(ra_counter_plan_open(&plan, "GH100", NULL, NULL, 0, &err), RA_EUSAGE,
                    "no metrics");
    assert_null(plan);
    assert_int_equal(world.n_open, 0);
    ra_counter_plan_close(NULL);
}

static void test_values(void **state)
{
    const struct ra_counter_data data = {image, sizeof image};
    struct ra_counter_plan *plan;
    struct ra_error err;
    double values[3] = {-1, -1, -1};
    char name[8];
    NEEDS_HEADERS();
    ra_assert_ok(ra_counter_plan_open(&plan, "GH100", availability, names, 2, &err));
    ra_assert_ok(ra_counter_plan_evaluate(plan, data, 12, values, &err));
    assert_true(values[0] == 12.5 && isnan(values[1]) && values[2] == -1);
    ra_assert_ok(ra_counter_range_name(data, 12, name, sizeof name, &err));
    assert_string_equal(name, "4096");
    ra_assert_ok(ra_counter_range_name(data, 12, name, 5, &err));
    ra_assert_fails(ra_counter_range_name(data, 12, name, 4, &err), RA_ERANGE,
                    "at most 3 characters, got 4");
    world.refused = "cuptiProfilerHostEvaluateToGpuValues";
    world.code = 13;
    ra_assert_fails(ra_counter_plan_evaluate(plan, data, 12, values, &err), RA_EDEVICE,
                    "range 12: CUPTI refused with WORD (13)");
    world.refused = "cuptiProfilerHostGetRangeName";
    ra_assert_fails(ra_counter_range_name(data, 3, name, sizeof name, &err), RA_EDEVICE, "range 3");
    ra_counter_plan_close(plan);
    assert_int_equal(world.n_open, 0);
}

static void test_refused(void **state)
{
    static const int codes[] = {1, 15, 17, 27, 46, 999};
    struct ra_counter_plan *plan;
    struct ra_error err;
    NEEDS_HEADERS();
    for (int i = 1; i < N_CALLS - 2; i++)
        for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
            setup(NULL);
            world.refused = calls[i].name;
            world.code = codes[c];
            enum ra_status status = ra_counter_plan_open(&plan, "GH100", NULL, names, 2, &err);
            if (strstr(calls[i].name, "Deinit") || strstr(calls[i].name, "GetBase")) {
                assert_int_equal(status, RA_OK); /* closing, and hints, fail nothing */
                ra_counter_plan_close(plan);
            } else {
                assert_int_not_equal(status, RA_OK);
                assert_null(plan);
                assert_non_null(strstr(err.msg, codes[c] == 15 ? "libnvperf_host.so" : "WORD ("));
            }
            assert_int_equal(world.n_open, 0);
        }
    setup(NULL);
    world.refused = "cuptiProfilerHostGetMetricProperties";
    world.code = 17;
    ra_assert_fails(ra_counter_plan_open(&plan, "GH100", NULL, names, 2, &err), RA_EUSAGE,
                    "'a__b.sum': chip GH100 has none, WORD (17); nearest is 'a__bc.sum'");
    world.refused = "cuptiProfilerHostInitialize";
    world.code = 46;
    ra_assert_fails(ra_counter_probe("gb203", &err), RA_EUSAGE,
                    "'gb203': unknown to CUPTI, WORD (46); nearest: GB202");
    ra_assert_fails(ra_counter_probe("V", &err), RA_EUSAGE, "known: GH100 GB202");
    world.code = 27;
    ra_assert_fails(ra_counter_probe("GH100", &err), RA_ENODEV, "WORD (27)");
    world.code = 15;
    ra_assert_fails(ra_counter_probe("GH100", &err), RA_ENODEV,
                    "libnvperf_host.so not found beside libcupti");
}

static void test_lacking(void **state)
{
    struct ra_error err;
    NEEDS_HEADERS();
    for (int i = 1; i < N_CALLS; i++) {
        setup(NULL);
        world.lacking = calls[i].name;
        ra_assert_fails(ra_counter_probe("GH100", &err), RA_ENODEV, calls[i].name);
        assert_int_equal(world.n_calls, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_plan, setup),
        cmocka_unit_test_setup(test_values, setup),
        cmocka_unit_test_setup(test_refused, setup),
        cmocka_unit_test_setup(test_lacking, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
