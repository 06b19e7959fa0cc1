/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary folders and whole files, for tests that read and write. */
#include "tests/support/tmp_dir.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/ra_test.h"

const char *tmp_dir_make(void)
{
    static char path[512];
    const char *parent = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ra-test-XXXXXX", parent && *parent ? parent : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

void tmp_dir_remove(const char *path)
{
    assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

size_t tmp_dir_count(const char *path)
{
    DIR *folder = opendir(path);
    assert_non_null(folder);
    size_t n = 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n - 2;
}

const char *tmp_path(const char *folder, const char *name)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

uint8_t *tmp_read(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *n = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    bytes[*n] = 0;
    fclose(file);
    return bytes;
}

void tmp_write(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

char tmp_dir[512];

int tmp_dir_setup(void **state)
{
    (void)state;
    snprintf(tmp_dir, sizeof tmp_dir, "%s", tmp_dir_make());
    return 0;
}

int tmp_dir_teardown(void **state)
{
    (void)state;
    tmp_dir_remove(tmp_dir);
    return 0;
}
