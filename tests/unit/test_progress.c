/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line: only on a terminal, only after a second, not too often, and wiped. Compiled
 * in: it is no part of the library. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cli/progress.c"
#include "tests/support/ra_test.h"

static int saved;
static FILE *sink;

/* Let stderr be a file; what was written is read back with `written`. */
static int redirect(void **state)
{
    (void)state;
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    sink = tmpfile();
    return sink && dup2(fileno(sink), STDERR_FILENO) == STDERR_FILENO ? 0 : -1;
}

static int restore(void **state)
{
    (void)state;
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    fclose(sink);
    return 0;
}

static const char *written(void)
{
    static char text[1024];
    fflush(stderr);
    ssize_t n = pread(fileno(sink), text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return text;
}

/* As if the work had begun that long ago. */
static void age(struct ra_progress *progress, uint64_t ns)
{
    progress->start_ns -= ns;
    if (progress->shown_ns)
        progress->shown_ns -= ns;
}

static void nothing_in_a_pipe_or_file(void **state)
{
    struct ra_progress progress;
    (void)state;
    ra_progress_init(&progress, "steps", false);
    ra_progress_show(&progress, "deciding", 1, 10);
    age(&progress, 5000000000u);
    ra_progress_show(&progress, "deciding", 5, 10);
    ra_progress_fini(&progress);
    assert_string_equal(written(), "");
}

static void a_terminal_switches_it_on_and_quiet_off(void **state)
{
    struct ra_progress progress;
    (void)state;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0)
        skip();
    int side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(side >= 0 && dup2(side, STDERR_FILENO) == STDERR_FILENO);
    ra_progress_init(&progress, "steps", false);
    assert_true(progress.is_on);
    ra_progress_init(&progress, "steps", true);
    assert_false(progress.is_on);
    dup2(fileno(sink), STDERR_FILENO);
    close(side);
    close(terminal);
}

static void it_waits_a_second_and_shows_rate_and_time_left(void **state)
{
    struct ra_progress progress = {.unit = "steps", .is_on = true};
    (void)state;
    ra_progress_show(&progress, "deciding", 0, 400);
    age(&progress, 900000000u);
    ra_progress_show(&progress, "deciding", 50, 400);
    assert_string_equal(written(), "");
    age(&progress, 1100000000u);
    ra_progress_show(&progress, "deciding", 100, 400);
    assert_non_null(strstr(written(), "deciding  25 %  100/400 steps, 50/s, 6 s left"));
    size_t n = strlen(written());
    ra_progress_show(&progress, "deciding", 101, 400);
    assert_int_equal(strlen(written()), n);
    age(&progress, 200000000u);
    ra_progress_show(&progress, "deciding", 110, 400);
    assert_true(strlen(written()) > n);
    ra_progress_fini(&progress);
    n = strlen(written());
    assert_string_equal(written() + n - 4, "\r\033[K");
    ra_progress_show(&progress, "deciding", 200, 400);
    assert_int_equal(strlen(written()), n);
}

/* The time of one piece of work says nothing about the next. */
static void another_piece_starts_the_clock_anew(void **state)
{
    struct ra_progress progress = {.unit = "steps", .is_on = true};
    (void)state;
    ra_progress_show(&progress, "deciding", 0, 10);
    age(&progress, 3000000000u);
    ra_progress_show(&progress, "deciding", 9, 10);
    size_t n = strlen(written());
    ra_progress_show(&progress, "timing", 1, 10);
    assert_int_equal(strlen(written()), n + 4); /* wiped, not shown */
    ra_progress_show(&progress, "timing", 0, 0);
    age(&progress, 2000000000u);
    ra_progress_show(&progress, "timing", 2, 10);
    assert_non_null(strstr(written(), "timing  20 %"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, redirect, restore)
        TEST(nothing_in_a_pipe_or_file),
        TEST(a_terminal_switches_it_on_and_quiet_off),
        TEST(it_waits_a_second_and_shows_rate_and_time_left),
        TEST(another_piece_starts_the_clock_anew),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
