/* SPDX-License-Identifier: Apache-2.0 */
/* Folders, rows and independent look-ups for the tests of the store. */
#include "tests/support/store_fixture.h"

#include <dirent.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/ra_test.h"

int store_setup(void **state)
{
    struct store_fixture *fixture = calloc(1, sizeof *fixture);
    const char *tmp = getenv("TMPDIR");
    snprintf(fixture->dir, sizeof fixture->dir, "%s/ra store.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(fixture->dir))
        return -1;
    snprintf(fixture->path, sizeof fixture->path, "%s/runs.db", fixture->dir);
    *state = fixture;
    return 0;
}

int store_teardown(void **state)
{
    struct store_fixture *fixture = *state;
    chmod(fixture->dir, 0700);
    DIR *dir = opendir(fixture->dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    int status = rmdir(fixture->dir);
    free(fixture);
    return status;
}

static struct ra_store *open_store(const char *path, enum ra_store_mode mode)
{
    struct ra_store *store = NULL;
    struct ra_error err;
    ra_assert_ok(ra_store_open(&store, path, mode, &err));
    return store;
}

struct ra_store *store_append(const char *path)
{
    return open_store(path, RA_STORE_APPEND);
}

struct ra_store *store_read(const char *path)
{
    return open_store(path, RA_STORE_READ);
}

void store_done(struct ra_store *store)
{
    struct ra_error err;
    ra_assert_ok(ra_store_close(store, &err));
}

struct ra_run_row store_run_row(void)
{
    return (struct ra_run_row){
        .invocation_uuid = "00000000-0000-4000-8000-000000000000",
        .command = "replay",
        .argv_json = "[\"replay\",\"a.safetensors\"]",
        .kind = "replay",
        .tool_version = "0.0",
        .config_json = "{}",
        .policy = "recycled:k=256,stride=16",
        .policy_name = "recycled",
        .policy_params_json = "{\"k\":256,\"stride\":16}",
        .trace_path = "a.safetensors",
        .backend = "cpu",
        .scores = "fused",
        .cache = "compact",
        .method = "cpu-wall",
        .seed = UINT64_MAX,
    };
}

int64_t store_begin_run(struct ra_store *store)
{
    struct ra_run_row row = store_run_row();
    struct ra_error err;
    int64_t run_id = 0;
    char uuid[37];
    ra_assert_ok(ra_store_run_begin(store, &row, &run_id, uuid, &err));
    return run_id;
}

struct ra_layer_step_row store_step(int64_t run_id, int32_t step, int layer)
{
    return (struct ra_layer_step_row){
        .run_id = run_id,
        .step = step,
        .layer = layer,
        .is_full = step % 16 == 15,
        .keys_read = 1000 + step,
        .kv_read_bytes = 64000 + step,
        .kv_write_bytes = 192,
        .mass_recovered_mean = 0.9,
        .mass_recovered_min = 0.8,
        .output_rel_err_mean = 0.1,
        .output_rel_err_max = 0.2,
        .topk_recall = 0.7,
        .refresh_overlap = NAN,
        .query_cosine = NAN,
    };
}

struct sqlite3 *store_plain(const char *path)
{
    struct sqlite3 *db = NULL;
    char name[300]; /* a plain file name, should the library take names for URIs */
    snprintf(name, sizeof name, "%s", path);
    assert_int_equal(sqlite3_open(name, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 2000);
    return db;
}

void store_exec(const char *path, const char *sql)
{
    struct sqlite3 *db = store_plain(path);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

int64_t store_ask_in(struct sqlite3 *db, const char *sql)
{
    struct sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    int64_t answer = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return answer;
}

int64_t store_ask(const char *path, const char *sql)
{
    struct sqlite3 *db = store_plain(path);
    int64_t answer = store_ask_in(db, sql);
    sqlite3_close(db);
    return answer;
}

enum ra_status store_see(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    (void)err;
    struct store_seen *seen = context;
    seen->n++;
    seen->id = run->id;
    seen->n_passes_complete = run->n_passes_complete;
    seen->n_layer_steps = run->n_layer_steps;
    seen->ended_unix_ns = run->ended_unix_ns;
    snprintf(seen->uuid, sizeof seen->uuid, "%s", run->uuid);
    snprintf(seen->state, sizeof seen->state, "%s", run->state);
    return RA_OK;
}

bool store_exists(const char *path, const char *suffix)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return access(name, F_OK) == 0;
}
