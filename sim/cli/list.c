/* SPDX-License-Identifier: Apache-2.0 */
/* Listings that come from the program itself and from this machine: policies, backends, devices. */
#include "sim/cli/list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "sim/base/json_memory.h"
#include "sim/base/text.h"
#include "sim/cli/host.h"
#include "sim/cli/wrap.h"
#include "sim/policy.h"

static enum ra_status append(json_t *rows, json_t *row, struct ra_error *err)
{
    if (!row || json_array_append_new(rows, row) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for a list");
    return RA_OK;
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text ? text : "";
}

/* --- policies ----------------------------------------------------------------------------------
 */

static const char *type_name(enum ra_param_type type)
{
    switch (type) {
    case RA_PARAM_INT:
        return "integer";
    case RA_PARAM_REAL:
        return "number";
    case RA_PARAM_CHOICE:
        return "choice";
    case RA_PARAM_FRACTION:
        return "count or fraction a/b of P";
    case RA_PARAM_LIST:
        return "list joined by /";
    }
    return "unknown";
}

static json_t *describe_param(const struct ra_param *param)
{
    json_t *row = json_pack("{s:s, s:s, s:s?}", "name", param->name, "type", type_name(param->type),
                            "default", param->fallback);
    if (param->choices)
        json_object_set_new(row, "choices", json_string(param->choices));
    if (param->type != RA_PARAM_CHOICE) {
        json_object_set_new(row, "min", json_real(param->min));
        json_object_set_new(row, "max", json_real(param->max));
    }
    json_object_set_new(row, "help", json_string(param->help));
    return row;
}

/* What the policy asks of a trace when its parameters have their defaults. */
static json_t *describe_needs(const struct ra_policy_ops *ops)
{
    static const char *const names[] = {"queries", "exact scores of every step", "acc",
                                        "queries of the prompt's end"};
    json_t *needs = json_array();
    void *params = ops->params_size ? calloc(1, ops->params_size) : NULL;
    if (ops->params_size && !params) {
        ra_json_lack();
        return needs;
    }
    if (params)
        ra_params_defaults(ops->params, params);
    unsigned bits = ops->needs ? ops->needs(params) : 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (bits >> i & 1)
            json_array_append_new(needs, json_string(names[i]));
    free(params);
    return needs;
}

static json_t *describe_params(const struct ra_param *table)
{
    json_t *params = json_array();
    for (const struct ra_param *param = table; param && param->name; param++)
        json_array_append_new(params, describe_param(param));
    return params;
}

/* Transformations after the policies, their names with the '+' by which they follow one. */
static enum ra_status list_transforms(json_t *rows, struct ra_error *err)
{
    for (size_t i = 0; ra_transforms[i]; i++) {
        const struct ra_transform_ops *ops = ra_transforms[i];
        json_t *needs = json_array();
        if (ops->unrotates)
            json_array_append_new(needs, json_string("rope"));
        RA_TRY(
            append(rows,
                   json_pack("{s:s+, s:s, s:s, s:s*, s:o, s:o}", "name", "+", ops->name, "summary",
                             ops->summary, "source", ops->source, "deviations", ops->deviations,
                             "needs", needs, "parameters", describe_params(ops->params)),
                   err));
    }
    return RA_OK;
}

enum ra_status ra_list_policies(json_t *rows, const char *db, struct ra_error *err)
{
    (void)db;
    for (size_t i = 0; ra_policies[i]; i++) {
        const struct ra_policy_ops *ops = ra_policies[i];
        RA_TRY(append(rows,
                      json_pack("{s:s, s:s, s:s, s:s*, s:o, s:o}", "name", ops->name, "summary",
                                ops->summary, "source", ops->source, "deviations", ops->deviations,
                                "needs", describe_needs(ops), "parameters",
                                describe_params(ops->params)),
                      err));
    }
    return list_transforms(rows, err);
}

void ra_list_range(const char *choices, double min, double max, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    if (choices && min >= max) {
        ra_write(&writer, "%s", choices);
        return;
    }
    if (max >= INT32_MAX - 1)
        ra_write(&writer, min < -INT32_MAX ? "any" : "%.0f or more", min);
    else
        ra_write(&writer, "%g..%g", min, max);
    if (choices)
        ra_write(&writer, ", %s", choices);
}

static void range_of(const json_t *param, char *out, size_t size)
{
    ra_list_range(json_string_value(json_object_get(param, "choices")),
                  json_number_value(json_object_get(param, "min")),
                  json_number_value(json_object_get(param, "max")), out, size);
}

/* Widths of the columns of parameters, for all policies alike. */
struct param_widths {
    int name, range;
};

static int wider(int width, const char *text)
{
    int n = (int)strlen(text);
    return n > width ? n : width;
}

static struct param_widths widths_of(const json_t *rows)
{
    struct param_widths widths = {0, 0};
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *params = json_object_get(json_array_get(rows, i), "parameters");
        for (size_t j = 0; j < json_array_size(params); j++) {
            char range[96];
            range_of(json_array_get(params, j), range, sizeof range);
            widths.name = wider(widths.name, text_of(json_array_get(params, j), "name"));
            widths.range = wider(widths.range, range);
        }
    }
    return widths;
}

