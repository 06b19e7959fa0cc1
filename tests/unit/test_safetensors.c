/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container: what is written can be found in the file's bytes by a parser of the test's own,
 * and comes back the same through the reader; broken reads and broken files end in a message.
 * Malformed headers are in test_corpus.c, failures of writing in test_safetensors_write.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"
#include "traces/safetensors.h"

/* --- a pread that behaves as badly as the system may ------------------------------------------ */

static enum { READS_WELL, READS_BYTES, READS_FAIL } reads;
static int n_interrupts;

/* Takes the place of the C library's for this program. */
ssize_t pread(int fd, void *out, size_t n, off_t offset)
{
    if (n_interrupts > 0) {
        n_interrupts--;
        errno = EINTR;
        return -1;
    }
    if (reads == READS_FAIL) {
        errno = EIO;
        return -1;
    }
    return (ssize_t)syscall(SYS_pread64, fd, out, reads == READS_BYTES && n > 3 ? 3 : n, offset);
}

/* --- a small file ------------------------------------------------------------------------------
 */

static uint64_t state;

static uint64_t draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

enum { N_TENSORS = 12 };

struct sample {
    char name[32];
    enum ra_st_dtype dtype;
    int rank;
    uint64_t shape[RA_ST_MAX_RANK];
    size_t bytes;
    uint8_t *data;
};

static void make_samples(struct sample *samples, uint64_t seed)
{
    state = seed;
    for (int i = 0; i < N_TENSORS; i++) {
        struct sample *s = &samples[i];
        snprintf(s->name, sizeof s->name, "t\"%d\\\n\xc3\xa9", i);
        s->dtype = (enum ra_st_dtype)(RA_ST_BOOL + draw() % (RA_ST_U64 - RA_ST_BOOL + 1));
        s->rank = (int)(draw() % 4);
        s->bytes = ra_st_dtype_bytes(s->dtype);
        for (int d = 0; d < s->rank; d++) {
            s->shape[d] = draw() % 9;
            s->bytes *= s->shape[d];
        }
        s->data = malloc(s->bytes + 1);
        assert_non_null(s->data);
        for (size_t b = 0; b < s->bytes; b++)
            s->data[b] = (uint8_t)draw();
    }
}

static void free_samples(struct sample *samples)
{
    for (int i = 0; i < N_TENSORS; i++)
        free(samples[i].data);
}

/* Slices of random lengths, tensors taken in turn, so that slices arrive interleaved. */
static void put_samples(struct ra_st_writer *writer, const struct sample *samples,
                        const size_t *index)
{
    struct ra_error err;
    size_t done[N_TENSORS] = {0};
    for (bool more = true; more;) {
        more = false;
        for (int i = N_TENSORS - 1; i >= 0; i--) {
            size_t left = samples[i].bytes - done[i], n = left ? 1 + draw() % left : 0;
            /* from the end backwards for odd tensors */
            size_t at = i % 2 ? left - n : done[i];
            ra_assert_ok(ra_st_writer_put(writer, index[i], at, samples[i].data + at, n, &err));
            done[i] += n;
            more = more || done[i] < samples[i].bytes;
        }
    }
}

static void write_samples(const char *path, const struct sample *samples)
{
    struct ra_error err;
    struct ra_st_writer *writer;
    size_t index[N_TENSORS];
    char zeros[RA_SHA256_HEX];
    memset(zeros, '0', sizeof zeros - 1);
    zeros[sizeof zeros - 1] = '\0';
    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    ra_assert_ok(ra_st_writer_metadata(writer, "key \"1\"", "value\t\xe2\x82\xac", &err));
    ra_assert_ok(ra_st_writer_metadata(writer, "content.sha256", zeros, &err));
    for (int i = 0; i < N_TENSORS; i++)
        ra_assert_ok(ra_st_writer_tensor(writer, samples[i].name, samples[i].dtype, samples[i].rank,
                                         samples[i].shape, &index[i], &err));
    ra_assert_ok(ra_st_writer_begin(writer, &err));
    put_samples(writer, samples, index);
    ra_assert_ok(ra_st_writer_commit(writer, &err));
    ra_st_writer_close(writer);
}

/* --- tests -------------------------------------------------------------------------------------
 */

/* Offsets by looking for the tensor's own JSON text in the file, values by address. Catches a
 * header and data that agree with each other only through our reader. */
