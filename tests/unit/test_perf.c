/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of the kernel: against pages that are touched for the first time, on this thread and on
 * others, and refusals against what refuses. Would catch threads that are not counted, scaling the
 * wrong way, and a refused event that counts 0.
 */
#include "tests/support/ra_test.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "profiler/perf.h"

enum { PAGES = 256, SLACK = 128 }; /* a sanitizer has pages of its own */

/* Pages that nobody has touched; small ones, so that each is a fault. */
static char *fresh_pages(size_t *size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *size = PAGES * page;
    char *pages = mmap(NULL, *size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(pages != MAP_FAILED);
    madvise(pages, *size, MADV_NOHUGEPAGE);
    return pages;
}

static void *touch_pages(void *context)
{
    size_t size = 0;
    volatile char *pages = fresh_pages(&size);
    (void)context;
    for (size_t at = 0; at < size; at += size / PAGES)
        pages[at] = 1;
    munmap((void *)pages, size);
    return NULL;
}

static bool open_faults(struct ra_perf *perf)
{
    ra_perf_open(perf);
    return perf->fds[RA_PERF_PAGE_FAULTS] >= 0;
}

static double faults_since(const struct ra_perf *perf, const struct ra_perf_reading *begin)
{
    struct ra_perf_reading end[RA_PERF_EVENTS];
    struct ra_error err;
    ra_assert_ok(ra_perf_read(perf, end, &err));
    return ra_perf_between(&begin[RA_PERF_PAGE_FAULTS], &end[RA_PERF_PAGE_FAULTS]);
}

static void each_fresh_page_is_a_fault(void **state)
{
    (void)state;
    struct ra_perf perf;
    struct ra_perf_reading begin[RA_PERF_EVENTS];
    struct ra_error err;
    if (!open_faults(&perf)) {
        ra_perf_close(&perf);
        skip();
    }
    touch_pages(NULL); /* what reading and touching touch themselves */
    ra_assert_ok(ra_perf_read(&perf, begin, &err));
    touch_pages(NULL);
    double n = faults_since(&perf, begin);
    assert_true(n >= PAGES && n <= PAGES + SLACK);
    ra_perf_close(&perf);
}

struct helper {
    pthread_barrier_t go, done, leave;
};

static void *help(void *context)
{
    struct helper *helper = context;
    pthread_barrier_wait(&helper->go);
    touch_pages(NULL);
    pthread_barrier_wait(&helper->done);
    pthread_barrier_wait(&helper->leave);
    return NULL;
}

static pthread_t start(struct helper *helper)
{
    pthread_t thread;
    pthread_barrier_init(&helper->go, NULL, 2);
    pthread_barrier_init(&helper->done, NULL, 2);
    pthread_barrier_init(&helper->leave, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, help, helper), 0);
    return thread;
}

static void let_work(struct helper *helper)
{
    pthread_barrier_wait(&helper->go);
    pthread_barrier_wait(&helper->done);
}

static void let_end(struct helper *helper, pthread_t thread)
{
    pthread_barrier_wait(&helper->leave);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&helper->go);
    pthread_barrier_destroy(&helper->done);
    pthread_barrier_destroy(&helper->leave);
}

static void later_threads_are_counted_alive_and_ended_and_earlier_ones_never(void **state)
{
    (void)state;
    struct ra_perf perf;
    struct ra_perf_reading begin[RA_PERF_EVENTS];
    struct ra_error err;
    struct helper early, late;
    pthread_t before = start(&early);
    bool counts = open_faults(&perf);
    pthread_t after = start(&late);
    ra_assert_ok(ra_perf_read(&perf, begin, &err));
    let_work(&early);
    double of_early = faults_since(&perf, begin);
    let_work(&late);
    double of_late = faults_since(&perf, begin) - of_early;
    let_end(&early, before);
    let_end(&late, after);
    double ended = faults_since(&perf, begin) - of_early;
    ra_perf_close(&perf);
    if (!counts)
        skip();
    assert_true(of_early < PAGES);
    assert_true(of_late >= PAGES && of_late <= PAGES + SLACK);
    assert_true(ended >= of_late && ended <= PAGES + 2 * SLACK);
}

static void an_event_is_open_or_has_its_reason(void **state)
{
    (void)state;
    struct ra_perf perf;
    int n_open = ra_perf_open(&perf), n = 0;
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        assert_int_equal(perf.fds[i] >= 0, perf.refusals[i].reason[0] == '\0');
        assert_int_equal(perf.fds[i] >= 0, perf.refusals[i].fix[0] == '\0');
        n += perf.fds[i] >= 0;
    }
    assert_int_equal(n, n_open);
    ra_perf_close(&perf);
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        assert_int_equal(perf.fds[i], -1);
}

