/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, units and passes of counters against what libnvperf_host says of real chips, without one.
 * Units and passes expected here were taken down from the library by another program. What asks the
 * library is skipped where it is not.
 */
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "profiler/metrics.h"
#include "tests/support/cupti_leaks.h"
#include "tests/support/ra_test.h"

static const struct {
    const char *chip;
    size_t l2_pct, sm_pct; /* passes of these alone */
} chips[] = {
    {"GA100", 9, 5}, {"GA102", 4, 6}, {"AD102", 4, 6},
    {"GH100", 4, 8}, {"GB100", 4, 8}, {"GB202", 4, 8},
};
enum { N_CHIPS = sizeof chips / sizeof *chips };

static bool has_library(void)
{
    const char *const *names;
    size_t n;
    struct ra_error err = {RA_OK, ""};
    if (ra_counter_chips(&names, &n, &err) == RA_OK)
        return true;
    assert_int_equal(err.code, RA_ENODEV);
    print_message("%s\n", err.msg);
    return false;
}

#define NEEDS_LIBRARY()                                                                            \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!has_library())                                                                        \
            skip();                                                                                \
    } while (0)

static void test_rows(void **state)
{
    (void)state;
    for (const struct ra_counter *row = ra_counters; row->name; row++) {
        assert_non_null(ra_metric_find(row->name));
        for (const struct ra_counter *later = row + 1; later->name; later++) {
            assert_string_not_equal(row->cupti_name, later->cupti_name);
            if (strcmp(row->name, later->name) != 0)
                continue;
            assert_int_equal(row->families & later->families, 0);
            assert_string_equal(later[-1].name, later->name);
        }
    }
    for (const struct ra_counter_set *set = ra_counter_sets; set->name; set++)
        for (const char *const *name = set->names; *name; name++)
            assert_non_null(ra_counter_find("GH100", *name));
    assert_null(ra_counter_find("GH100", "mass_recovered"));
    assert_null(ra_counter_find("NV50", "gpu_time"));
}

static void test_units(void **state)
{
    static const char *const units[][2] = {
        {"gpu_time", "nanosecond"},
        {"dram_read_bytes", "byte"},
        {"dram_write_bytes", "byte"},
        {"dram_bytes", "byte"},
        {"dram_read_sectors", "l2_sector"},
        {"dram_pct", "percent"},
        {"l2_sectors", "l2_sector"},
        {"l2_sectors_hit", "l2_sector"},
        {"l2_from_l1", "l2_sector"},
        {"l2_tag_hit", "L2_tag"},
        {"l2_tag_miss", "L2_tag"},
        {"l2_hit_pct", "percent"},
        {"l2_to_l1_bytes", "byte"},
        {"l1_hit_pct", "percent"},
        {"sm_active", "gpc_cycle"},
        {"sm_pct", "percent"},
        {"l2_pct", "percent"},
    };
    (void)state;
    for (int c = 0; c < N_CHIPS; c++)
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            const struct ra_counter *row = ra_counter_find(chips[c].chip, units[i][0]);
            assert_non_null(row);
            assert_string_equal(row->hw_unit, units[i][1]);
        }
}

static bool is_checked(const char *chip)
{
    for (int c = 0; c < N_CHIPS; c++)
        if (strcmp(chips[c].chip, chip) == 0)
            return true;
    return false;
}

/* Every chip the library offers: what we name is there and as we say; and what we do not name on
 * the chips above is not there. */
static void test_names(void **state)
{
    const char *const *names;
    size_t n, n_seen = 0;
    struct ra_error err;
    struct ra_counter_info info;
    NEEDS_LIBRARY();
    ra_assert_ok(ra_counter_chips(&names, &n, &err));
    assert_in_range(n, 30, 1000);
    for (size_t c = 0; c < n; c++) {
        if (ra_counter_probe(names[c], &err) != RA_OK)
            continue;
        n_seen++;
        for (const struct ra_counter *row = ra_counters; row->name; row++) {
            if (ra_counter_find(names[c], row->name) == row) {
                ra_assert_ok(ra_counter_describe(names[c], row->cupti_name, &info, &err));
                assert_string_equal(info.unit, row->hw_unit);
                assert_int_equal(info.is_additive, row->is_additive);
                assert_true(*info.text && *info.block);
            } else if (is_checked(names[c])) {
                ra_assert_fails(ra_counter_describe(names[c], row->cupti_name, &info, &err),
                                RA_EUSAGE, "(17)");
            }
        }
    }
    assert_int_equal(n_seen, n - 1); /* GV11B is listed and has none */
}

