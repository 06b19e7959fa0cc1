/* SPDX-License-Identifier: Apache-2.0 */
/* The walker finds where members begin and end; whether their text is JSON is jansson's to say. */
#include "traces/json_members.h"

#include <stdint.h>
#include <string.h>

#include "sim/base/json_memory.h"

struct cursor {
    const struct ra_json_walk *walk;
    struct ra_json_text text;
    size_t i;
    struct ra_error *err;
};

static enum ra_status fail(const struct cursor *c, const char *expected)
{
    size_t at = c->text.at + c->i;
    if (c->i >= c->text.n)
        return ra_fail(c->err, RA_EFORMAT, "%s: byte %zu: expected %s, got the end of the text",
                       c->walk->where, at, expected);
    return ra_fail(c->err, RA_EFORMAT, "%s: byte %zu: expected %s, got 0x%02x", c->walk->where, at,
                   expected, (unsigned)(unsigned char)c->text.bytes[c->i]);
}

static bool at_byte(const struct cursor *c, char byte)
{
    return c->i < c->text.n && c->text.bytes[c->i] == byte;
}

static bool at_blank(const struct cursor *c)
{
    return at_byte(c, ' ') || at_byte(c, '\t') || at_byte(c, '\n') || at_byte(c, '\r');
}

static void skip_blanks(struct cursor *c)
{
    while (at_blank(c))
        c->i++;
}

/* From the opening quote to after the closing one. */
static enum ra_status skip_string(struct cursor *c)
{
    for (c->i++; c->i < c->text.n; c->i++) {
        if (c->text.bytes[c->i] == '"') {
            c->i++;
            return RA_OK;
        }
        if (c->text.bytes[c->i] == '\\')
            c->i++;
    }
    c->i = c->text.n;
    return fail(c, "the closing quote of a string");
}

/* From the opening bracket to after the one that closes it. Kinds of brackets are not matched. */
static enum ra_status skip_nested(struct cursor *c, struct ra_json_text *value)
{
    int depth = c->walk->depth + 1;
    while (c->i < c->text.n) {
        char byte = c->text.bytes[c->i];
        if (byte == '"') {
            RA_TRY(skip_string(c));
            continue;
        }
        value->parts += byte == ',' || byte == ':' || byte == '{' || byte == '[';
        value->negative = value->negative || byte == '-';
        if ((byte == '{' || byte == '[') && ++depth > RA_JSON_MAX_DEPTH)
            return ra_fail(c->err, RA_EFORMAT, "%s: byte %zu: nested deeper than %d levels",
                           c->walk->where, c->text.at + c->i, RA_JSON_MAX_DEPTH);
        c->i++;
        if ((byte == '}' || byte == ']') && --depth == c->walk->depth + 1)
            return RA_OK;
    }
    return fail(c, "a closing bracket");
}

static enum ra_status skip_value(struct cursor *c, struct ra_json_text *value)
{
    size_t start = c->i;
    *value = (struct ra_json_text){.bytes = c->text.bytes + start, .at = c->text.at + start};
    if (at_byte(c, '"')) {
        RA_TRY(skip_string(c));
    } else if (at_byte(c, '{') || at_byte(c, '[')) {
        RA_TRY(skip_nested(c, value));
    } else {
        for (; c->i < c->text.n && !at_byte(c, ',') && !at_byte(c, '}') && !at_blank(c); c->i++)
            value->negative = value->negative || at_byte(c, '-');
        if (c->i == start)
            return fail(c, "a value");
    }
    value->n = c->i - start;
    return RA_OK;
}

static enum ra_status one_member(struct cursor *c)
{
    skip_blanks(c);
    if (!at_byte(c, '"'))
        return fail(c, "a quoted key");
    size_t start = c->i;
    RA_TRY(skip_string(c));
    struct ra_json_text key = {c->text.bytes + start, c->i - start, c->text.at + start, 0, false};
    skip_blanks(c);
    if (!at_byte(c, ':'))
        return fail(c, "':' after a key");
    c->i++;
    skip_blanks(c);
    struct ra_json_text value;
    RA_TRY(skip_value(c, &value));
    json_t *name;
    RA_TRY(ra_json_load(c->walk->where, key, &name, c->err));
    enum ra_status st = c->walk->member(c->walk->context, json_string_value(name), value, c->err);
    json_decref(name);
    return st;
}

enum ra_status ra_json_members(const struct ra_json_walk *walk, struct ra_json_text text,
                               size_t *end, struct ra_error *err)
{
    struct cursor c = {walk, text, 0, err};
    skip_blanks(&c);
    if (!at_byte(&c, '{'))
        return fail(&c, "'{'");
    c.i++;
    skip_blanks(&c);
    for (size_t n = 0; n > 0 || !at_byte(&c, '}'); n++) {
        if (n == walk->max_members)
            return ra_fail(err, RA_EFORMAT, "%s: more than %zu members", walk->where,
                           walk->max_members);
        RA_TRY(one_member(&c));
        skip_blanks(&c);
        if (at_byte(&c, '}'))
            break;
        if (!at_byte(&c, ','))
            return fail(&c, "',' or '}'");
        c.i++;
    }
    *end = c.i + 1;
    return RA_OK;
}

enum ra_status ra_json_load(const char *where, struct ra_json_text text, json_t **value,
                            struct ra_error *err)
{
    json_error_t error;
    *value = json_loadb(text.bytes, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (ra_json_starved()) {
        json_decref(*value);
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", where);
    }
    if (*value)
        return RA_OK;
    /* jansson cites the text it could not read; a control byte in it is replaced by ra_fail. */
    size_t position = error.position > 0 ? (size_t)error.position : 0;
    return ra_fail(err, RA_EFORMAT, "%s: byte %zu: %.160s", where, text.at + position, error.text);
}
