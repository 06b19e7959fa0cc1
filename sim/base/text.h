/* SPDX-License-Identifier: Apache-2.0 */
/* Spans of a text that is being taken apart, appending to a bounded buffer, and near names. */
#ifndef RA_SIM_BASE_TEXT_H
#define RA_SIM_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of a longer text, not terminated. Borrowed. For messages: "%.*s" with RA_SPAN(span),
 * which shows at most 64 characters. */
struct ra_span {
    const char *at;
    size_t n;
};
#define RA_SPAN(span) (int)((span).n < 64 ? (span).n : 64), (span).at

struct ra_span ra_span_of(const char *text);

/* Take what stands before the first `separator` off the front of `rest`, and the separator with it;
 * false, and all of `rest`, when there is none. */
bool ra_span_cut(struct ra_span *rest, char separator, struct ra_span *head);

bool ra_span_is(struct ra_span span, const char *text);

/* Decimal digits and nothing else, at most INT32_MAX. */
bool ra_span_count(struct ra_span span, int32_t *value);

/* Text that grows in the caller's buffer. `used` counts the characters wanted, terminator not
 * included: the text was cut if used >= size, as with snprintf. */
struct ra_writer {
    char *out;
    size_t size, used;
};
void ra_write(struct ra_writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Bytes of the UTF-8 character at `text`; 0 when it is a control, no UTF-8, or none that XML
 * allows. */
size_t ra_text_character(const char *text);

/* Edits (insert, drop, replace, swap neighbours) from one word to the other; of words longer than
 * 64 characters the first 64 count. */
int ra_text_distance(struct ra_span a, struct ra_span b);

/* Whether `name` may be what was meant by `word`: a third of the longer of them edited at most and
 * something in common, or begun alike and left off after two characters or more. */
bool ra_text_is_near(struct ra_span word, struct ra_span name);

/* The nearest of n names, the first of equals; NULL when none is near. names[i * stride] is looked
 * at through `stride` bytes, so that a table of structs serves, its name being the first field. */
const char *ra_text_nearest(struct ra_span word, const void *names, size_t n, size_t stride);

/* The end of a message about an unknown word: "nearest is 'replay'", or "known are record, replay"
 * when none is near. Names as in ra_text_nearest; returns `out`. */
enum { RA_HINT_MAX = 192 };
const char *ra_text_hint(struct ra_span word, const void *names, size_t n, size_t stride,
                         char out[RA_HINT_MAX]);

#ifdef __cplusplus
}
#endif

#endif
