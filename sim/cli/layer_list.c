/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/layer_list.h"

#include <errno.h>
#include <stdlib.h>

enum ra_status ra_layer_number(const char **at, int *value)
{
    char *end = NULL;
    errno = 0;
    long number = **at >= '0' && **at <= '9' ? strtol(*at, &end, 10) : -1;
    if (number < 0 || number > 4095 || errno)
        return RA_EUSAGE;
    *value = (int)number;
    *at = end;
    return RA_OK;
}

enum ra_status ra_layer_list(const char *text, int *layers, int *n, struct ra_error *err)
{
    const char *at = text;
    for (*n = 0;;) {
        int first = 0, last;
        enum ra_status st = ra_layer_number(&at, &first);
        last = first;
        if (st == RA_OK && *at == '-') {
            at++;
            st = ra_layer_number(&at, &last);
        }
        if (st != RA_OK || last < first || (*at != ',' && *at != '\0'))
            return ra_fail(err, RA_EUSAGE,
                           "--layers: expected numbers and ranges like 0,9,20-29, got '%s'", text);
        for (int l = first; l <= last; l++) {
            if (*n == RA_LAYER_LIST_MAX)
                return ra_fail(err, RA_EUSAGE, "--layers: more than %d layers", *n);
            layers[(*n)++] = l;
        }
        if (*at++ == '\0')
            return RA_OK;
    }
}
