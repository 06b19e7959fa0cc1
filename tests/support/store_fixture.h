/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of its own for each test of the store, rows to put in, and a second pair of eyes: what
 * is in the file is read with plain SQLite, not with the code under test.
 */
#ifndef RA_TESTS_SUPPORT_STORE_FIXTURE_H
#define RA_TESTS_SUPPORT_STORE_FIXTURE_H

#include "profiler/store.h"

struct sqlite3;

struct store_fixture {
    char dir[200];
    char path[224]; /* DIR/runs.db, not there yet */
};

/* cmocka setup and teardown; *state is a struct store_fixture. */
int store_setup(void **state);
int store_teardown(void **state);

struct ra_store *store_append(const char *path);
struct ra_store *store_read(const char *path);
void store_done(struct ra_store *store);

struct ra_run_row store_run_row(void);
int64_t store_begin_run(struct ra_store *store);
struct ra_layer_step_row store_step(int64_t run_id, int32_t step, int layer);

/* With plain SQLite: run statements, make a file of them, ask for one number. */
struct sqlite3 *store_plain(const char *path);
void store_exec(const char *path, const char *sql);
int64_t store_ask(const char *path, const char *sql);
int64_t store_ask_in(struct sqlite3 *db, const char *sql);

/* What ra_store_runs calls for each run: copies of the last one, and how many. */
struct store_seen {
    int n;
    int64_t id, n_passes_complete, n_layer_steps, ended_unix_ns;
    char uuid[37], state[16];
};
enum ra_status store_see(void *seen, const struct ra_run_listing *run, struct ra_error *err);

/* Whether a file exists. */
bool store_exists(const char *path, const char *suffix);

#endif
