/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table with one place a hash: a name that comes takes the place of another, so it stays as small
 * as it is, whatever a program calls its kernels, and names in use find their way back at once.
 */
#include "profiler/store_names.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/store_row.h"

enum { PLACES = 1024 }; /* a power of two */

struct ra_store_names {
    struct {
        char *name; /* NULL: free */
        int64_t id;
    } at[PLACES];
};

/* FNV-1a; *length is that of the name. */
static uint64_t hash(const char *name, size_t *length)
{
    uint64_t h = UINT64_C(14695981039346656037);
    const char *c = name;
    for (; *c; c++)
        h = (h ^ (unsigned char)*c) * UINT64_C(1099511628211);
    *length = (size_t)(c - name);
    return h ^ h >> 32;
}

static enum ra_status find_or_add(struct ra_store *store, const char *name, int64_t *id,
                                  struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_STRING_FIND, &row, err));
    ra_row_text(&row, name);
    RA_TRY(ra_row_find(&row, id, err));
    if (*id != 0)
        return RA_OK;
    RA_TRY(ra_row_begin(store, RA_SQL_STRING_ADD, &row, err));
    ra_row_text(&row, name);
    return ra_row_add(&row, id, err);
}

enum ra_status ra_store_name(struct ra_store *store, const char *name, int64_t *id,
                             struct ra_error *err)
{
    size_t length;
    uint64_t place = hash(name, &length) & (PLACES - 1);
    if (!store->names)
        store->names = calloc(1, sizeof *store->names);
    if (!store->names)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for names", store->path);
    const char *kept = store->names->at[place].name;
    if (kept && strcmp(kept, name) == 0) {
        *id = store->names->at[place].id;
        return RA_OK;
    }
    RA_TRY(find_or_add(store, name, id, err));
    char *copy = malloc(length + 1);
    if (!copy)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for names", store->path);
    memcpy(copy, name, length + 1);
    free(store->names->at[place].name);
    store->names->at[place].name = copy;
    store->names->at[place].id = *id;
    return RA_OK;
}

void ra_store_names_clear(struct ra_store *store)
{
    for (int i = 0; store->names && i < PLACES; i++)
        free(store->names->at[i].name);
    free(store->names);
    store->names = NULL;
}
