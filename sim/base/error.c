/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of failures. Formatting never allocates, so that running out of memory can be told. */
#include "sim/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef ra_fail
#undef ra_fail_context

/* UTF-8 stays; what could move a cursor does not. */
static void clean(char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            *text = '?';
    }
}

static void finish(struct ra_error *err, enum ra_status code, int wanted)
{
    err->code = code;
    if (wanted < 0 || (size_t)wanted >= sizeof err->msg)
        memcpy(err->msg + sizeof err->msg - 4, "...", 4);
    clean(err->msg);
}

enum ra_status ra_fail(struct ra_error *err, enum ra_status code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        int wanted = vsnprintf(err->msg, sizeof err->msg, format, args);
        va_end(args);
        finish(err, code, wanted);
    }
    return code;
}

enum ra_status ra_fail_context(struct ra_error *err, enum ra_status code, const char *format, ...)
{
    if (err) {
        char inner[sizeof err->msg];
        memcpy(inner, err->msg, sizeof inner);
        va_list args;
        va_start(args, format);
        int wanted = vsnprintf(err->msg, sizeof err->msg, format, args);
        va_end(args);
        size_t used = strlen(err->msg);
        if (wanted >= 0)
            wanted += snprintf(err->msg + used, sizeof err->msg - used, ": %s", inner);
        finish(err, code, wanted);
    }
    return code;
}

const char *ra_status_name(enum ra_status status)
{
    switch (status) {
    case RA_OK:
        return "RA_OK";
    case RA_END:
        return "RA_END";
    case RA_EUSAGE:
        return "RA_EUSAGE";
    case RA_EIO:
        return "RA_EIO";
    case RA_EFORMAT:
        return "RA_EFORMAT";
    case RA_ERANGE:
        return "RA_ERANGE";
    case RA_ENOMEM:
        return "RA_ENOMEM";
    case RA_ENODEV:
        return "RA_ENODEV";
    case RA_EDEVICE:
        return "RA_EDEVICE";
    case RA_ESTORE:
        return "RA_ESTORE";
    case RA_EDIVERGED:
        return "RA_EDIVERGED";
    case RA_EINTERRUPTED:
        return "RA_EINTERRUPTED";
    case RA_EPERM:
        return "RA_EPERM";
    }
    return "unknown status";
}

void ra_bug(const char *file, int line, const char *condition)
{
    fprintf(stderr, "bug: %s:%d: %s\n", file, line, condition);
    abort();
}
