/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every index runs exactly once, for any number of threads and any number of rounds. Would catch a
 * thread that takes an index of the loop before or after its own, or runs it with the other's task.
 */
#include "tests/support/ra_test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/pool.h"

enum { MOST = 1000 };

struct counts {
    int times[MOST];
    int worker[MOST];
};

static void count(void *context, size_t index, int worker)
{
    struct counts *counts = context;
    counts->times[index]++;
    counts->worker[index] = worker;
}

static void each_index_runs_once(void **state)
{
    (void)state;
    struct ra_error err;
    for (int threads = 1; threads <= 5; threads++) {
        struct ra_pool *pool;
        assert_int_equal(ra_pool_open(&pool, threads, &err), RA_OK);
        assert_int_equal(ra_pool_threads(pool), threads);
        for (int round = 0; round < 200; round++) {
            struct counts counts;
            size_t n = (size_t)(round * 7 % MOST);
            memset(&counts, 0, sizeof counts);
            ra_pool_run(pool, n, count, &counts);
            for (size_t i = 0; i < MOST; i++) {
                assert_int_equal(counts.times[i], i < n);
                assert_in_range(counts.worker[i], 0, threads - 1);
            }
        }
        ra_pool_close(pool);
    }
}

struct marks {
    int loop, times[8];
};

static void mark(void *context, size_t index, int worker)
{
    (void)worker;
    struct marks *marks = context;
    marks->times[index] += marks->loop;
}

/* Loops shorter than it takes to wake; now and then a pause that all threads sleep through. */
static void loops_in_quick_succession(void **state)
{
    (void)state;
    enum { LOOPS = 20000 };
    struct ra_error err;
    struct ra_pool *pool;
    struct marks *marks = calloc(LOOPS, sizeof *marks);
    assert_non_null(marks);
    assert_int_equal(ra_pool_open(&pool, 4, &err), RA_OK);
    for (int loop = 0; loop < LOOPS; loop++) {
        marks[loop].loop = loop;
        ra_pool_run(pool, 2 + (size_t)loop % 7, mark, &marks[loop]);
        if (loop % 1000 == 0)
            usleep(2000);
    }
    ra_pool_close(pool);
    for (int loop = 0; loop < LOOPS; loop++)
        for (int i = 0; i < 8; i++)
            assert_int_equal(marks[loop].times[i], i < 2 + loop % 7 ? loop : 0);
    free(marks);
}

static void without_a_pool_the_caller_works(void **state)
{
    (void)state;
    struct counts counts;
    memset(&counts, 0, sizeof counts);
    ra_pool_run(NULL, 10, count, &counts);
    for (size_t i = 0; i < MOST; i++)
        assert_int_equal(counts.times[i], i < 10);
    assert_int_equal(ra_pool_threads(NULL), 1);
    ra_pool_close(NULL);
}

static void zero_threads_means_one_per_processor(void **state)
{
    (void)state;
    struct ra_pool *pool;
    struct ra_error err;
    assert_int_equal(ra_pool_open(&pool, 0, &err), RA_OK);
    assert_true(ra_pool_threads(pool) >= 1);
    ra_pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_index_runs_once),
        cmocka_unit_test(loops_in_quick_succession),
        cmocka_unit_test(without_a_pool_the_caller_works),
        cmocka_unit_test(zero_threads_means_one_per_processor),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
