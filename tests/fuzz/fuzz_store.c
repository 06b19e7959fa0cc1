/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that somebody else made: 'd' and a byte, then the file as it is; 'q' and a byte, then SQL
 * that is run on a good store first; 'j' or 'w' and a byte, then a journal or log left beside a
 * good store. The byte chooses what reads it: the queries themselves, list, report, compare, the
 * tables of a figure, a page, or a writer that appends. Whatever the file says, that ends, prints
 * nothing but text, and leaves nothing beside the file.
 */
#include "tests/fuzz/fuzz.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "profiler/store.h"
#include "sim/cli/commands.h"
#include "sim/cli/plot.h"

enum { MAX_SQL = 1 << 14, MAX_OPS = 200000, MAX_VALUE = 1 << 20, MAX_RUNS = 4 };

static void *good;
static size_t good_size;

/* The frozen store with the frozen result in it, in small pages. */
static void make_good(void)
{
    const char *path = fuzz_path("good.db");
    size_t n;
    char *sql = fuzz_read("tests/golden/store_v4.sql", &n);
    json_t *results = json_load_file("tests/golden/sample.json", 0, NULL);
    char *result = json_dumps(json_array_get(results, 0), JSON_COMPACT);
    FUZZ_CHECK(sql && result, "run this in the root of the repository");
    char *set = sqlite3_mprintf("UPDATE run SET result_json = %Q", result);
    sqlite3 *db = NULL;
    bool ok = sqlite3_open(path, &db) == SQLITE_OK &&
              sqlite3_exec(db, "PRAGMA page_size = 512", NULL, NULL, NULL) == SQLITE_OK &&
              sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK &&
              sqlite3_exec(db, set, NULL, NULL, NULL) == SQLITE_OK;
    FUZZ_CHECK(ok, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
    sqlite3_free(set);
    free(result);
    free(sql);
    json_decref(results);
    good = fuzz_read(path, &good_size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("PATH", "/nonexistent", 1); /* a figure is written, not drawn */
    make_good();
    return 0;
}

/* The script shapes its own file and nothing else. */
static int authorize(void *context, int action, const char *a, const char *b, const char *c,
                     const char *d)
{
    (void)context;
    (void)b;
    (void)c;
    (void)d;
    if (action == SQLITE_ATTACH || action == SQLITE_DETACH)
        return SQLITE_DENY;
    return action == SQLITE_PRAGMA && a && strstr(a, "directory") ? SQLITE_DENY : SQLITE_OK;
}

static int stop(void *context)
{
    (void)context;
    return 1;
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    FUZZ_CHECK(sqlite3_open(path, &db) == SQLITE_OK, "%s", path);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0); /* VACUUM INTO writes files, too */
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, MAX_VALUE);
    sqlite3_set_authorizer(db, authorize, NULL);
    sqlite3_progress_handler(db, MAX_OPS, stop, NULL);
    sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close(db);
}

/* --- readers -----------------------------------------------------------------------------------
 */

struct seen {
    struct ra_store *store;
    int64_t ids[MAX_RUNS];
    int n;
};

static enum ra_status on_row(void *context, const struct ra_layer_step_row *row,
                             struct ra_error *err)
{
    (void)context;
    (void)row;
    (void)err;
    return RA_OK;
}

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    struct seen *seen = context;
    FUZZ_CHECK(run->uuid && run->state && run->kind, "run %lld", (long long)run->id);
    if (seen->n == MAX_RUNS)
        return ra_fail(err, RA_EUSAGE, "enough");
    seen->ids[seen->n++] = run->id;
    return RA_OK;
}

static void query(const char *path)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct seen seen = {.n = 0};
    char which[32];
    enum ra_status status = ra_store_open(&seen.store, path, RA_STORE_READ, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK((status == RA_OK) == (seen.store != NULL), "%s", err.msg);
    if (status != RA_OK)
        return;
    fuzz_check_error(ra_store_runs(seen.store, NULL, on_run, &seen, &err), &err);
    for (int i = 0; i < seen.n; i++)
        fuzz_check_error(ra_store_layer_steps(seen.store, seen.ids[i], on_row, NULL, &err), &err);
    int n = seen.n;
    for (int i = 0; i < n; i++) {
        seen.n = 0;
        snprintf(which, sizeof which, "%lld", (long long)seen.ids[i]);
        fuzz_check_error(ra_store_runs(seen.store, which, on_run, &seen, &err), &err);
    }
    seen.n = 0;
    fuzz_check_error(ra_store_runs(seen.store, "63b26149", on_run, &seen, &err), &err);
    fuzz_check_error(ra_store_close(seen.store, &err), &err);
}

