/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters from text and back. Numbers are scanned by hand before they are converted: strtod
 * alone would take blanks, hex, "inf" and "nan".
 */
#include "sim/base/params.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"

static size_t size_of(const struct ra_param *param)
{
    switch (param->type) {
    case RA_PARAM_INT:
    case RA_PARAM_CHOICE:
        return sizeof(int32_t);
    case RA_PARAM_REAL:
        return sizeof(double);
    case RA_PARAM_FRACTION:
        return sizeof(struct ra_fraction);
    case RA_PARAM_LIST:
        return sizeof(struct ra_int_list);
    }
    return 0;
}

static bool may_be_none(const struct ra_param *param)
{
    return param->fallback && strcmp(param->fallback, "none") == 0;
}

static bool parse_count(const struct ra_param *param, struct ra_span text, int32_t *value)
{
    bool negative = text.n > 0 && text.at[0] == '-';
    struct ra_span digits = {text.at + negative, text.n - negative};
    if (!ra_span_count(digits, value))
        return false;
    *value = negative ? -*value : *value;
    return *value >= param->min && *value <= param->max;
}

static bool parse_int(const struct ra_param *param, struct ra_span text, int32_t *value)
{
    if (may_be_none(param) && ra_span_is(text, "none")) {
        *value = RA_INT_NONE;
        return true;
    }
    return parse_count(param, text, value);
}

static size_t skip_digits(struct ra_span *text)
{
    size_t n = 0;
    while (n < text->n && text->at[n] >= '0' && text->at[n] <= '9')
        n++;
    *text = (struct ra_span){text->at + n, text->n - n};
    return n;
}

static bool skip_one(struct ra_span *text, const char *of)
{
    bool found = text->n > 0 && text->at[0] && strchr(of, text->at[0]);
    if (found)
        *text = (struct ra_span){text->at + 1, text->n - 1};
    return found;
}

/* [-]digits[.digits][e[-]digits]; no "+", which joins transformations to a policy. */
static bool is_decimal(struct ra_span text)
{
    skip_one(&text, "-");
    size_t digits = skip_digits(&text);
    if (skip_one(&text, "."))
        digits += skip_digits(&text);
    if (digits == 0)
        return false;
    if (skip_one(&text, "eE")) {
        skip_one(&text, "-");
        if (skip_digits(&text) == 0)
            return false;
    }
    return text.n == 0;
}

static bool parse_real(const struct ra_param *param, const char *text, double *value)
{
    if (may_be_none(param) && strcmp(text, "none") == 0) {
        *value = NAN;
        return true;
    }
    if (!is_decimal(ra_span_of(text)))
        return false;
    *value = strtod(text, NULL);
    if (*value == 0)
        *value = 0; /* "-0" has one spelling too */
    return isfinite(*value) && *value >= param->min && *value <= param->max;
}