static void test_written_bytes(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sample samples[N_TENSORS];
        make_samples(samples, seed);
        const char *path = tmp_path(tmp_dir, "written");
        write_samples(path, samples);
        size_t n;
        uint8_t *file = tmp_read(path, &n);
        uint64_t header;
        memcpy(&header, file, 8);
        assert_true(header + 8 <= n && (header + 8) % 4096 == 0);
        const char *json = (const char *)file + 8;
        assert_int_equal(json[0], '{');
        uint64_t total = 0;
        for (int i = 0; i < N_TENSORS; i++) {
            char wanted[64], shape[64] = "\"shape\":[";
            snprintf(wanted, sizeof wanted, "\"t\\\"%d\\\\\\n\xc3\xa9\":{\"dtype\":\"%s\",", i,
                     ra_st_dtype_name(samples[i].dtype));
            const char *at = memmem(json, header, wanted, strlen(wanted));
            assert_non_null(at);
            at += strlen(wanted);
            for (int d = 0; d < samples[i].rank; d++)
                sprintf(shape + strlen(shape), "%s%" PRIu64, d ? "," : "", samples[i].shape[d]);
            assert_memory_equal(at, shape, strlen(shape));
            unsigned long begin, end;
            assert_int_equal(sscanf(strchr(at, ']'), "],\"data_offsets\":[%lu,%lu]}", &begin, &end),
                             2);
            assert_int_equal(end - begin, samples[i].bytes);
            assert_int_equal(begin % ra_st_dtype_bytes(samples[i].dtype), 0);
            assert_memory_equal(file + 8 + header + begin, samples[i].data, samples[i].bytes);
            total += samples[i].bytes;
        }
        assert_int_equal(8 + header + total, n);
        free(file);
        free_samples(samples);
    }
}

