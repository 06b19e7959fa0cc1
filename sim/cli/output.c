/* SPDX-License-Identifier: Apache-2.0 */
/* Text and JSON on stdout. Whether they arrived is checked once, when the program ends. */
#include "sim/cli/output.h"

#include <math.h>
#include <stdio.h>

void ra_put_safe(const char *text)
{
    for (text = text ? text : "-"; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

json_t *ra_json_text(const char *text)
{
    if (!text)
        return json_null();
    json_t *value = json_string(text);
    char ascii[1024];
    size_t n = 0;
    for (; !value && text[n] && n < sizeof ascii; n++)
        ascii[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
    return value ? value : json_stringn(ascii, n);
}

json_t *ra_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

enum ra_status ra_put_json(const json_t *value, struct ra_error *err)
{
    if (json_dumpf(value, stdout, JSON_INDENT(2)) != 0 && !ferror(stdout))
        return ra_fail(err, RA_ENOMEM, "no memory to write JSON");
    putchar('\n');
    return RA_OK;
}
