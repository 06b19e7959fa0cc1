/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a group of tests one after the other; a test is left by a jump. */
#include "tests/cross/cmocka.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

enum outcome { PASSED, FAILED, SKIPPED, N_OUTCOMES };

static jmp_buf leave;

void cross_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    printf("%s:%d: error: ", file, line);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    longjmp(leave, FAILED);
}

void cross_skip(void)
{
    longjmp(leave, SKIPPED);
}

void cross_no_fixture(const void *setup, const void *teardown)
{
    if (setup || teardown)
        abort();
}

static enum outcome run_one(const struct CMUnitTest *test)
{
    void *state = NULL;
    switch (setjmp(leave)) {
    case 0:
        test->test(&state);
        return PASSED;
    case SKIPPED:
        return SKIPPED;
    default:
        return FAILED;
    }
}

int cross_run(const struct CMUnitTest *tests, size_t n)
{
    static const char *const label[] = {"       OK", "  FAILED ", "  SKIPPED"};
    int count[N_OUTCOMES] = {0};
    for (size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout); /* a crash must not take what was said with it */
        enum outcome outcome = run_one(&tests[i]);
        count[outcome]++;
        printf("[%s ] %s\n", label[outcome], tests[i].name);
    }
    printf("[  PASSED  ] %d test(s).\n", count[PASSED]);
    printf("[  SKIPPED ] %d test(s).\n", count[SKIPPED]);
    printf("[  FAILED  ] %d test(s).\n", count[FAILED]);
    return count[FAILED];
}
