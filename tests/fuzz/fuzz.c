/* SPDX-License-Identifier: Apache-2.0 */
/* Standard output goes into a memory file for good: libFuzzer itself talks on standard error. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

void fuzz_broken(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "rule broken: %s:%d: %s: ", file, line, condition);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* --- inputs and files --------------------------------------------------------------------------
 */

uint8_t fuzz_take_byte(struct fuzz_input *input)
{
    if (input->n == 0)
        return 0;
    input->n--;
    return *input->at++;
}

const char *fuzz_take_text(struct fuzz_input *input, char *out, size_t size)
{
    size_t n = 0;
    for (uint8_t c; input->n > 0 && (c = fuzz_take_byte(input)) != 0;)
        if (n + 1 < size)
            out[n++] = (char)c;
    out[n] = '\0';
    return out;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

static char folder[256];

static void remove_folder(void)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_folder(void)
{
    if (!folder[0]) {
        const char *parent = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/rattn-fuzz-XXXXXX", parent ? parent : "/tmp");
        FUZZ_CHECK(mkdtemp(folder), "%s", folder);
        atexit(remove_folder);
    }
    return folder;
}

const char *fuzz_path(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_folder(), name);
    return path;
}

void fuzz_write(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "%s", path);
    close(fd);
}

char *fuzz_read(const char *path, size_t *n)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    FUZZ_CHECK(fstat(fd, &info) == 0, "%s", path);
    *n = (size_t)info.st_size;
    char *text = malloc(*n + 1);
    FUZZ_CHECK(text && read(fd, text, *n) == (ssize_t)*n, "%s", path);
    text[*n] = '\0';
    close(fd);
    return text;
}

const char *fuzz_clean(const char *name)
{
    const char *path = fuzz_path(name);
    nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    FUZZ_CHECK(mkdir(path, 0700) == 0, "%s", path);
    return path;
}

size_t fuzz_count(const char *path)
{
    size_t n = 0;
    DIR *listing = opendir(path);
    FUZZ_CHECK(listing, "%s", path);
    for (const struct dirent *entry; (entry = readdir(listing));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(listing);
    return n;
}

/* --- rules -------------------------------------------------------------------------------------
 */

void fuzz_check_error(enum ra_status status, const struct ra_error *err)
{
    if (status == RA_OK)
        return;
    size_t n = strnlen(err->msg, sizeof err->msg);
    FUZZ_CHECK(status >= RA_EUSAGE && status <= RA_EINTERRUPTED, "%d", (int)status);
    FUZZ_CHECK(err->code == status, "%d, not %d: %s", (int)err->code, (int)status, err->msg);
    FUZZ_CHECK(n > 0 && n < sizeof err->msg, "%zu", n);
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK((unsigned char)err->msg[i] >= 0x20 && err->msg[i] != 0x7f, "%s", err->msg);
}

void fuzz_check_text(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        FUZZ_CHECK((c >= 0x20 || c == '\n') && c != 0x7f, "byte %zu is 0x%02x: %s", i, c, text);
    }
}

void fuzz_check_json(const char *text, size_t n)
{
    json_error_t why;
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    FUZZ_CHECK(value, "%s: %s", why.text, text);
    json_decref(value);
}

/* RFC 4180, line feed for CR LF. */
void fuzz_check_csv(const char *text, size_t n)
{
    size_t fields = 1, expected = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '"') {
            char before = i ? text[i - 1] : '\n';
            FUZZ_CHECK(quoted || before == ',' || before == '\n' || before == '"', "byte %zu: %s",
                       i, text);
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            fields++;
        } else if (c == '\n' && !quoted) {
            expected = expected ? expected : fields;
            FUZZ_CHECK(fields == expected, "%zu fields, not %zu, before byte %zu: %s", fields,
                       expected, i, text);
            fields = 1;
        }
    }
    FUZZ_CHECK(!quoted && fields == 1, "cut: %s", text);
}

/* --- commands ----------------------------------------------------------------------------------
 */

static const char *caught(size_t *n)
{
    static char *text;
    off_t end = lseek(STDOUT_FILENO, 0, SEEK_END);
    FUZZ_CHECK(end >= 0, "%lld", (long long)end);
    *n = (size_t)end;
    free(text);
    text = malloc(*n + 1);
    FUZZ_CHECK(text && pread(STDOUT_FILENO, text, *n, 0) == (ssize_t)*n, "%zu", *n);
    text[*n] = '\0';
    return text;
}

static void catch_output(void)
{
    static bool is_caught;
    if (!is_caught) {
        int fd = memfd_create("stdout", MFD_CLOEXEC);
        FUZZ_CHECK(fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO, "%d", fd);
        close(fd);
        is_caught = true;
    }
    fflush(stdout);
    FUZZ_CHECK(ftruncate(STDOUT_FILENO, 0) == 0, "stdout");
    lseek(STDOUT_FILENO, 0, SEEK_SET);
}

static void check_output(enum ra_format format, const char *text, size_t n)
{
    if (format == RA_FORMAT_TEXT)
        fuzz_check_text(text, n);
    else if (format == RA_FORMAT_JSON && n > 0)
        fuzz_check_json(text, n);
    else if (format == RA_FORMAT_CSV)
        fuzz_check_csv(text, n);
}

enum ra_status fuzz_run(const struct ra_command *command, int n, const char *const *words,
                        const char **out, struct ra_error *err)
{
    struct ra_cli cli = {.argc = n, .argv = words};
    enum ra_options_want want = RA_WANT_RUN;
    void *values = calloc(1, command->values_size + 1);
    char **argv = calloc((size_t)n + 1, sizeof *argv);
    FUZZ_CHECK(values && argv, "%d", n);
    memcpy((void *)argv, (const void *)words, (size_t)n * sizeof *argv);
    *out = NULL;
    *err = FUZZ_NO_ERROR;
    enum ra_status status = ra_options_parse(command, n, argv, values, &cli, &want, err);
    if (status == RA_OK && want == RA_WANT_RUN) {
        size_t length;
        catch_output();
        status = command->run(&cli, values, err);
        fflush(stdout);
        *out = caught(&length);
        check_output(cli.format, *out, length);
    }
    fuzz_check_error(status, err);
    free((void *)argv);
    free(values);
    return status;
}
