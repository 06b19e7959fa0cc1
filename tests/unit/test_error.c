/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: cut but terminated, clean of control bytes, with context in front; err may be NULL. */
#include "tests/support/ra_test.h"

#include <string.h>

#include "sim/base/error.h"

static void a_failure_carries_code_and_text(void **state)
{
    (void)state;
    struct ra_error err;
    assert_int_equal(ra_fail(&err, RA_EFORMAT, "%s: expected %d", "a", 3), RA_EFORMAT);
    assert_int_equal(err.code, RA_EFORMAT);
    assert_string_equal(err.msg, "a: expected 3");
    assert_int_equal(ra_fail_context(&err, err.code, "file %s", "x"), RA_EFORMAT);
    assert_string_equal(err.msg, "file x: a: expected 3");
    assert_int_equal(ra_fail(NULL, RA_EIO, "nobody listens"), RA_EIO);
    assert_int_equal(ra_fail_context(NULL, RA_EIO, "nobody"), RA_EIO);
}

static void a_hostile_name_cannot_drive_a_terminal(void **state)
{
    (void)state;
    struct ra_error err;
    (void)ra_fail(&err, RA_EFORMAT, "tensor '%s'", "\x1b[2Ja\nb\x7f\xc3\xa9");
    assert_string_equal(err.msg, "tensor '?[2Ja?b?\xc3\xa9'");
}

static void a_long_message_is_cut_visibly(void **state)
{
    (void)state;
    struct ra_error err;
    char longest[3000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    (void)ra_fail(&err, RA_EFORMAT, "%s", longest);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_string_equal(err.msg + sizeof err.msg - 4, "...");
    (void)ra_fail_context(&err, RA_EFORMAT, "place");
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_memory_equal(err.msg, "place: xxx", 10);
    assert_string_equal(err.msg + sizeof err.msg - 4, "...");
}

static void every_code_has_a_name(void **state)
{
    (void)state;
    for (int code = RA_EUSAGE; code <= RA_EPERM; code++)
        assert_memory_equal(ra_status_name((enum ra_status)code), "RA_E", 4);
    assert_string_equal(ra_status_name((enum ra_status)99), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_carries_code_and_text),
        cmocka_unit_test(a_hostile_name_cannot_drive_a_terminal),
        cmocka_unit_test(a_long_message_is_cut_visibly),
        cmocka_unit_test(every_code_has_a_name),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
