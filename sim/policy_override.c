/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of layers and heads, parsed, compared and written. */
#include "sim/policy_override.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LAYER = 4095, MAX_HEAD = 4095, MAX_VALUE = 1024 };

/* "3" or "0-3". */
static bool parse_range(struct ra_span text, int32_t most, int32_t *first, int32_t *last)
{
    struct ra_span rest = text, head;
    bool is_range = ra_span_cut(&rest, '-', &head);
    return ra_span_count(head, first) && ra_span_count(is_range ? rest : head, last) &&
           *first <= *last && *last <= most;
}

enum ra_status ra_override_parse(struct ra_override *entry, const char *policy,
                                 struct ra_span range, struct ra_error *err)
{
    struct ra_span heads = range, layers;
    bool has_heads = ra_span_cut(&heads, '.', &layers);
    const char *name = entry->param->name;
    entry->head = entry->last_head = RA_ALL_HEADS;
    if (!parse_range(layers, MAX_LAYER, &entry->first, &entry->last) ||
        (has_heads && !parse_range(heads, MAX_HEAD, &entry->head, &entry->last_head)))
        return ra_fail(
            err, RA_EUSAGE,
            "%s: %s@: expected layers like 2 or 0-3, or KV heads of them like 0-3.1, got "
            "'%.*s'",
            policy, name, RA_SPAN(range));
    if (entry->param->reach == RA_REACH_ALL)
        return ra_fail(err, RA_EUSAGE, "%s: %s is one for all layers, got %s@%.*s", policy, name,
                       name, RA_SPAN(range));
    if (has_heads && entry->param->reach != RA_REACH_HEAD)
        return ra_fail(err, RA_EUSAGE, "%s: %s is one for all KV heads of a layer, got %s@%.*s",
                       policy, name, name, RA_SPAN(range));
    return RA_OK;
}

bool ra_override_goes_before(const struct ra_override *a, const struct ra_override *b)
{
    if (a->param != b->param)
        return a->param < b->param;
    if ((a->head == RA_ALL_HEADS) != (b->head == RA_ALL_HEADS))
        return a->head == RA_ALL_HEADS;
    return a->first != b->first ? a->first < b->first : a->head <= b->head;
}

bool ra_override_same_value(const struct ra_param *param, const void *a, const void *b)
{
    char text_a[MAX_VALUE + 1], text_b[MAX_VALUE + 1];
    ra_param_format(param, a, text_a, sizeof text_a);
    ra_param_format(param, b, text_b, sizeof text_b);
    return strcmp(text_a, text_b) == 0;
}

bool ra_override_overlaps(const struct ra_override *a, const struct ra_override *b)
{
    return a->param == b->param && (a->head == RA_ALL_HEADS) == (b->head == RA_ALL_HEADS) &&
           a->first <= b->last && b->first <= a->last && a->head <= b->last_head &&
           b->head <= a->last_head;
}

bool ra_override_continues(const struct ra_override *a, const struct ra_override *b)
{
    bool same_heads = a->head == b->head && a->last_head == b->last_head;
    bool same_layers = a->first == b->first && a->last == b->last;
    return a->param == b->param && ra_override_same_value(a->param, a->params, b->params) &&
           ((same_heads && a->last + 1 == b->first) ||
            (same_layers && a->head != RA_ALL_HEADS && a->last_head + 1 == b->head));
}

static void write_range(struct ra_writer *out, char mark, int32_t first, int32_t last)
{
    ra_write(out, "%c%d", mark, first);
    if (first != last)
        ra_write(out, "-%d", last);
}

void ra_override_write(const struct ra_override *entry, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    write_range(&writer, '@', entry->first, entry->last);
    if (entry->head != RA_ALL_HEADS)
        write_range(&writer, '.', entry->head, entry->last_head);
}
