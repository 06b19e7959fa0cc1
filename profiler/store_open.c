/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing the store. A writer takes the lock, then the file; a reader opens read-only
 * and writes only when something is left to tend: an older schema, or runs whose writer died.
 * Between writers the file is a plain one (journal_mode DELETE), which opens on any medium.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/store_index.h"
#include "profiler/store_internal.h"
#include "profiler/store_migrate.h"
#include "profiler/store_names.h"

/* SQLite takes a shorter file for an empty one, and would overwrite it. */
enum { smallest_database = 512 };
/* No text of a run comes near; an expression hidden in a foreign file cannot ask for more. */
enum { largest_value = 64 << 20 };
enum { busy_wait_ms = 5000, writer_wait_ms = 5000, tend_wait_ms = 100 };

static enum ra_status is_empty(const char *path, struct ra_error *err)
{
    return ra_fail(err, RA_ESTORE, "%s: is empty: nothing was stored in it yet", path);
}

/* Never opens the file itself: closing a second descriptor would drop SQLite's own locks. */
static enum ra_status check_file(const char *path, enum ra_store_mode mode, struct ra_error *err)
{
    struct stat file;
    if (stat(path, &file) != 0) {
        if (errno == ENOENT && mode == RA_STORE_APPEND)
            return RA_OK;
        return ra_fail(err, RA_ESTORE, "%s: cannot be opened: %s", path, strerror(errno));
    }
    if (!S_ISREG(file.st_mode))
        return ra_fail(err, RA_ESTORE, "%s: expected a file, this is %s", path,
                       S_ISDIR(file.st_mode) ? "a folder" : "a device or pipe");
    if (file.st_size > 0 && file.st_size < smallest_database)
        return ra_fail(err, RA_ESTORE, "%s: cannot be read: it is not an SQLite file", path);
    if (file.st_size == 0 && mode == RA_STORE_READ)
        return is_empty(path, err);
    return RA_OK;
}

/* A name SQLite takes literally: not ":memory:", not a URI. Caller frees. */
static char *resolve(const char *path)
{
    char *file = realpath(path, NULL);
    if (!file && asprintf(&file, "%s%s", path[0] == '/' ? "" : "./", path) < 0)
        return NULL;
    return file;
}

