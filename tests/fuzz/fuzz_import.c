/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of another decoder, as JSON from anywhere: refused with a message and without a store, or
 * stored whole; then every report of that store keeps the rules of its format.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "sim/cli/commands.h"

static void report(const char *db, const char *format)
{
    const char *words[] = {"report", db, "-q", "--format", format}, *out;
    struct ra_error err;
    enum ra_status status = fuzz_run(&ra_cmd_report, 5, words, &out, &err);
    FUZZ_CHECK(status == RA_OK, "%s", err.msg);
}

static void draw(const char *db)
{
    const char *words[] = {"plot", db, "-q", "-o", fuzz_clean("figures")}, *out;
    struct ra_error err;
    /* figures that need what the results lack are left out, the others need gnuplot */
    enum ra_status status = fuzz_run(&ra_cmd_plot, 5, words, &out, &err);
    FUZZ_CHECK(status == RA_OK || status == RA_ENODEV, "%s", err.msg);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("PATH", "/nonexistent", 1); /* a figure is written, not drawn */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *folder = fuzz_clean("store"), *db = fuzz_path("store/runs.db"),
               *path = fuzz_path("import.json"), *out;
    struct fuzz_input input = {data, size};
    bool is_json = fuzz_take_byte(&input) & 1;
    fuzz_write(path, input.at, input.n);
    const char *words[] = {"import", path, "-q", "--db", db, "--format", is_json ? "json" : "text"};
    struct ra_error err;
    enum ra_status status = fuzz_run(&ra_cmd_import, 7, words, &out, &err);
    FUZZ_CHECK(fuzz_count(folder) == (status == RA_OK), "%zu files", fuzz_count(folder));
    if (status != RA_OK)
        return 0;
    report(db, "text");
    report(db, "json");
    report(db, "csv");
    draw(db);
    return 0;
}