static void list(const char *path, size_t form)
{
    const char *const words[][5] = {{"list", "runs", path, "-q", "-v"},
                                    {"list", "runs", path, "--format=json", "-q"},
                                    {"list", "runs", path, "--format=csv", "-q"}};
    const char *out;
    struct ra_error err;
    (void)fuzz_run(&ra_cmd_list, 5, words[form], &out, &err);
}

static void report(const char *path, size_t form)
{
    const char *const words[][4] = {{"report", path, "-q", "--format=text"},
                                    {"report", path, "-q", "--format=json"},
                                    {"report", path, "-q", "--format=csv"}};
    const char *out;
    struct ra_error err;
    (void)fuzz_run(&ra_cmd_report, 4, words[form], &out, &err);
}

static void compare(const char *path, size_t form)
{
    const char *const words[][5] = {{"compare", path, "--run=1", "--run=2", "--format=text"},
                                    {"compare", path, "--run=2", "--run=1", "--format=json"},
                                    {"compare", path, "--run=1", "--run=1", "--format=csv"}};
    const char *out;
    struct ra_error err;
    enum ra_status status = fuzz_run(&ra_cmd_compare, 5, words[form], &out, &err);
    FUZZ_CHECK(form < 2 || status != RA_EDIVERGED, "a run differs from itself: %s", err.msg);
}

/* A line of variables of a figure's script: NAME = 'text'."\n".'text', or a number. */
static void check_script_line(const char *line, size_t n)
{
    size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_0123456789");
    FUZZ_CHECK(name > 0 && name + 3 <= n && memcmp(line + name, " = ", 3) == 0, "%.*s", (int)n,
               line);
    bool quoted = false;
    for (size_t i = name + 3; i < n; i++) {
        unsigned char c = (unsigned char)line[i];
        FUZZ_CHECK(c >= ' ' && c != 0x7f, "byte %zu of %.*s", i, (int)n, line);
        if (c == '\'')
            quoted = !quoted;
        else if (!quoted)
            FUZZ_CHECK(strchr(".\"\\n-+e0123456789", c), "byte %zu of %.*s", i, (int)n, line);
    }
    FUZZ_CHECK(!quoted, "%.*s", (int)n, line);
}

static void check_script(const char *folder, const char *name)
{
    char file[64];
    size_t n;
    snprintf(file, sizeof file, "figures/%s.gp", name);
    char *text = fuzz_read(fuzz_path(file), &n);
    FUZZ_CHECK(text || fuzz_count(folder) == 0, "%s", file);
    if (!text)
        return;
    char *end = strstr(text, ra_plot_house_gp);
    FUZZ_CHECK(end && strlen(text) == n, "%s", text);
    for (char *line = text, *stop; line < end; line = stop + 1) {
        stop = strchr(line, '\n');
        check_script_line(line, (size_t)(stop - line));
    }
    free(text);
}

static void plot(const char *path, const char *name)
{
    const char *folder = fuzz_clean("figures");
    const char *words[] = {"plot", path, "-q", "-o", folder, "--figure", name};
    const char *out;
    struct ra_error err;
    enum ra_status status = fuzz_run(&ra_cmd_plot, 7, words, &out, &err);
    FUZZ_CHECK(status != RA_OK, "it cannot have been drawn");
    if (status == RA_ENODEV)
        check_script(folder, name);
}

/* No text of the store may have become a tag: all of them are the page's own. */
static void check_page(const char *text, size_t n)
{
    static const char tags[] =
        " a b body code dd details div dl dt figcaption figure footer h1 h2 h3 head header html li "
        "main meta nav p pre section style summary table tbody td th thead title tr ul ";
    static const char end[] = "</html>\n";
    FUZZ_CHECK(strlen(text) == n && n > sizeof end && strcmp(text + n - sizeof end + 1, end) == 0,
               "%zu bytes", n);
    for (const char *at = strchr(text + 1, '<'); at; at = strchr(at + 1, '<')) {
        char name[16];
        const char *from = at + 1 + (at[1] == '/');
        int length = (int)strcspn(from, " >");
        snprintf(name, sizeof name, " %.*s ", length < 12 ? length : 12, from);
        FUZZ_CHECK(length > 0 && strstr(tags, name), "%.64s", at);
    }
}