static void test_chips_differ(void **state)
{
    (void)state;
    assert_string_equal(ra_counter_find("GH100", "dram_read_bytes")->cupti_name,
                        "dram__bytes_read.sum");
    assert_string_equal(ra_counter_find("GB202", "dram_read_bytes")->cupti_name,
                        "dram__bytes_op_read.sum");
    assert_string_equal(ra_counter_find("GB202", "dram_write_bytes")->cupti_name,
                        "dram__bytes_op_write.sum");
    assert_non_null(ra_counter_find("GH100", "l2_device_miss"));
    assert_null(ra_counter_find("GB100", "l2_device_miss"));
    assert_null(ra_counter_find("GB202", "l2_device_miss"));
    assert_non_null(ra_counter_find("GB100", "l2_fabric"));
    assert_null(ra_counter_find("AD102", "l2_fabric"));
    assert_null(ra_counter_find("GA10B", "dram_read_bytes"));
    assert_null(ra_counter_find("GB20B", "dram_bytes"));
}

/* Passes of a list on a chip, by one plan. */
static size_t passes(const char *chip, const char *list)
{
    struct ra_counter_choice *choices;
    struct ra_counter_plan *plan;
    struct ra_error err;
    const char *names[64];
    size_t n;
    ra_assert_ok(ra_counter_choose(chip, list, &choices, &n, &err));
    assert_in_range(n, 1, 64);
    for (size_t i = 0; i < n; i++)
        names[i] = choices[i].cupti_name;
    ra_assert_ok(ra_counter_plan_open(&plan, chip, NULL, names, n, &err));
    size_t counted = plan->n_passes;
    assert_int_equal(plan->n_metrics, n);
    assert_in_range(plan->config_bytes, 100, 1 << 20);
    ra_counter_plan_close(plan);
    free(choices);
    return counted;
}

static void test_passes(void **state)
{
    NEEDS_LIBRARY();
    for (int c = 0; c < N_CHIPS; c++) {
        const char *chip = chips[c].chip;
        assert_int_equal(passes(chip, "core"), 1);
        assert_int_equal(passes(chip, "hit"), 1);
        assert_int_equal(passes(chip, "miss"), 1);
        assert_int_equal(passes(chip, "hit,miss"), 2);
        assert_int_equal(passes(chip, "l2_sectors_hit,l2_sectors_miss"), 2);
        assert_int_equal(passes(chip, "l2_hit_pct"), 2);
        assert_int_equal(passes(chip, "l2_request_hit_pct"), 1);
        assert_int_equal(passes(chip, "dram_pct"), 1);
        assert_int_equal(passes(chip, "l2_pct"), chips[c].l2_pct);
        assert_int_equal(passes(chip, "sm_pct"), chips[c].sm_pct);
    }
}

/* The sets are one pass on every chip from Turing on with memory of its own. */
static void test_sets(void **state)
{
    const char *const *names;
    size_t n, n_seen = 0;
    struct ra_error err;
    NEEDS_LIBRARY();
    ra_assert_ok(ra_counter_chips(&names, &n, &err));
    for (size_t c = 0; c < n; c++) {
        if (strncmp(names[c], "GV", 2) == 0 || !ra_counter_find(names[c], "dram_bytes"))
            continue;
        n_seen++;
        for (const struct ra_counter_set *set = ra_counter_sets; set->name; set++)
            if (passes(names[c], set->name) != 1)
                fail_msg("%s: %s: more than one pass", names[c], set->name);
    }
    assert_int_equal(n_seen, 25);
}

static void test_split(void **state)
{
    static const char *const names[] = {"lts__t_sectors_lookup_hit.sum",
                                        "lts__throughput.avg.pct_of_peak_sustained_elapsed",
                                        "lts__t_sectors_lookup_miss.sum", "gpu__time_duration.sum",
                                        "lts__t_sectors_srcunit_tex_lookup_miss.sum"};
    enum { N = sizeof names / sizeof *names };
    size_t run_of[N], in[N], n_runs;
    struct ra_error err;
    NEEDS_LIBRARY();
    ra_assert_ok(ra_counter_split("GH100", names, N, run_of, in, &n_runs, &err));
    assert_int_equal(n_runs, 3);
    const size_t expected[N] = {0, 1, 2, 0, 2};
    assert_memory_equal(run_of, expected, sizeof expected);
    assert_true(in[0] == 1 && in[1] == 4 && in[2] == 1);
    ra_assert_fails(
        ra_counter_split("GH100", (const char *const[]){"x__y.sum"}, 1, run_of, in, &n_runs, &err),
        RA_EUSAGE, "x__y.sum");
}

