/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: taking an input apart, a folder of their own, running a command as
 * the program would, and the rules that every message and every output keeps. A broken rule aborts,
 * which libFuzzer reports with the input.
 */
#ifndef RA_TESTS_FUZZ_FUZZ_H
#define RA_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/cli/options.h"

/* What libFuzzer calls, and calls back. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#define FUZZ_CHECK(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_broken(__FILE__, __LINE__, #condition, __VA_ARGS__);                              \
    } while (0)
void fuzz_broken(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

/* The rest of an input, taken from the front. */
struct fuzz_input {
    const uint8_t *at;
    size_t n;
};
/* 0 when nothing is left. */
uint8_t fuzz_take_byte(struct fuzz_input *input);
/* Up to a NUL (dropped) or the end; longer pieces are cut to size - 1. Always terminated. */
const char *fuzz_take_text(struct fuzz_input *input, char *out, size_t size);

/* A folder that no other process uses, made on first use and removed at exit. */
const char *fuzz_folder(void);
/* "FOLDER/NAME"; valid until the same number of calls as there are buffers (8). */
const char *fuzz_path(const char *name);
void fuzz_write(const char *path, const void *bytes, size_t n);
/* Whole file and its length, terminated; NULL when it cannot be read. Caller frees. */
char *fuzz_read(const char *path, size_t *n);
/* Remove what is in the folder `name` of ours, and make it anew. Returns its path. */
const char *fuzz_clean(const char *name);
/* Entries of a folder, "." and ".." not counted. */
size_t fuzz_count(const char *path);

/* A failure has a code of its own and a message that fits, is not empty and holds no control
 * byte; success is RA_OK. */
void fuzz_check_error(enum ra_status status, const struct ra_error *err);

/* Clear before the call whose status is checked. */
#define FUZZ_NO_ERROR ((struct ra_error){RA_OK, ""})

/*
 * Parse `words` (n of them, the command's own first) and run the command, with standard output
 * caught: *out is terminated and borrowed until the next call, NULL when the command did not run.
 * What it printed is checked: text has no control byte but line ends, JSON parses, CSV has as many
 * fields in each record as in the first.
 */
enum ra_status fuzz_run(const struct ra_command *command, int n, const char *const *words,
                        const char **out, struct ra_error *err);

void fuzz_check_text(const char *text, size_t n);
void fuzz_check_json(const char *text, size_t n);
void fuzz_check_csv(const char *text, size_t n);

#endif
