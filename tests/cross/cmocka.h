/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of cmocka's interface as the backend's tests use, for a cross build whose compiler has no
 * libcmocka: found under cmocka's name in its place. No set-up, no mocks, and a signal ends the
 * program, which counts as a failure.
 */
#ifndef RA_TESTS_CROSS_CMOCKA_H
#define RA_TESTS_CROSS_CMOCKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};

#define cmocka_unit_test(function)                                                                 \
    {                                                                                              \
#function, function                                                                        \
    }

/* Returns how many failed; the closing lines are cmocka's. */
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    (cross_no_fixture(setup, teardown), cross_run(tests, sizeof(tests) / sizeof *(tests)))

int cross_run(const struct CMUnitTest *tests, size_t n);
void cross_no_fixture(const void *setup, const void *teardown); /* aborts unless both are NULL */

/* Leave the running test. */
_Noreturn void cross_skip(void);
_Noreturn void cross_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define skip() cross_skip()
#define fail_msg(...) cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define print_message(...) printf(__VA_ARGS__)

static inline void cross_check(bool is_true, const char *what, const char *file, int line)
{
    if (!is_true)
        cross_fail(file, line, "%s", what);
}

static inline void cross_range(uintmax_t x, uintmax_t low, uintmax_t high, const char *file,
                               int line)
{
    if (x < low || x > high)
        cross_fail(file, line, "%#jx is not within %#jx-%#jx", x, low, high);
}

#define assert_true(x) cross_check((x), #x, __FILE__, __LINE__)
#define assert_null(x) cross_check((x) == NULL, #x " is NULL", __FILE__, __LINE__)
#define assert_non_null(x) cross_check((x) != NULL, #x " is not NULL", __FILE__, __LINE__)
#define assert_ptr_equal(a, b) cross_check((a) == (b), #a " is " #b, __FILE__, __LINE__)
#define assert_string_equal(a, b)                                                                  \
    cross_check(strcmp(a, b) == 0, #a " equals " #b, __FILE__, __LINE__)
#define assert_memory_equal(a, b, n)                                                               \
    cross_check(memcmp(a, b, n) == 0, #a " equals " #b, __FILE__, __LINE__)
#define assert_in_range(x, low, high)                                                              \
    cross_range((uintmax_t)(x), (uintmax_t)(low), (uintmax_t)(high), __FILE__, __LINE__)

/* The expected value may come from a call, so each argument is evaluated once. */
#define assert_int_equal(a, b)                                                                     \
    do {                                                                                           \
        uintmax_t cross_expected_ = (uintmax_t)(b);                                                \
        cross_range((uintmax_t)(a), cross_expected_, cross_expected_, __FILE__, __LINE__);         \
    } while (0)

#endif