static void test_choose(void **state)
{
    struct ra_counter_choice *choices;
    struct ra_error err;
    size_t n;
    char name[200];
    (void)state;
    ra_assert_ok(ra_counter_choose("GB202", "l2_tag_miss,core,a__b.sum,dram_read_bytes,a__b.sum",
                                   &choices, &n, &err));
    assert_int_equal(n, 7);
    assert_string_equal(choices[0].name, "l2_tag_miss");
    assert_string_equal(choices[0].cupti_name, "lts__t_tag_requests_miss.sum");
    assert_string_equal(choices[1].name, "gpu_time");
    assert_string_equal(choices[2].cupti_name, "dram__bytes_op_read.sum");
    assert_string_equal(choices[6].name, "a__b.sum");
    free(choices);
    for (const char *const *list = (const char *const[]){"", ",", "core,", ",hit", NULL}; *list;
         list++)
        ra_assert_fails(ra_counter_choose("GB202", *list, &choices, &n, &err), RA_EUSAGE,
                        "nothing");
    assert_null(choices);
    ra_assert_fails(ra_counter_choose("GB202", "dram_raed_bytes", &choices, &n, &err), RA_EUSAGE,
                    "nearest is 'dram_read_bytes'");
    ra_assert_fails(ra_counter_choose("GB202", "mass_recovered", &choices, &n, &err), RA_EUSAGE,
                    "core, hit, miss");
    ra_assert_fails(ra_counter_choose("GB202", "core,l2_device_miss", &choices, &n, &err),
                    RA_ENODEV, "'GB202' has no l2_device_miss");
    memset(name, 'x', sizeof name);
    name[1] = name[2] = '_';
    name[RA_COUNTER_NAME_MAX] = '\0';
    ra_assert_fails(ra_counter_choose("GB202", name, &choices, &n, &err), RA_EUSAGE, "x__x");
    name[RA_COUNTER_NAME_MAX - 1] = '\0';
    ra_assert_ok(ra_counter_choose("GB202", name, &choices, &n, &err));
    assert_string_equal(choices[0].cupti_name, name);
    free(choices);
}

static void test_unknown(void **state)
{
    static const struct {
        const char *chip, *metric, *text;
        enum ra_status status;
    } cases[] = {
        {"h100", "gpu__time_duration.sum", "(46); nearest: GH100", RA_EUSAGE},
        {"H100", "gpu__time_duration.sum", "(46); nearest: GH100", RA_EUSAGE},
        {"", "gpu__time_duration.sum", "(46); known: GV100 GV11B ", RA_EUSAGE},
        {"GV11B", "gpu__time_duration.sum", "(27)", RA_ENODEV},
        {"GH100", "dram__byte_read.sum", "(17); nearest is 'dram__bytes_read.sum'", RA_EUSAGE},
        {"GB202", "dram__bytes_read.sum", "(17); nearest is 'dram__bytes", RA_EUSAGE},
        {"GH100", "lts__t_sector_hit_rate_srcunit_tex.pct", "(17)", RA_EUSAGE},
        {"GH100", "dram__bytes_read.total", "(17); dram__bytes_read has other forms", RA_EUSAGE},
        {"GH100", "dram__bytes_read", "'dram__bytes_read.sum'", RA_EUSAGE},
        {"GH100", "lts__t_sector_hit_rate", "'lts__t_sector_hit_rate.pct'", RA_EUSAGE},
        {"GH100", "", "(17)", RA_EUSAGE},
    };
    NEEDS_LIBRARY();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ra_error err;
        struct ra_counter_info info;
        struct ra_counter_plan *plan;
        ra_assert_fails(ra_counter_describe(cases[i].chip, cases[i].metric, &info, &err),
                        cases[i].status, cases[i].text);
        ra_assert_fails(ra_counter_plan_open(&plan, cases[i].chip, NULL, &cases[i].metric, 1, &err),
                        cases[i].status, cases[i].text);
        assert_null(plan);
    }
}

/* No data came from a device here: that is refused, and nothing is taken for a value. */
static void test_data(void **state)
{
    static const uint8_t zeros[4096];
    const char *const names[] = {"dram__bytes_read.sum", "gpu__time_duration.sum"};
    const struct ra_counter_data data = {zeros, sizeof zeros};
    struct ra_counter_plan *plan;
    struct ra_error err;
    double values[2];
    char name[16];
    NEEDS_LIBRARY();
    ra_assert_ok(ra_counter_plan_open(&plan, "GH100", NULL, names, 2, &err));
    ra_assert_fails(ra_counter_plan_evaluate(plan, data, 7, values, &err), RA_EDEVICE, "range 7");
    ra_counter_plan_close(plan);
    ra_assert_fails(ra_counter_range_name(data, 7, name, sizeof name, &err), RA_EDEVICE, "range 7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_units),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_chips_differ),
        cmocka_unit_test(test_passes),  cmocka_unit_test(test_sets),
        cmocka_unit_test(test_split),   cmocka_unit_test(test_choose),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