static void page(const char *path)
{
    const char *folder = fuzz_clean("pages"), *out;
    char file[4096];
    snprintf(file, sizeof file, "%s", fuzz_path("pages/page.html"));
    const char *words[] = {"report", path, "-q", "-o", file};
    struct ra_error err;
    size_t n;
    enum ra_status status = fuzz_run(&ra_cmd_report, 5, words, &out, &err);
    char *text = fuzz_read(file, &n);
    FUZZ_CHECK((status == RA_OK) == (text != NULL), "%s", err.msg);
    FUZZ_CHECK(fuzz_count(folder) == (text != NULL), "%zu files", fuzz_count(folder));
    if (text)
        check_page(text, n);
    free(text);
}

static void append(const char *path)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_store *store;
    struct ra_run_row row = {.command = "replay",
                             .kind = "replay",
                             .tool_version = "0",
                             .config_json = "{}",
                             .policy = "full",
                             .policy_name = "full",
                             .policy_params_json = "{}"};
    struct ra_layer_step_row step = {.step = 0};
    char uuid[37];
    enum ra_status status = ra_store_open(&store, path, RA_STORE_APPEND, &err);
    fuzz_check_error(status, &err);
    if (status != RA_OK)
        return;
    status = ra_store_run_begin(store, &row, &step.run_id, uuid, &err);
    fuzz_check_error(status, &err);
    if (status == RA_OK) {
        fuzz_check_error(ra_store_layer_step(store, &step, &err), &err);
        fuzz_check_error(
            ra_store_run_end(store, step.run_id, RA_RUN_COMPLETE, "f", "h", "{}", &err), &err);
    }
    fuzz_check_error(ra_store_close(store, &err), &err);
}

/* --- inputs ------------------------------------------------------------------------------------
 */

static void use(const char *path, uint8_t how)
{
    size_t n_plots = 0;
    while (ra_plots[n_plots].name)
        n_plots++;
    switch (how % 8) {
    case 0:
        list(path, how / 8 % 3);
        break;
    case 1:
        report(path, how / 8 % 3);
        break;
    case 2:
        compare(path, how / 8 % 3);
        break;
    case 3:
        append(path);
        query(path);
        break;
    case 4:
        query(path);
        break;
    case 5:
        page(path);
        break;
    default:
        plot(path, ra_plots[how / 8 % n_plots].name);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char sql[MAX_SQL];
    struct fuzz_input input = {data, size};
    const char *folder = fuzz_clean("store"), *path = fuzz_path("store/store.db");
    uint8_t kind = fuzz_take_byte(&input), how = fuzz_take_byte(&input);
    bool is_file = kind != 'q' && kind != 'j' && kind != 'w';
    memcpy((uint8_t *)good + 18, kind == 'w' ? "\2\2" : "\1\1", 2); /* journal or log */
    fuzz_write(path, is_file ? input.at : good, is_file ? input.n : good_size);
    if (kind == 'q')
        run_sql(path, fuzz_take_text(&input, sql, sizeof sql));
    else if (!is_file)
        fuzz_write(fuzz_path(kind == 'j' ? "store/store.db-journal" : "store/store.db-wal"),
                   input.at, input.n);
    size_t before = fuzz_count(folder);
    use(path, how);
    /* What was there may have been merged; SQLite keeps an index beside a log that it only read; a
     * lock or a backup may not stay. */
    FUZZ_CHECK(fuzz_count(folder) <= before + (kind == 'w'), "%zu files", fuzz_count(folder));
    return 0;
}

/* A file keeps its size and its pages: bytes change within a window. SQL is only text. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    enum { WINDOW = 64 };
    if (size < 2 + WINDOW || data[0] == 'q')
        return LLVMFuzzerMutate(data, size < MAX_SQL ? size : MAX_SQL,
                                max_size < MAX_SQL ? max_size : MAX_SQL);
    if (seed % 16 == 0)
        data[1] = (uint8_t)(seed >> 4);
    LLVMFuzzerMutate(data + 2 + seed / 16 % (size - 1 - WINDOW), WINDOW, WINDOW);
    return size;
}
