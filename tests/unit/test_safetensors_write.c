/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing fails as a whole or not at all: nothing stays behind under any name, a file that was
 * there before is untouched, and a tensor with a byte missing or written twice is refused.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"
#include "traces/ranges.h"
#include "traces/safetensors.h"

static const uint64_t shape[] = {4, 3};
static const uint8_t data[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static struct ra_st_writer *begun(const char *path, size_t *index)
{
    struct ra_error err;
    struct ra_st_writer *writer;
    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_ok(ra_st_writer_tensor(writer, "abc", RA_ST_U8, 2, shape, index, &err));
    ra_assert_ok(ra_st_writer_begin(writer, &err));
    return writer;
}

static void test_close_without_commit(void **unused)
{
    (void)unused;
    struct ra_error err;
    size_t index, n;
    const char *path = tmp_path(tmp_dir, "target");
    tmp_write(path, "before", 6);
    struct ra_st_writer *writer = begun(path, &index);
    ra_assert_ok(ra_st_writer_put(writer, index, 0, data, 12, &err));
    assert_int_equal(tmp_dir_count(tmp_dir), 2);
    ra_st_writer_close(writer);
    assert_int_equal(tmp_dir_count(tmp_dir), 1);
    uint8_t *bytes = tmp_read(path, &n);
    assert_int_equal(n, 6);
    assert_memory_equal(bytes, "before", 6);
    free(bytes);
    ra_st_writer_close(NULL);
    assert_int_equal(unlink(path), 0);
}

static void test_commit_replaces(void **unused)
{
    (void)unused;
    struct ra_error err;
    size_t index;
    const char *path = tmp_path(tmp_dir, "target");
    tmp_write(path, "before", 6);
    struct ra_st_writer *writer = begun(path, &index);
    ra_assert_ok(ra_st_writer_put(writer, index, 0, data, 12, &err));
    ra_assert_ok(ra_st_writer_commit(writer, &err));
    ra_st_writer_close(writer);
    assert_int_equal(tmp_dir_count(tmp_dir), 1);
    struct ra_st_file *file;
    uint8_t back[12];
    ra_assert_ok(ra_st_open(&file, path, &err));
    ra_assert_ok(ra_st_read(file, ra_st_at(file, 0), 0, back, 12, &err));
    assert_memory_equal(back, data, 12);
    ra_st_close(file);
    assert_int_equal(unlink(path), 0);
}

/* Every order of four slices, with one missing or one doubled. */
static void test_missing_and_twice(void **unused)
{
    (void)unused;
    for (int round = 0; round < 4 * 4 * 4 * 4; round++) {
        struct ra_error err;
        size_t index;
        struct ra_st_writer *writer = begun(tmp_path(tmp_dir, "target"), &index);
        bool seen[4] = {false, false, false, false}, twice = false;
        for (int i = 0, code = round; i < 4; i++, code /= 4) {
            size_t slice = (size_t)code % 4;
            if (seen[slice])
                ra_assert_fails(ra_st_writer_put(writer, index, 3 * slice, data, 3, &err),
                                RA_ERANGE, "target: abc: bytes");
            else
                ra_assert_ok(ra_st_writer_put(writer, index, 3 * slice, data, 3, &err));
            twice = twice || seen[slice];
            seen[slice] = true;
        }
        if (twice)
            ra_assert_fails(ra_st_writer_commit(writer, &err), RA_EUSAGE,
                            "of 12 was never written");
        else
            ra_assert_ok(ra_st_writer_commit(writer, &err));
        ra_st_writer_close(writer);
    }
    assert_int_equal(tmp_dir_count(tmp_dir), 1);
    assert_int_equal(unlink(tmp_path(tmp_dir, "target")), 0);
}

/* Against a plain array of flags, for thousands of random ranges. */
static void test_ranges(void **unused)
{
    (void)unused;
    enum { SIZE = 64 };
    srandom(5);
    for (int round = 0; round < 200; round++) {
        struct ra_ranges set = {0};
        bool flags[SIZE] = {false};
        for (int i = 0; i < 60; i++) {
            uint64_t begin = (uint64_t)random() % SIZE;
            uint64_t end = begin + 1 + (uint64_t)random() % (begin + 6 < SIZE ? 6 : SIZE - begin);
            bool taken = false;
            for (uint64_t b = begin; b < end; b++)
                taken = taken || flags[b];
            assert_int_equal(ra_ranges_add(&set, begin, end), taken ? RA_ERANGE : RA_OK);
            for (uint64_t b = begin; !taken && b < end; b++)
                flags[b] = true;
            uint64_t gap = 0;
            size_t runs = flags[0] ? 1 : 0;
            while (gap < SIZE && flags[gap])
                gap++;
            for (int b = 1; b < SIZE; b++)
                runs += flags[b] && !flags[b - 1] ? 1 : 0;
            assert_int_equal(ra_ranges_first_gap(&set), gap);
            assert_int_equal(set.n, runs);
        }
        ra_ranges_fini(&set);
    }
}

static void test_declarations(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_st_writer *writer;
    size_t index;
    const char *path = tmp_path(tmp_dir, "target");
    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_fails(ra_st_writer_tensor(writer, "", RA_ST_U8, 2, shape, &index, &err), RA_EUSAGE,
                    "'' cannot name a tensor");
    ra_assert_fails(ra_st_writer_tensor(writer, "__metadata__", RA_ST_U8, 2, shape, &index, &err),
                    RA_EUSAGE, "'__metadata__' cannot name a tensor");
    ra_assert_fails(ra_st_writer_tensor(writer, "r", RA_ST_U8, 9, shape, &index, &err), RA_ERANGE,
                    "rank 9, at most 8");
    ra_assert_fails(ra_st_writer_metadata(writer, "content.sha256", "abc", &err), RA_EUSAGE,
                    "expected 64 zeros");
    char *big = calloc(1, RA_ST_MAX_METADATA + 2);
    assert_non_null(big);
    memset(big, 'x', RA_ST_MAX_METADATA + 1);
    ra_assert_fails(ra_st_writer_metadata(writer, "big", big, &err), RA_ERANGE, "at most 1048576");
    free(big);
    ra_assert_fails(ra_st_writer_metadata(writer, "bad", "\xff", &err), RA_EUSAGE, "UTF-8");
    ra_st_writer_close(writer);

    const uint64_t huge[] = {(uint64_t)1 << 40, (uint64_t)1 << 40};
    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_fails(ra_st_writer_tensor(writer, "huge", RA_ST_U8, 2, huge, &index, &err), RA_ERANGE,
                    "exceeds 63 bits");
    ra_st_writer_close(writer);

    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_ok(ra_st_writer_tensor(writer, "same", RA_ST_U8, 2, shape, &index, &err));
    ra_assert_ok(ra_st_writer_tensor(writer, "other", RA_ST_U8, 2, shape, &index, &err));
    ra_assert_ok(ra_st_writer_tensor(writer, "same", RA_ST_F16, 1, shape, &index, &err));
    ra_assert_fails(ra_st_writer_begin(writer, &err), RA_EUSAGE, "target: same: declared twice");
    ra_st_writer_close(writer);

    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_ok(ra_st_writer_metadata(writer, "key", "1", &err));
    ra_assert_ok(ra_st_writer_metadata(writer, "key", "2", &err));
    ra_assert_fails(ra_st_writer_begin(writer, &err), RA_EUSAGE, "metadata: key: declared twice");
    ra_st_writer_close(writer);
    assert_int_equal(tmp_dir_count(tmp_dir), 0);
}

static void test_targets(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_st_writer *writer;
    ra_assert_fails(ra_st_writer_open(&writer, "/dev/null", &err), RA_EIO,
                    "/dev/null: exists and is no regular file");
    assert_null(writer);
    ra_assert_fails(ra_st_writer_open(&writer, tmp_dir, &err), RA_EIO, "no regular file");
    ra_assert_fails(ra_st_writer_open(&writer, "/proc/none/x", &err), RA_EIO, "cannot create");
    ra_assert_fails(ra_st_writer_open(&writer, tmp_path(tmp_dir, "no/x"), &err), RA_EIO,
                    "cannot create: No such file or directory");
}

/* A disk that is too small is found at begin, not at the end of a long recording. */
static void test_full_disk(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_st_writer *writer;
    size_t index;
    const uint64_t large[] = {1 << 20};
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 64 << 10;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    ra_assert_ok(ra_st_writer_open(&writer, tmp_path(tmp_dir, "target"), &err));
    ra_assert_ok(ra_st_writer_tensor(writer, "large", RA_ST_U8, 1, large, &index, &err));
    enum ra_status st = ra_st_writer_begin(writer, &err);
    ra_st_writer_close(writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(st, RA_EIO);
    assert_non_null(strstr(err.msg, "target: cannot"));
    assert_int_equal(tmp_dir_count(tmp_dir), 0);
}

/* Readable by whom the umask lets, as any other file; mkstemp would make it private. */
static void test_mode(void **unused)
{
    (void)unused;
    struct ra_error err;
    size_t index;
    const char *path = tmp_path(tmp_dir, "target");
    mode_t mask = umask(022);
    struct ra_st_writer *writer = begun(path, &index);
    umask(mask);
    ra_assert_ok(ra_st_writer_put(writer, index, 0, data, 12, &err));
    ra_assert_ok(ra_st_writer_commit(writer, &err));
    ra_st_writer_close(writer);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_close_without_commit),
        cmocka_unit_test(test_commit_replaces),
        cmocka_unit_test(test_missing_and_twice),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_declarations),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_mode),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
