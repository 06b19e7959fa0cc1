/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of text. Nothing here allocates, so that it can serve messages about failures. */
#include "sim/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct ra_span ra_span_of(const char *text)
{
    return (struct ra_span){text, strlen(text)};
}

bool ra_span_cut(struct ra_span *rest, char separator, struct ra_span *head)
{
    const char *found = rest->n ? memchr(rest->at, separator, rest->n) : NULL;
    size_t n = found ? (size_t)(found - rest->at) : rest->n;
    *head = (struct ra_span){rest->at, n};
    rest->at += n + (found != NULL);
    rest->n -= n + (found != NULL);
    return found != NULL;
}

bool ra_span_is(struct ra_span span, const char *text)
{
    return strlen(text) == span.n && memcmp(span.at, text, span.n) == 0;
}

bool ra_span_count(struct ra_span span, int32_t *value)
{
    int64_t sum = 0;
    for (size_t i = 0; i < span.n; i++) {
        if (span.at[i] < '0' || span.at[i] > '9')
            return false;
        sum = 10 * sum + (span.at[i] - '0');
        if (sum > INT32_MAX)
            return false;
    }
    *value = (int32_t)sum;
    return span.n > 0;
}

void ra_write(struct ra_writer *writer, const char *format, ...)
{
    size_t at = writer->used < writer->size ? writer->used : writer->size;
    char *to = writer->out ? writer->out + at : NULL;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(to, writer->size - at, format, args);
    va_end(args);
    writer->used += wanted > 0 ? (size_t)wanted : 0;
}

enum { LONGEST = 64 };

static int smallest(int a, int b, int c)
{
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

size_t ra_text_character(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    if (*c < 0x80)
        return *c >= ' ' && *c != 0x7f;
    size_t n = *c >= 0xf0 ? 4 : *c >= 0xe0 ? 3 : 2;
    unsigned long code = *c & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (c[i] & 0x3f);
    }
    static const unsigned long least[] = {0, 0, 0xa0, 0x800, 0x10000};
    if (*c > 0xf4 || *c < 0xc0 || code < least[n] || code > 0x10ffff ||
        (code >= 0xd800 && code < 0xe000) || (code & 0xfffe) == 0xfffe)
        return 0;
    return n;
}

int ra_text_distance(struct ra_span a, struct ra_span b)
{
    /* Three rows of the table of distances between prefixes: two before the last, the last, this.
     */
    int rows[3][LONGEST + 1];
    int n_a = (int)(a.n < LONGEST ? a.n : LONGEST), n_b = (int)(b.n < LONGEST ? b.n : LONGEST);
    int *before = rows[0], *last = rows[1], *row = rows[2];
    for (int j = 0; j <= n_b; j++)
        last[j] = j;
    for (int i = 1; i <= n_a; i++) {
        row[0] = i;
        for (int j = 1; j <= n_b; j++) {
            int replaced = last[j - 1] + (a.at[i - 1] != b.at[j - 1]);
            row[j] = smallest(last[j] + 1, row[j - 1] + 1, replaced);
            bool swapped =
                i > 1 && j > 1 && a.at[i - 1] == b.at[j - 2] && a.at[i - 2] == b.at[j - 1];
            if (swapped && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        int *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[n_b];
}

bool ra_text_is_near(struct ra_span word, struct ra_span name)
{
    int distance = ra_text_distance(word, name);
    int longer = (int)(word.n > name.n ? word.n : name.n);
    if (word.n >= 2 && word.n < name.n && memcmp(word.at, name.at, word.n) == 0)
        return true;
    return distance < longer && distance <= (longer + 2) / 3;
}

static const char *name_at(const void *names, size_t i, size_t stride)
{
    const char *name;
    memcpy(&name, (const char *)names + i * stride, sizeof name);
    return name;
}

const char *ra_text_nearest(struct ra_span word, const void *names, size_t n, size_t stride)
{
    const char *nearest = NULL;
    int best = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = name_at(names, i, stride);
        int distance = ra_text_distance(word, ra_span_of(name));
        if (ra_text_is_near(word, ra_span_of(name)) && (!nearest || distance < best)) {
            nearest = name;
            best = distance;
        }
    }
    return nearest;
}

const char *ra_text_hint(struct ra_span word, const void *names, size_t n, size_t stride,
                         char out[RA_HINT_MAX])
{
    struct ra_writer writer = {out, RA_HINT_MAX, 0};
    const char *nearest = ra_text_nearest(word, names, n, stride);
    if (nearest) {
        ra_write(&writer, "nearest is '%s'", nearest);
        return out;
    }
    ra_write(&writer, "known are");
    for (size_t i = 0; i < n; i++)
        ra_write(&writer, "%s %s", i ? "," : "", name_at(names, i, stride));
    return out;
}
