/* SPDX-License-Identifier: Apache-2.0 */
/* Running gnuplot: in the figure's folder, without a shell and without the user's start-up file. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim/cli/plot.h"

extern char **environ;

#define PART ".part"

/* gnuplot's stderr goes to `said`, its stdin and stdout to nothing. */
static int spawn(const char *folder, const char *script, FILE *said, pid_t *pid)
{
    char program[] = "gnuplot", plain[] = "-d", define[] = "-e", part[] = "part = '" PART "'",
         file[512];
    snprintf(file, sizeof file, "%s", script);
    char *words[] = {program, plain, define, part, file, NULL};
    posix_spawn_file_actions_t actions;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    rc = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (!rc)
        rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!rc)
        rc = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, fileno(said), 2);
    if (!rc)
        rc = posix_spawnp(pid, program, &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* gnuplot quotes the line, marks the place, then says what is wrong: the last line that says. */
static void last_line(FILE *said, char *out, size_t size)
{
    char line[256];
    snprintf(out, size, "no message");
    rewind(said);
    while (fgets(line, sizeof line, said)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[strspn(line, " ^\t")])
            snprintf(out, size, "%s", line + strspn(line, " \t"));
    }
}

/* cairo dates its files, and the same figure shall be the same bytes: the date becomes blanks,
 * which moves nothing in the file. */
static enum ra_status remove_date(const char *path, struct ra_error *err)
{
    static const char key[] = "/CreationDate (";
    FILE *file = fopen(path, "r+");
    char *bytes = NULL;
    enum ra_status status = RA_OK;
    if (!file)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (size > 0)
        bytes = malloc((size_t)size);
    if (!bytes || fseek(file, 0, SEEK_SET) != 0 ||
        fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        status = ra_fail(err, RA_EIO, "%s: cannot be read again", path);
    } else {
        char *at = memmem(bytes, (size_t)size, key, sizeof key - 1);
        char *end = at ? memchr(at, ')', (size_t)(bytes + size - at)) : NULL;
        if (end && (fseek(file, at - bytes, SEEK_SET) != 0 ||
                    fprintf(file, "%*s", (int)(end - at) + 1, "") < 0))
            status = ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    }
    free(bytes);
    if (fclose(file) != 0 && status == RA_OK)
        status = ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    return status;
}

/* gnuplot does not say when its output was cut short; every format has a last word. */
static enum ra_status check_whole(const char *part, const char *path, enum ra_plot_format format,
                                  struct ra_error *err)
{
    static const char *const last[] = {"</svg>", "IEND", "%%EOF"};
    char tail[32] = "";
    size_t n = 0;
    FILE *file = fopen(part, "r");
    if (!file)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    if (fseek(file, -(long)sizeof tail, SEEK_END) == 0)
        n = fread(tail, 1, sizeof tail, file);
    fclose(file);
    if (memmem(tail, n, last[format], strlen(last[format])))
        return RA_OK;
    return ra_fail(err, RA_EIO, "%s: gnuplot could not write all of it; is the disk full?", path);
}

/* Drawn beside its name, the figure gets it when it is whole. */
static enum ra_status finish(const struct ra_plot *plot, const struct ra_plot_target *target,
                             enum ra_status status, struct ra_error *err)
{
    static const char *const extensions[] = {"svg", "png", "pdf"};
    char path[4096], part[4096 + sizeof PART];
    snprintf(path, sizeof path, "%s/%s.%s", target->folder, plot->name, extensions[target->format]);
    snprintf(part, sizeof part, "%s" PART, path);
    if (status == RA_OK)
        status = check_whole(part, path, target->format, err);
    if (status == RA_OK && target->format == RA_PLOT_PDF)
        status = remove_date(part, err);
    if (status == RA_OK && rename(part, path) != 0)
        status = ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    if (status != RA_OK)
        unlink(part);
    return status;
}

enum ra_status ra_plot_draw(const struct ra_plot *plot, const struct ra_plot_target *target,
                            struct ra_error *err)
{
    char script[128], message[160];
    snprintf(script, sizeof script, "%s.gp", plot->name);
    FILE *said = tmpfile();
    if (!said)
        return ra_fail(err, RA_EIO, "temporary file: %s", strerror(errno));
    pid_t pid = 0;
    int rc = spawn(target->folder, script, said, &pid), state = 0;
    enum ra_status status = RA_OK;
    if (rc == ENOENT)
        status = ra_fail(err, RA_ENODEV, "gnuplot: not found in PATH: install gnuplot-nox");
    else if (rc)
        status = ra_fail(err, RA_EIO, "gnuplot: %s", strerror(rc));
    while (status == RA_OK && waitpid(pid, &state, 0) < 0)
        if (errno != EINTR)
            status = ra_fail(err, RA_EIO, "gnuplot: %s", strerror(errno));
    if (status == RA_OK && (!WIFEXITED(state) || WEXITSTATUS(state) != 0)) {
        last_line(said, message, sizeof message);
        status = ra_fail(err, RA_EIO, "gnuplot: %s: %s", script, message);
    }
    fclose(said);
    return finish(plot, target, status, err);
}