static void where_no_file_can_be_opened_each_event_says_so(void **state)
{
    (void)state;
    struct ra_perf perf;
    struct ra_perf_reading readings[RA_PERF_EVENTS];
    struct ra_error err;
    struct rlimit limit, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int n_open = ra_perf_open(&perf);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(n_open, 0);
    /* what this user, machine and kernel refuse anyway is refused as ever, the rest for the limit
     */
    assert_true(perf.refusals[RA_PERF_PAGE_FAULTS].reason[0]);
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        assert_true(strstr(perf.refusals[i].reason, "(E") && perf.refusals[i].fix[0]);
    memset(readings, 0xff, sizeof readings);
    ra_assert_ok(ra_perf_read(&perf, readings, &err));
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        assert_true(readings[i].value == 0 && readings[i].enabled_ns == 0);
    ra_perf_close(&perf);
}

static void reasons_tell_what_refuses_and_what_mends_it(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *reason, *fix;
    } told[] = {
        {ENOENT, "not supported by this processor or virtual machine (ENOENT)", "virtual PMU"},
        {EOPNOTSUPP, "not supported by this processor or virtual machine (EOPNOTSUPP)",
         "virtual PMU"},
        {ENOSYS, "this kernel counts nothing (ENOSYS)", "CONFIG_PERF_EVENTS"},
        {EMFILE, "no file can be opened any more (EMFILE)", "ulimit -n"},
        {EBUSY, "another program holds the counters (EBUSY)", "run again"},
        {EIO, "(errno 5)", "perf_event_open(2)"},
    };
    struct ra_perf_refusal refusal;
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        ra_perf_explain(RA_PERF_CYCLES, told[i].code, &refusal);
        assert_non_null(strstr(refusal.reason, told[i].reason));
        assert_non_null(strstr(refusal.fix, told[i].fix));
    }
}

static void a_missing_right_names_the_setting_and_its_value(void **state)
{
    (void)state;
    struct ra_perf_refusal refusal;
    int value = 0;
    FILE *file = fopen("/proc/sys/kernel/perf_event_paranoid", "r");
    if (!file)
        skip();
    assert_int_equal(fscanf(file, "%d", &value), 1);
    fclose(file);
    /* the kernel's own switches need 1, what happens in user mode 2 */
    for (int needed = 1; needed <= 2; needed++) {
        char is[64], sysctl[64];
        ra_perf_explain(needed == 1 ? RA_PERF_CONTEXT_SWITCHES : RA_PERF_PAGE_FAULTS, EACCES,
                        &refusal);
        snprintf(is, sizeof is, "kernel.perf_event_paranoid is %d", value);
        snprintf(sysctl, sizeof sysctl, "sysctl kernel.perf_event_paranoid=%d", needed);
        assert_non_null(strstr(refusal.reason, "EACCES"));
        assert_non_null(strstr(refusal.reason, is));
        assert_int_equal(strstr(refusal.fix, sysctl) != NULL, value > needed);
        assert_int_equal(strstr(refusal.fix, "container") != NULL, value <= needed);
    }
}

static void a_shared_counter_is_scaled_and_one_never_had_is_unknown(void **state)
{
    (void)state;
    const struct ra_perf_reading begin = {1000, 500, 400};
    const struct {
        struct ra_perf_reading end;
        double value;
    } cases[] = {
        {{1100, 700, 600}, 100}, /* it had a counter all the time */
        {{1100, 700, 450}, 400}, /* a quarter of it */
        {{1000, 700, 450}, 0},   /* nothing happened */
        {{1000, 500, 400}, 0},   /* no time went by */
        {{1000, 700, 400}, NAN}, /* none of it */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double value = ra_perf_between(&begin, &cases[i].end);
        assert_true(isnan(cases[i].value) ? isnan(value) : value == cases[i].value);
    }
}

static void a_counter_that_stopped_is_an_error(void **state)
{
    (void)state;
    struct ra_perf perf;
    struct ra_perf_reading readings[RA_PERF_EVENTS];
    struct ra_error err;
    ra_perf_open(&perf);
    ra_perf_close(&perf);
    perf.fds[RA_PERF_CYCLES] = open("/dev/null", O_RDONLY);
    ra_assert_fails(ra_perf_read(&perf, readings, &err), RA_EIO,
                    "cpu_cycles: expected 24 bytes of its counter, got 0: it has stopped");
    ra_perf_close(&perf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fresh_page_is_a_fault),
        cmocka_unit_test(later_threads_are_counted_alive_and_ended_and_earlier_ones_never),
        cmocka_unit_test(an_event_is_open_or_has_its_reason),
        cmocka_unit_test(where_no_file_can_be_opened_each_event_says_so),
        cmocka_unit_test(reasons_tell_what_refuses_and_what_mends_it),
        cmocka_unit_test(a_missing_right_names_the_setting_and_its_value),
        cmocka_unit_test(a_shared_counter_is_scaled_and_one_never_had_is_unknown),
        cmocka_unit_test(a_counter_that_stopped_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
