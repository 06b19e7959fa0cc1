/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of text: cuts at the ends, bounded writing, and which name is nearest. */
#include <stdio.h>
#include <string.h>

#include "sim/base/text.h"
#include "tests/support/ra_test.h"

static void test_cut(void **state)
{
    (void)state;
    struct ra_span rest = ra_span_of("a,,b"), head;
    assert_true(ra_span_cut(&rest, ',', &head) && ra_span_is(head, "a"));
    assert_true(ra_span_cut(&rest, ',', &head) && ra_span_is(head, ""));
    assert_false(ra_span_cut(&rest, ',', &head));
    assert_true(ra_span_is(head, "b") && rest.n == 0);
    assert_false(ra_span_cut(&rest, ',', &head));
    assert_true(head.n == 0);
    rest = ra_span_of("a,");
    assert_true(ra_span_cut(&rest, ',', &head) && rest.n == 0);
    assert_false(ra_span_is(ra_span_of("ab"), "a"));
    assert_false(ra_span_is(ra_span_of("a"), "ab"));
}

static void test_count(void **state)
{
    (void)state;
    int32_t value = 5;
    assert_true(ra_span_count(ra_span_of("2147483647"), &value) && value == INT32_MAX);
    assert_true(ra_span_count(ra_span_of("007"), &value) && value == 7);
    assert_false(ra_span_count(ra_span_of("2147483648"), &value));
    assert_false(ra_span_count(ra_span_of("18446744073709551617"), &value));
    assert_false(ra_span_count(ra_span_of(""), &value));
    assert_false(ra_span_count(ra_span_of("-1"), &value));
    assert_false(ra_span_count(ra_span_of("1a"), &value));
}

static void test_write(void **state)
{
    (void)state;
    char text[8] = "zzzzzzz";
    struct ra_writer writer = {text, 7, 0};
    ra_write(&writer, "%s", "abc");
    ra_write(&writer, "%d", 12345);
    ra_write(&writer, "%s", "more");
    assert_string_equal(text, "abc123");
    assert_int_equal(writer.used, 12);
    assert_int_equal(text[7], 0);
}

static int distance(const char *a, const char *b)
{
    int there = ra_text_distance(ra_span_of(a), ra_span_of(b));
    assert_int_equal(there, ra_text_distance(ra_span_of(b), ra_span_of(a)));
    return there;
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(distance("", ""), 0);
    assert_int_equal(distance("", "abc"), 3);
    assert_int_equal(distance("kitten", "sitting"), 3);
    assert_int_equal(distance("stride", "stried"), 1); /* neighbours swapped */
    assert_int_equal(distance("stride", "strid"), 1);
    assert_int_equal(distance("stride", "STRIDE"), 6);
    char a[200], b[200];
    memset(a, 'a', 199);
    memset(b, 'b', 199);
    a[199] = b[199] = '\0';
    assert_int_equal(distance(a, b), 64);
}

static void test_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double other;
    } rows[] = {{"replay", 0}, {"report", 1}, {"record", 2}};
    size_t size = sizeof rows[0];
    assert_string_equal(ra_text_nearest(ra_span_of("reprot"), rows, 3, size), "report");
    assert_string_equal(ra_text_nearest(ra_span_of("rep"), rows, 3, size), "replay"); /* first */
    assert_string_equal(ra_text_nearest(ra_span_of("cord"), rows, 3, size), "record");
    assert_null(ra_text_nearest(ra_span_of("cord"), rows, 0, size));
    /* What has nothing to do with a name is not explained by it. */
    static const char *const far[] = {"", "x", "banana", "r", "delpoy", "tr", "replace-me"};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++)
        assert_null(ra_text_nearest(ra_span_of(far[i]), rows, 3, size));
}

static void test_hint(void **state)
{
    (void)state;
    static const char *const rows[] = {"cpu", "null"};
    char hint[RA_HINT_MAX];
    assert_string_equal(ra_text_hint(ra_span_of("nul"), rows, 2, sizeof *rows, hint),
                        "nearest is 'null'");
    assert_string_equal(ra_text_hint(ra_span_of("vulkan"), rows, 2, sizeof *rows, hint),
                        "known are cpu, null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),     cmocka_unit_test(test_count),
        cmocka_unit_test(test_write),   cmocka_unit_test(test_distance),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_hint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