static void print_param(const json_t *param, struct param_widths widths)
{
    const char *fallback = json_string_value(json_object_get(param, "default"));
    char range[96];
    range_of(param, range, sizeof range);
    int column = printf("    %-*s %-*s ", widths.name, text_of(param, "name"), widths.range, range);
    char help[256];
    snprintf(help, sizeof help, "%s (%s)", text_of(param, "help"),
             fallback ? fallback : "required");
    ra_put_wrapped(column, column, help);
}

void ra_list_print_policies(const json_t *rows, int verbosity)
{
    struct param_widths widths = widths_of(rows);
    int width = 0;
    for (size_t i = 0; i < json_array_size(rows); i++)
        width = wider(width, text_of(json_array_get(rows, i), "name"));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        int column = printf("%-*s ", width, text_of(row, "name"));
        ra_put_wrapped(column, column, text_of(row, "summary"));
        if (verbosity == 0)
            continue;
        fputs("    source:  ", stdout);
        ra_put_wrapped(13, 13, text_of(row, "source"));
        if (json_is_string(json_object_get(row, "deviations"))) {
            fputs("    differs: ", stdout);
            ra_put_wrapped(13, 13, text_of(row, "deviations"));
        }
        fputs("    needs:   ", stdout);
        const json_t *needs = json_object_get(row, "needs"),
                     *params = json_object_get(row, "parameters");
        for (size_t j = 0; j < json_array_size(needs); j++)
            printf("%s%s", j ? ", " : "", json_string_value(json_array_get(needs, j)));
        puts(json_array_size(needs) ? "" : "nothing beyond k, v, q");
        for (size_t j = 0; j < json_array_size(params); j++)
            print_param(json_array_get(params, j), widths);
        putchar('\n');
    }
}

/* --- backends and devices ----------------------------------------------------------------------
 */

static enum ra_status append_backend(json_t *rows, const struct ra_backend_ops *ops,
                                     struct ra_error *err)
{
    struct ra_error why = {RA_OK, ""};
    char device[128] = "";
    bool is_there = ops->probe(&why) == RA_OK;
    if (is_there && ops->device)
        ops->device(device, sizeof device);
    return append(rows,
                  json_pack("{s:s, s:s, s:b, s:s?, s:s?, s:b, s:b}", "name", ops->name, "summary",
                            ops->summary, "available", is_there, "device", *device ? device : NULL,
                            "reason", is_there ? NULL : why.msg, "exact",
                            (ops->caps & RA_CAP_EXACT) != 0, "timed", ops->method != NULL),
                  err);
}

enum ra_status ra_list_backends(json_t *rows, const char *db, struct ra_error *err)
{
    (void)db;
    const struct ra_backend_ops *cuda = NULL;
    struct ra_error why = {RA_OK, ""};
    for (size_t i = 0; ra_backends[i]; i++)
        RA_TRY(append_backend(rows, ra_backends[i], err));
    if (ra_backend_find("cuda"))
        return RA_OK;
    if (ra_backend_load("cuda", &cuda, &why) == RA_OK)
        return append_backend(rows, cuda, err);
    return append(rows,
                  json_pack("{s:s, s:s, s:b, s:n, s:s, s:b, s:b}", "name", "cuda", "summary",
                            "one NVIDIA GPU; D = Dv of 64, 128 or 256", "available", 0, "device",
                            "reason", why.msg, "exact", 1, "timed", 1),
                  err);
}

void ra_list_print_backends(const json_t *rows, int verbosity)
{
    (void)verbosity;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        bool is_there = json_is_true(json_object_get(row, "available"));
        const char *device = text_of(row, "device");
        int column =
            printf("%-6s %-12s ", text_of(row, "name"), is_there ? "available" : "unavailable");
        ra_put_wrapped(column, column, text_of(row, "summary"));
        if (is_there && !*device)
            continue;
        printf("%*s", column, "");
        ra_put_wrapped(column, column, is_there ? device : text_of(row, "reason"));
    }
}

enum ra_status ra_list_devices(json_t *rows, const char *db, struct ra_error *err)
{
    (void)db;
    struct ra_host host;
    ra_host_describe(&host);
    json_t *row = json_pack(
        "{s:s, s:s, s:i, s:I, s:o}", "name", "cpu", "model", host.cpu, "processors", host.n_cpus,
        "memory_bytes", (json_int_t)host.memory_bytes, "last_level_cache_bytes",
        host.llc_bytes ? json_integer((json_int_t)host.llc_bytes) : json_null());
    return append(rows, row, err);
}

void ra_list_print_devices(const json_t *rows, int verbosity)
{
    (void)verbosity;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        double cache = json_number_value(json_object_get(row, "last_level_cache_bytes"));
        char text[256];
        struct ra_writer writer = {text, sizeof text, 0};
        ra_write(&writer, "%s, %" JSON_INTEGER_FORMAT " processors, %.1f GiB memory",
                 text_of(row, "model"), json_integer_value(json_object_get(row, "processors")),
                 json_number_value(json_object_get(row, "memory_bytes")) / 0x1p30);
        if (cache > 0)
            ra_write(&writer, ", %.1f MiB last-level cache", cache / 0x1p20);
        ra_put_wrapped(printf("%-6s ", text_of(row, "name")), 7, text);
    }
}