static enum ra_status connect(struct ra_store *store, const char *name, int flags,
                              struct ra_error *err)
{
    if (sqlite3_open_v2(name, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return ra_store_sql_fail(store->db, store->path, "cannot be opened", err);
    sqlite3_busy_timeout(store->db, busy_wait_ms);
    sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH, largest_value);
    return RA_OK;
}

static enum ra_status tune(struct ra_store *store, struct ra_error *err)
{
    return ra_store_sql_exec(store->db, store->path, "cannot be read",
                             "PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;"
                             "PRAGMA cache_size = -8192; PRAGMA cell_size_check = ON",
                             err);
}

static void disconnect(struct ra_store *store)
{
    ra_store_sql_finalize(store);
    int rc = sqlite3_close(store->db);
    RA_BUG_ON(rc != SQLITE_OK);
    store->db = NULL;
}

/*
 * Where the file system has no shared memory SQLite stays with its rollback journal: slower, safe.
 * Rows that come layer by layer touch every page of their run in each batch: pages should stay in
 * memory, and a checkpoint (two syncs, each page once more) be worth several batches.
 */
static enum ra_status use_wal(struct ra_store *store, struct ra_error *err)
{
    return ra_store_sql_exec(store->db, store->path, "cannot be written",
                             "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                             "PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4096",
                             err);
}

/* One plain file again, unless another connection still reads it: then the next writer does it. */
static void settle(struct ra_store *store)
{
    sqlite3_busy_timeout(store->db, 0);
    sqlite3_exec(store->db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
    sqlite3_exec(store->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
}

/* With the lock held, whatever says `running` has no writer any more, and indexes are missed. */
static enum ra_status mark_abandoned(struct ra_store *store, struct ra_error *err)
{
    enum ra_status status =
        ra_store_sql_exec(store->db, store->path, "cannot be written",
                          "BEGIN IMMEDIATE;"
                          "UPDATE pass SET state = 'aborted' WHERE state = 'running';"
                          "UPDATE run SET state = 'aborted' WHERE state = 'running'",
                          err);
    if (status == RA_OK)
        status = ra_store_index_make(store->db, store->path, err);
    if (status == RA_OK)
        status = ra_store_sql_exec(store->db, store->path, "cannot be written", "COMMIT", err);
    if (status != RA_OK && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* Lock, open for writing, and bring the file up to date. */
static enum ra_status open_writer(struct ra_store *store, const struct ra_store_schema *schema,
                                  int flags, int wait_ms, struct ra_error *err)
{
    enum ra_store_age age = RA_STORE_EMPTY;
    RA_TRY(ra_store_lock_take(&store->lock, store->file, store->path, wait_ms, err));
    RA_TRY(connect(store, store->file, SQLITE_OPEN_READWRITE | flags, err));
    RA_TRY(tune(store, err));
    RA_TRY(ra_store_identify(store->db, store->path, schema, &age, err));
    if (sqlite3_db_readonly(store->db, "main") == 1)
        return ra_fail(err, RA_ESTORE, "%s: cannot be written: it is read-only", store->path);
    if (age == RA_STORE_EMPTY && store->mode == RA_STORE_READ)
        return is_empty(store->path, err);
    if (age == RA_STORE_EMPTY)
        RA_TRY(ra_store_sql_exec(store->db, store->path, "cannot be written",
                                 "PRAGMA page_size = 8192", err));
    if (age == RA_STORE_OLDER)
        RA_TRY(ra_store_migrate(store->db, store->path, schema, err));
    RA_TRY(use_wal(store, err));
    enum ra_status status = RA_OK;
    if (age == RA_STORE_EMPTY)
        status = ra_store_create(store->db, store->path, schema, err);
    if (status == RA_OK)
        status = mark_abandoned(store, err);
    if (status != RA_OK)
        settle(store); /* a writer that goes away at once leaves the plain file it found */
    return status;
}

static void close_writer(struct ra_store *store)
{
    if (store->db)
        disconnect(store);
    ra_lock_file_release(&store->lock);
}

static bool has_log(const char *file)
{
    char *name = NULL;
    if (asprintf(&name, "%s-wal", file) < 0)
        return true;
    bool found = access(name, F_OK) == 0;
    free(name);
    return found;
}

/* Reading a file in WAL mode makes side files that a reader may not take away; a connection that
 * may write does, as far as nobody else is on them. */
static void sweep(const struct ra_store *store)
{
    struct sqlite3 *db = NULL;
    if (store->mode != RA_STORE_READ || store->had_log || !store->file || !has_log(store->file))
        return;
    if (sqlite3_open_v2(store->file, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK)
        sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    sqlite3_close(db);
}

/* A log that was never merged must not be passed over in silence. */
static bool has_unmerged(const char *file)
{
    static const char *const suffix[] = {"-wal", "-journal"};
    bool found = false;
    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0] && !found; i++) {
        char *name = NULL;
        struct stat log;
        if (asprintf(&name, "%s%s", file, suffix[i]) < 0)
            return true;
        found = stat(name, &log) == 0 && log.st_size > 0;
        free(name);
    }
    return found;
}

/* file:PATH?immutable=1 with the path's bytes escaped; caller frees. */
static char *immutable_uri(const char *file)
{
    static const char hex[] = "0123456789ABCDEF";
    static const char head[] = "file:", tail[] = "?immutable=1";
    char *uri = malloc(sizeof head + 3 * strlen(file) + sizeof tail);
    if (!uri)
        return NULL;
    char *out = stpcpy(uri, head);
    for (const unsigned char *c = (const unsigned char *)file; *c; c++) {
        if (strchr("%?#", *c)) {
            *out++ = '%';
            *out++ = hex[*c >> 4];
            *out++ = hex[*c & 15];
        } else {
            *out++ = (char)*c;
        }
    }
    memcpy(out, tail, sizeof tail);
    return uri;
}

/*
 * Read-only; where SQLite cannot even make its side files (a store left in WAL mode on a medium
 * that cannot be written), as a file that nobody changes. *is_stuck: a log must be merged first.
 */
static enum ra_status connect_reader(struct ra_store *store, bool *is_stuck, struct ra_error *err)
{
    *is_stuck = false;
    RA_TRY(connect(store, store->file, SQLITE_OPEN_READONLY, err));
    int rc = sqlite3_exec(store->db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (rc != SQLITE_CANTOPEN && rc != SQLITE_READONLY)
        return tune(store, err);
    disconnect(store);
    *is_stuck = has_unmerged(store->file);
    if (*is_stuck)
        return ra_fail(err, RA_ESTORE,
                       "%s: its writer was stopped and its log cannot be merged where nothing can "
                       "be written; copy it with its -wal or -journal file to another folder",
                       store->path);
    char *uri = immutable_uri(store->file);
    if (!uri)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", store->path);
    enum ra_status status = connect(store, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err);
    free(uri);
    return status == RA_OK ? tune(store, err) : status;
}

/* What a reader must have tended by a writer, if anything. */
static enum ra_status look(struct ra_store *store, const struct ra_store_schema *schema,
                           bool *is_older, bool *has_running, struct ra_error *err)
{
    enum ra_store_age age = RA_STORE_EMPTY;
    int64_t running = 0;
    RA_TRY(ra_store_identify(store->db, store->path, schema, &age, err));
    if (age == RA_STORE_EMPTY)
        return is_empty(store->path, err);
    *is_older = age == RA_STORE_OLDER;
    *has_running = false;
    if (*is_older)
        return RA_OK;
    RA_TRY(ra_store_sql_int(store->db, store->path,
                            "SELECT 1 FROM run WHERE state = 'running' LIMIT 1", 0, &running, err));
    *has_running = running != 0;
    return RA_OK;
}

/* Tending that fails matters only for an older schema; else the reader says what it finds. */
static enum ra_status open_reader(struct ra_store *store, const struct ra_store_schema *schema,
                                  struct ra_error *err)
{
    bool is_stuck = false, is_older = false, has_running = false;
    enum ra_status status = connect_reader(store, &is_stuck, err);
    if (status == RA_OK)
        status = look(store, schema, &is_older, &has_running, err);
    if (!is_stuck && (status != RA_OK || (!is_older && !has_running)))
        return status;
    if (store->db)
        disconnect(store);
    status = open_writer(store, schema, 0, is_older ? writer_wait_ms : tend_wait_ms, err);
    if (status == RA_OK)
        settle(store);
    close_writer(store);
    if (status != RA_OK && is_older)
        return status;
    store->shows_aborted = status != RA_OK && ra_store_lock_is_free(store->file);
    RA_TRY(connect_reader(store, &is_stuck, err));
    return look(store, schema, &is_older, &has_running, err);
}

static void free_store(struct ra_store *store)
{
    close_writer(store);
    sweep(store);
    ra_store_names_clear(store);
    free(store->steps);
    free(store->path);
    free(store->file);
    free(store);
}

enum ra_status ra_store_open_schema(struct ra_store **out, const char *path,
                                    enum ra_store_mode mode, const struct ra_store_schema *schema,
                                    struct ra_error *err)
{
    *out = NULL;
    RA_TRY(ra_store_check_library(sqlite3_libversion_number(), err));
    RA_TRY(check_file(path, mode, err));
    struct ra_store *store = calloc(1, sizeof *store);
    if (!store)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    store->mode = mode;
    store->lock.fd = -1;
    store->path = strdup(path);
    store->file = resolve(path);
    store->had_log = store->file && has_log(store->file);
    enum ra_status status = RA_OK;
    if (!store->path || !store->file)
        status = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    else if (mode == RA_STORE_READ)
        status = open_reader(store, schema, err);
    else
        status = open_writer(store, schema, SQLITE_OPEN_CREATE, writer_wait_ms, err);
    if (status == RA_OK)
        *out = store;
    else
        free_store(store);
    return status;
}

enum ra_status ra_store_open(struct ra_store **store, const char *path, enum ra_store_mode mode,
                             struct ra_error *err)
{
    return ra_store_open_schema(store, path, mode, ra_store_schema_current(), err);
}

enum ra_status ra_store_close(struct ra_store *store, struct ra_error *err)
{
    if (!store)
        return RA_OK;
    enum ra_status status = RA_OK;
    if (store->mode == RA_STORE_APPEND) {
        if (!store->lost_rows)
            status = ra_store_index_restore(store, err);
        else if (store->lacks_indexes)
            (void)!ra_store_index_make(store->db, store->path,
                                       NULL); /* else the next writer does */
        enum ra_status flushed = ra_store_flush(store, status == RA_OK ? err : NULL);
        status = status == RA_OK ? flushed : status;
        ra_store_sql_finalize(store);
        settle(store);
    }
    free_store(store);
    return status;
}

const char *ra_store_library(void)
{
    return sqlite3_libversion();
}