static bool parse_choice(const struct ra_param *param, struct ra_span text, int32_t *value)
{
    struct ra_span rest = ra_span_of(param->choices), choice;
    bool more = true;
    for (int32_t i = 0; more; i++) {
        more = ra_span_cut(&rest, '|', &choice);
        if (choice.n == text.n && memcmp(choice.at, text.at, text.n) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

static bool parse_fraction(const struct ra_param *param, struct ra_span text,
                           struct ra_fraction *value)
{
    struct ra_span rest = text, head;
    if (!ra_span_cut(&rest, '/', &head)) {
        value->den = 0;
        return parse_count(param, text, &value->num);
    }
    if (!ra_span_count(head, &value->num) || !ra_span_count(rest, &value->den) || value->num < 1 ||
        value->den < 1)
        return false;
    int32_t a = value->num, b = value->den;
    while (b != 0) {
        int32_t remainder = a % b;
        a = b;
        b = remainder;
    }
    value->num /= a;
    value->den /= a;
    return true;
}

static bool parse_list(const struct ra_param *param, struct ra_span text, struct ra_int_list *list)
{
    memset(list, 0, sizeof *list);
    if (may_be_none(param) && ra_span_is(text, "none"))
        return true;
    struct ra_span entry;
    bool more = true;
    while (more) {
        int32_t n = list->n;
        more = ra_span_cut(&text, '/', &entry);
        bool is_word = param->choices && ra_span_is(entry, param->choices);
        if (n < RA_LIST_MAX && is_word)
            list->values[n] = RA_LIST_WORD;
        if (n == RA_LIST_MAX || (!is_word && !parse_count(param, entry, &list->values[n])) ||
            (n > 0 && list->values[n] <= list->values[n - 1]))
            return false;
        list->n++;
    }
    return true;
}

static void describe_range(struct ra_writer *out, const struct ra_param *param, const char *noun)
{
    bool above = param->min > -DBL_MAX, below = param->max < INT32_MAX;
    if (above && below)
        ra_write(out, "%s from %.15g to %.15g", noun, param->min, param->max);
    else if (above)
        ra_write(out, "%s of at least %.15g", noun, param->min);
    else
        ra_write(out, "%s", noun);
}

static void describe(struct ra_writer *out, const struct ra_param *param)
{
    switch (param->type) {
    case RA_PARAM_INT:
        describe_range(out, param, "a whole number");
        break;
    case RA_PARAM_REAL:
        describe_range(out, param, "a finite number");
        break;
    case RA_PARAM_CHOICE:
        for (const char *c = param->choices; *c; c++) {
            if (*c != '|')
                ra_write(out, "%c", *c);
            else
                ra_write(out, strchr(c + 1, '|') ? ", " : " or ");
        }
        break;
    case RA_PARAM_FRACTION:
        describe_range(out, param, "a whole number");
        ra_write(out, " or a share a/b of the prompt");
        break;
    case RA_PARAM_LIST:
        describe_range(out, param, "ascending whole numbers");
        ra_write(out, " joined with '/', at most %d of them", RA_LIST_MAX);
        if (param->choices)
            ra_write(out, ", or %s last", param->choices);
        break;
    }
    if (may_be_none(param) && param->type != RA_PARAM_CHOICE) /* whose choices say it */
        ra_write(out, " or none");
}

/* Empty when none is near. */
static struct ra_span nearest_choice(const struct ra_param *param, struct ra_span text)
{
    struct ra_span rest = ra_span_of(param->choices), choice, nearest = {NULL, 0};
    bool more = true;
    while (more) {
        more = ra_span_cut(&rest, '|', &choice);
        if (ra_text_is_near(text, choice) &&
            (!nearest.at || ra_text_distance(text, choice) < ra_text_distance(text, nearest)))
            nearest = choice;
    }
    return nearest;
}

enum ra_status ra_param_set(const struct ra_param *param, const char *text, void *out,
                            const char *where, struct ra_error *err)
{
    /* Parsed aside, so that a refused text leaves the caller's struct as it was. */
    union {
        int32_t count;
        double real;
        struct ra_fraction fraction;
        struct ra_int_list list;
    } value;
    struct ra_span span = ra_span_of(text);
    bool ok = false;
    switch (param->type) {
    case RA_PARAM_INT:
        ok = parse_int(param, span, &value.count);
        break;
    case RA_PARAM_REAL:
        ok = parse_real(param, text, &value.real);
        break;
    case RA_PARAM_CHOICE:
        ok = parse_choice(param, span, &value.count);
        break;
    case RA_PARAM_FRACTION:
        ok = parse_fraction(param, span, &value.fraction);
        break;
    case RA_PARAM_LIST:
        ok = parse_list(param, span, &value.list);
        break;
    }
    if (ok) {
        memcpy((char *)out + param->offset, &value, size_of(param));
        return RA_OK;
    }
    char expected[160], hint[64] = "";
    struct ra_writer writer = {expected, sizeof expected, 0}, hinter = {hint, sizeof hint, 0};
    describe(&writer, param);
    struct ra_span nearest = {NULL, 0};
    if (param->type == RA_PARAM_CHOICE)
        nearest = nearest_choice(param, span);
    if (nearest.n > 0)
        ra_write(&hinter, "; nearest is '%.*s'", RA_SPAN(nearest));
    return ra_fail(err, RA_EUSAGE, "%s%s%s: expected %s, got '%.*s'%s", where, *where ? " " : "",
                   param->name, expected, RA_SPAN(span), hint);
}

void ra_params_defaults(const struct ra_param *table, void *out)
{
    for (const struct ra_param *row = table; row && row->name; row++)
        RA_BUG_ON(row->fallback && ra_param_set(row, row->fallback, out, "", NULL) != RA_OK);
}

static void write_real(struct ra_writer *out, double value)
{
    char text[40] = "";
    int digits = 15;
    do {
        struct ra_writer writer = {text, sizeof text, 0};
        ra_write(&writer, "%.*g", digits, value);
    } while (strtod(text, NULL) != value && digits++ < 17);
    for (const char *c = text; *c; c++)
        if (*c != '+')
            ra_write(out, "%c", *c);
}

static void write_choice(struct ra_writer *out, const char *choices, int32_t index)
{
    struct ra_span rest = ra_span_of(choices), choice;
    do
        ra_span_cut(&rest, '|', &choice);
    while (index-- > 0);
    ra_write(out, "%.*s", RA_SPAN(choice));
}

int ra_param_format(const struct ra_param *param, const void *params, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    const void *field = (const char *)params + param->offset;
    const int32_t *count = field;
    const double *real = field;
    const struct ra_fraction *fraction = field;
    const struct ra_int_list *list = field;
    switch (param->type) {
    case RA_PARAM_INT:
        if (may_be_none(param) && *count == RA_INT_NONE)
            ra_write(&writer, "none");
        else
            ra_write(&writer, "%d", *count);
        break;
    case RA_PARAM_REAL:
        if (isnan(*real))
            ra_write(&writer, "none");
        else
            write_real(&writer, *real);
        break;
    case RA_PARAM_CHOICE:
        write_choice(&writer, param->choices, *count);
        break;
    case RA_PARAM_FRACTION:
        ra_write(&writer, fraction->den ? "%d/%d" : "%d", fraction->num, fraction->den);
        break;
    case RA_PARAM_LIST:
        if (list->n == 0)
            ra_write(&writer, "none");
        for (int32_t i = 0; i < list->n; i++) {
            ra_write(&writer, "%s", i ? "/" : "");
            if (param->choices && list->values[i] == RA_LIST_WORD)
                ra_write(&writer, "%s", param->choices);
            else
                ra_write(&writer, "%d", list->values[i]);
        }
        break;
    }
    return (int)writer.used;
}

int32_t ra_fraction_resolve(struct ra_fraction fraction, int32_t P)
{
    if (fraction.den == 0)
        return fraction.num;
    int64_t tokens = (int64_t)P * fraction.num / fraction.den;
    return tokens < 1 ? 1 : tokens > INT32_MAX ? INT32_MAX : (int32_t)tokens;
}

void ra_param_copy(const struct ra_param *param, const void *from, void *to)
{
    memcpy((char *)to + param->offset, (const char *)from + param->offset, size_of(param));
}

const struct ra_param *ra_params_find(const struct ra_param *table, const char *name)
{
    for (const struct ra_param *row = table; row && row->name; row++)
        if (strcmp(row->name, name) == 0)
            return row;
    return NULL;
}

enum ra_status ra_params_look_up(const struct ra_param *table, const char *owner,
                                 struct ra_span key, const struct ra_param **row,
                                 struct ra_error *err)
{
    size_t n = 0;
    for (; table && table[n].name; n++)
        if (ra_span_is(key, table[n].name)) {
            *row = &table[n];
            return RA_OK;
        }
    if (n == 0)
        return ra_fail(err, RA_EUSAGE, "%s: takes no parameters, got '%.*s'", owner, RA_SPAN(key));
    char hint[RA_HINT_MAX];
    return ra_fail(err, RA_EUSAGE, "%s: no parameter named '%.*s'; %s", owner, RA_SPAN(key),
                   ra_text_hint(key, table, n, sizeof *table, hint));
}
