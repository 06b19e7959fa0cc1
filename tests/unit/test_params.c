/* SPDX-License-Identifier: Apache-2.0 */
/* Parameter tables: every type's texts, in and out, and what a refused text leaves behind. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sim/base/params.h"
#include "tests/support/ra_test.h"

struct values {
    int32_t count, limit, mode;
    double real;
    struct ra_fraction share;
    struct ra_int_list list;
};

static const struct ra_param table[] = {
    {"count", RA_PARAM_INT, offsetof(struct values, count), -5, 20, "7", NULL, "a count", 0},
    {"limit", RA_PARAM_INT, offsetof(struct values, limit), 1, INT32_MAX, "none", NULL, "a", 0},
    {"real", RA_PARAM_REAL, offsetof(struct values, real), -1, 1e9, "none", NULL, "a real", 0},
    {"mode", RA_PARAM_CHOICE, offsetof(struct values, mode), 0, 0, "b", "a|b|cc", "a mode", 0},
    {"share", RA_PARAM_FRACTION, offsetof(struct values, share), 2, 99, NULL, NULL, "a share", 0},
    {"list", RA_PARAM_LIST, offsetof(struct values, list), 0, 9, "none", NULL, "a list", 0},
    {NULL, RA_PARAM_INT, 0, 0, 0, NULL, NULL, NULL, 0},
};

static const char *reformat(const char *name, const struct values *values)
{
    static char text[128];
    int n = ra_param_format(ra_params_find(table, name), values, text, sizeof text);
    assert_int_equal(n, strlen(text));
    return text;
}

static void test_defaults(void **state)
{
    (void)state;
    struct values values = {.share = {3, 4}};
    ra_params_defaults(table, &values);
    assert_int_equal(values.count, 7);
    assert_int_equal(values.limit, RA_INT_NONE);
    assert_true(isnan(values.real));
    assert_int_equal(values.mode, 1);
    assert_int_equal(values.list.n, 0);
    assert_int_equal(values.share.num, 3); /* no default: left as it was */
    assert_null(ra_params_find(table, "coun"));
    assert_null(ra_params_find(NULL, "count"));
}

static void test_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *canonical;
    } rows[] = {
        {"count", "-5", "-5"},        {"count", "020", "20"},   {"limit", "none", "none"},
        {"limit", "1", "1"},          {"real", "none", "none"}, {"real", "1e9", "1000000000"},
        {"real", "-0.5", "-0.5"},     {"real", "1.", "1"},      {"real", ".5e1", "5"},
        {"real", "123456.789", NULL}, {"mode", "cc", "cc"},     {"mode", "a", "a"},
        {"share", "2", "2"},          {"share", "99", "99"},    {"share", "10/4", "5/2"},
        {"list", "0/5/9", "0/5/9"},   {"list", "none", "none"}, {"list", "9", "9"},
        {"real", "1E-2", "0.01"},     {"real", "-1", "-1"},     {"real", "0.1", "0.1"},
        {"share", "1/3", "1/3"},      {"count", "-0", "0"},     {"real", "-0", "0"},
    };
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct values values = {0};
        const struct ra_param *param = ra_params_find(table, rows[i].name);
        ra_assert_ok(ra_param_set(param, rows[i].text, &values, "t:", &err));
        const char *want = rows[i].canonical ? rows[i].canonical : rows[i].text;
        assert_string_equal(reformat(rows[i].name, &values), want);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *message;
    } rows[] = {
        {"count", "-6", "t: count: expected a whole number from -5 to 20, got '-6'"},
        {"count", "21", "got '21'"},
        {"count", "none", "got 'none'"},
        {"count", "1 ", "got '1 '"},
        {"count", "--1", "got '--1'"},
        {"count", "", "got ''"},
        {"count", "4294967297", "got '4294967297'"},
        {"limit", "0", "t: limit: expected a whole number of at least 1 or none, got '0'"},
        {"limit", "-1", "got '-1'"},
        {"real", "-1.0001", "t: real: expected a finite number from -1 to 1000000000 or none"},
        {"real", "1e-", "got '1e-'"},
        {"real", "+1", "got '+1'"},
        {"real", "1,5", "got '1,5'"},
        {"real", "infinity", "got 'infinity'"},
        {"mode", "c", "t: mode: expected a, b or cc, got 'c'; nearest is 'cc'"},
        {"mode", "a|b", "got 'a|b'"},
        {"share", "1", "t: share: expected a whole number from 2 to 99 or a share a/b of the"},
        {"share", "1/2/3", "got '1/2/3'"},
        {"share", "/2", "got '/2'"},
        {"share", "-1/2", "got '-1/2'"},
        {"list", "0/0", "ascending whole numbers from 0 to 9 joined with '/', at most 64 of them"},
        {"list", "1/10", "got '1/10'"},
        {"list", "1/", "got '1/'"},
        {"list", "none/1", "got 'none/1'"},
    };
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct values before, after;
        memset(&before, 0x55, sizeof before);
        after = before;
        const struct ra_param *param = ra_params_find(table, rows[i].name);
        ra_assert_fails(ra_param_set(param, rows[i].text, &after, "t:", &err), RA_EUSAGE,
                        rows[i].message);
        assert_memory_equal(&before, &after, sizeof before);
    }
    assert_int_equal(ra_param_set(&table[0], "x", &(struct values){0}, "", NULL), RA_EUSAGE);
}

/* Reals come back bit for bit, and no shorter spelling of 15 or 16 digits would have done. */
static void test_reals(void **state)
{
    (void)state;
    uint64_t bits = 1;
    struct ra_param any = {"x", RA_PARAM_REAL, 0, -DBL_MAX, DBL_MAX, "0", NULL, "", 0};
    struct ra_error err;
    for (int i = 0; i < 20000; i++) {
        double value, back;
        char text[64];
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        ra_param_format(&any, &value, text, sizeof text);
        assert_null(strchr(text, '+'));
        ra_assert_ok(ra_param_set(&any, text, &back, "t:", &err));
        assert_memory_equal(&value, &back, sizeof value);
    }
}

static void test_fraction(void **state)
{
    (void)state;
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){77, 0}, 5), 77);
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){1, 8}, 1536), 192);
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){1, 8}, 1535), 191);
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){1, 8}, 7), 1);
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){3, 2}, 9), 13);
    assert_int_equal(ra_fraction_resolve((struct ra_fraction){INT32_MAX, 1}, INT32_MAX), INT32_MAX);
}

/* A short buffer is cut, never overrun, and the wanted length is told. */
static void test_short_buffer(void **state)
{
    (void)state;
    struct values values = {.list = {3, {100, 200, 300}}};
    char text[6] = "xxxxx";
    assert_int_equal(ra_param_format(&table[5], &values, text, 5), 11);
    assert_string_equal(text, "100/");
    assert_int_equal(text[5], 0);
    assert_int_equal(ra_param_format(&table[5], &values, NULL, 0), 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_reals),
        cmocka_unit_test(test_fraction), cmocka_unit_test(test_short_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
