/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results as CSV. A first walk over all objects collects the columns, a second one prints the
 * fields in that order; a name that is null in one object and nested in another is nested.
 */
#include "sim/report.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"

/* Deeper members do not exist in results; a foreign file may have them. */
enum { MAX_DEPTH = 6, MAX_NAME = 256, MAX_COLUMNS = 1024 };

struct columns {
    char **names;
    size_t n;
};

static bool has_column(const struct columns *columns, const char *name)
{
    for (size_t i = 0; i < columns->n; i++)
        if (strcmp(columns->names[i], name) == 0)
            return true;
    return false;
}

static enum ra_status collect(struct columns *columns, const char *prefix, json_t *object,
                              int depth, struct ra_error *err)
{
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        json_t *value = json_object_iter_value(at);
        char name[MAX_NAME];
        int n = snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "",
                         json_object_iter_key(at));
        if (n >= MAX_NAME || depth >= MAX_DEPTH)
            return ra_fail(err, RA_EFORMAT, "result: member \"%.40s...\" is nested too deep", name);
        if (json_is_object(value)) {
            RA_TRY(collect(columns, name, value, depth + 1, err));
            continue;
        }
        if (has_column(columns, name))
            continue;
        if (columns->n == MAX_COLUMNS)
            return ra_fail(err, RA_EFORMAT, "result: more than %d members", MAX_COLUMNS);
        columns->names[columns->n] = strdup(name);
        if (!columns->names[columns->n])
            return ra_fail(err, RA_ENOMEM, "no memory for column names");
        columns->n++;
    }
    return RA_OK;
}

static bool is_parent(const struct columns *columns, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < columns->n; i++)
        if (strncmp(columns->names[i], name, length) == 0 && columns->names[i][length] == '.')
            return true;
    return false;
}

/* Drop names that are also the beginning of nested ones. */
static void drop_parents(struct columns *columns)
{
    size_t i = 0;
    while (i < columns->n) {
        char *name = columns->names[i];
        if (!is_parent(columns, name)) {
            i++;
            continue;
        }
        columns->n--;
        memmove(columns->names + i, columns->names + i + 1,
                (columns->n - i) * sizeof *columns->names);
        free(name);
    }
}

void ra_report_csv_field(FILE *out, const char *text)
{
    if (!text)
        return;
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void put_scalar(FILE *out, const json_t *value)
{
    if (json_is_string(value))
        ra_report_csv_field(out, json_string_value(value));
    else if (json_is_integer(value))
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        fprintf(out, "%.17g", json_real_value(value));
    else if (json_is_boolean(value))
        fputs(json_is_true(value) ? "true" : "false", out);
}

static void put_field(FILE *out, const json_t *value)
{
    if (!json_is_array(value)) {
        put_scalar(out, value);
        return;
    }
    if (json_is_object(json_array_get(value, 0))) {
        char *text = ra_json_dump(value, JSON_COMPACT);
        ra_report_csv_field(out, text ? text : "");
        free(text);
        return;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        json_t *entry = json_array_get(value, i);
        if (i > 0)
            fputc('/', out);
        put_scalar(out, entry);
    }
}

/* The member that a dotted name stands for. Keys of results have no dots of their own. */
static const json_t *member(const json_t *object, const char *name)
{
    char key[MAX_NAME];
    while (object) {
        size_t n = strcspn(name, ".");
        memcpy(key, name, n);
        key[n] = 0;
        object = json_object_get(object, key);
        if (!name[n])
            break;
        name += n + 1;
    }
    return object;
}

enum ra_status ra_report_csv(FILE *out, const json_t *results, struct ra_error *err)
{
    struct columns columns = {calloc(MAX_COLUMNS, sizeof(char *)), 0};
    if (!columns.names)
        return ra_fail(err, RA_ENOMEM, "no memory for column names");
    enum ra_status status = RA_OK;
    for (size_t i = 0; i < json_array_size(results); i++) {
        json_t *object = json_array_get(results, i);
        status = collect(&columns, "", object, 0, err);
        if (status != RA_OK)
            goto out;
    }
    drop_parents(&columns);
    for (size_t c = 0; c < columns.n; c++) {
        fputs(c ? "," : "", out);
        ra_report_csv_field(out, columns.names[c]);
    }
    if (columns.n > 0)
        fputs("\n", out);
    for (size_t i = 0; i < json_array_size(results); i++) {
        json_t *object = json_array_get(results, i);
        for (size_t c = 0; c < columns.n; c++) {
            fputs(c ? "," : "", out);
            put_field(out, member(object, columns.names[c]));
        }
        fputs("\n", out);
    }
out:
    for (size_t c = 0; c < columns.n; c++)
        free(columns.names[c]);
    free(columns.names);
    return status;
}