/* sha256sum of the data section, by another program. */
static void test_checksum(void **unused)
{
    (void)unused;
    struct sample samples[N_TENSORS];
    make_samples(samples, 99);
    const char *path = tmp_path(tmp_dir, "summed");
    write_samples(path, samples);
    struct ra_st_file *file;
    struct ra_error err;
    char command[1400], hex[RA_SHA256_HEX], other[RA_SHA256_HEX] = "";
    ra_assert_ok(ra_st_open(&file, path, &err));
    ra_assert_ok(ra_st_digest(file, hex, &err));
    assert_string_equal(hex, ra_st_metadata(file, "content.sha256"));
    snprintf(command, sizeof command, "tail -c %" PRIu64 " '%s' | sha256sum",
             ra_st_data_bytes(file), path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%64s", other), 1);
    pclose(pipe);
    assert_string_equal(hex, other);
    ra_st_close(file);
    free_samples(samples);
}

static void compare_samples(const char *path, const struct sample *samples)
{
    struct ra_error err;
    struct ra_st_file *file;
    ra_assert_ok(ra_st_open(&file, path, &err));
    assert_int_equal(ra_st_count(file), N_TENSORS);
    assert_string_equal(ra_st_metadata(file, "key \"1\""), "value\t\xe2\x82\xac");
    assert_null(ra_st_metadata(file, "absent"));
    assert_null(ra_st_find(file, "absent"));
    uint64_t end = 0;
    for (size_t i = 0; i < N_TENSORS; i++) {
        assert_int_equal(ra_st_at(file, i)->offset, end);
        end += ra_st_at(file, i)->bytes;
    }
    for (int i = 0; i < N_TENSORS; i++) {
        const struct ra_st_tensor *t = ra_st_find(file, samples[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, samples[i].dtype);
        assert_int_equal(t->rank, samples[i].rank);
        assert_int_equal(t->bytes, samples[i].bytes);
        for (int d = 0; d < t->rank; d++)
            assert_int_equal(t->shape[d], samples[i].shape[d]);
        uint8_t *back = malloc(t->bytes + 1);
        assert_non_null(back);
        ra_assert_ok(ra_st_read(file, t, 0, back, t->bytes, &err));
        assert_memory_equal(back, samples[i].data, t->bytes);
        if (t->bytes > 2) {
            ra_assert_ok(ra_st_read(file, t, 1, back, t->bytes - 2, &err));
            assert_memory_equal(back, samples[i].data + 1, t->bytes - 2);
        }
        free(back);
    }
    ra_st_close(file);
}

/* Catches a reader that takes a short or interrupted read for a whole one. */
static void test_read_back(void **unused)
{
    (void)unused;
    for (uint64_t seed = 30; seed < 40; seed++) {
        struct sample samples[N_TENSORS];
        make_samples(samples, seed);
        const char *path = tmp_path(tmp_dir, "back");
        write_samples(path, samples);
        compare_samples(path, samples);
        reads = READS_BYTES;
        n_interrupts = 5;
        compare_samples(path, samples);
        reads = READS_WELL;
        free_samples(samples);
    }
}

static void write_text(const char *path, const char *json, const void *data, size_t n)
{
    uint8_t bytes[1024] = {0};
    uint64_t length = strlen(json);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, json, length);
    memcpy(bytes + 8 + length, data, n);
    tmp_write(path, bytes, 8 + length + n);
}

static void test_cut_while_open(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_st_file *file;
    const char *path = tmp_path(tmp_dir, "cut");
    uint8_t out[8];
    char hex[RA_SHA256_HEX];
    write_text(path, "{\"abc\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
               "01234567", 8);
    ra_assert_ok(ra_st_open(&file, path, &err));
    size_t n;
    free(tmp_read(path, &n));
    assert_int_equal(truncate(path, (off_t)n - 4), 0);
    ra_assert_ok(ra_st_read(file, ra_st_find(file, "abc"), 0, out, 4, &err));
    ra_assert_fails(ra_st_read(file, ra_st_find(file, "abc"), 0, out, 8, &err), RA_EIO,
                    "cut: abc: the file became shorter while open: expected 8 bytes");
    ra_assert_fails(ra_st_digest(file, hex, &err), RA_EIO, "became shorter");
    reads = READS_FAIL;
    ra_assert_fails(ra_st_read(file, ra_st_find(file, "abc"), 0, out, 4, &err), RA_EIO,
                    "cut: abc: cannot read: Input/output error");
    struct ra_st_file *other;
    ra_assert_fails(ra_st_open(&other, path, &err), RA_EIO, "cut: cannot read");
    assert_null(other);
    reads = READS_WELL;
    ra_st_close(file);
}

/* Types that cannot be read are listed, and only reading them fails. */
static void test_unknown_dtypes(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_st_file *file;
    const char *path = tmp_path(tmp_dir, "dtypes");
    uint8_t out[2];
    write_text(path,
               "{\"four\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]},"
               "\"new\":{\"dtype\":\"F128\",\"shape\":[],\"data_offsets\":[2,18]},"
               "\"half\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[18,20]}}",
               "xxxxxxxxxxxxxxxxxxab", 20);
    ra_assert_ok(ra_st_open(&file, path, &err));
    assert_int_equal(ra_st_count(file), 3);
    const struct ra_st_tensor *four = ra_st_find(file, "four");
    assert_int_equal(four->dtype, RA_ST_UNKNOWN);
    assert_string_equal(four->dtype_text, "F4");
    assert_int_equal(four->n_elements, 4);
    ra_assert_fails(ra_st_read(file, four, 0, out, 1, &err), RA_EFORMAT,
                    "dtypes: four: dtype F4 cannot be read here");
    ra_assert_fails(ra_st_read(file, ra_st_find(file, "new"), 0, out, 1, &err), RA_EFORMAT,
                    "new: dtype F128");
    ra_assert_ok(ra_st_read(file, ra_st_find(file, "half"), 0, out, 2, &err));
    assert_memory_equal(out, "ab", 2);
    ra_st_close(file);
}

/* Any byte of a good file changed, cut or doubled: an answer, never a signal or a leak. Catches
 * lengths that are used before they are checked; meant for the sanitised build. */
static void test_mutations(void **unused)
{
    (void)unused;
    struct sample samples[N_TENSORS];
    make_samples(samples, 7);
    const char *path = tmp_path(tmp_dir, "whole"), *mutant = tmp_path(tmp_dir, "mutant");
    write_samples(path, samples);
    size_t n, used;
    uint8_t *file = tmp_read(path, &n);
    for (used = 4095; file[used] == ' '; used--)
        ;
    int n_refused = 0;
    for (int round = 0; round < 3000; round++) {
        uint8_t *copy = malloc(n);
        assert_non_null(copy);
        memcpy(copy, file, n);
        for (uint64_t flips = 1 + draw() % 3; flips > 0; flips--)
            copy[draw() % 8 ? 8 + draw() % used : draw() % 8] ^= (uint8_t)(1u << draw() % 8);
        size_t kept = draw() % 16 ? n : draw() % n;
        tmp_write(mutant, copy, kept);
        struct ra_error err;
        struct ra_st_file *opened;
        enum ra_status st = ra_st_open(&opened, mutant, &err);
        if (st == RA_OK) {
            assert_true(ra_st_data_bytes(opened) < n);
            ra_st_close(opened);
        } else {
            assert_int_equal(st, RA_EFORMAT);
            assert_null(opened);
            assert_non_null(strstr(err.msg, "mutant"));
            n_refused++;
        }
        free(copy);
    }
    assert_true(n_refused > 2000 && n_refused < 3000);
    free(file);
    free_samples(samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_bytes),  cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_read_back),      cmocka_unit_test(test_cut_while_open),
        cmocka_unit_test(test_unknown_dtypes), cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
