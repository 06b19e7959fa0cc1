/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of a test's own, and whole files as bytes. Failures here fail the test. */
#ifndef RA_TESTS_SUPPORT_TMP_DIR_H
#define RA_TESTS_SUPPORT_TMP_DIR_H

#include <stddef.h>
#include <stdint.h>

/* Group fixtures: a folder in tmp_dir while the tests of a program run. */
extern char tmp_dir[512];
int tmp_dir_setup(void **state);
int tmp_dir_teardown(void **state);

/* Make a folder below TMPDIR; the path is valid until the next call. */
const char *tmp_dir_make(void);
/* Remove a folder and all in it. */
void tmp_dir_remove(const char *path);
/* Entries of the folder, "." and ".." not counted. */
size_t tmp_dir_count(const char *path);

/* "FOLDER/NAME" in one of a few static buffers. */
const char *tmp_path(const char *folder, const char *name);

/* The bytes of a file; caller frees. */
uint8_t *tmp_read(const char *path, size_t *n);
void tmp_write(const char *path, const void *bytes, size_t n);

#endif
