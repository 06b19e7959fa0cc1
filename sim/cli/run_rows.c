/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/run_rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "sim/base/json_memory.h"

enum ra_status ra_run_invocation(char uuid[37], struct ra_error *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return ra_fail(err, RA_EIO, "random numbers: %s", strerror(errno));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (int i = 0, at = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            uuid[at++] = '-';
        at += snprintf(uuid + at, 37 - (size_t)at, "%02x", b[i]);
    }
    return RA_OK;
}

char *ra_run_argv(const struct ra_cli *cli)
{
    json_t *list = json_array();
    for (int i = 0; i < cli->argc; i++) {
        json_t *word = json_string(cli->argv[i]);
        json_array_append_new(list, word ? word : json_string("(not UTF-8)"));
    }
    char *text = ra_json_dump(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

char *ra_run_params(const char *canonical)
{
    json_t *object = json_object();
    const char *plus = strchr(canonical, '+'), *at = strchr(canonical, ':');
    at = plus && at > plus ? NULL : at;
    while (at && *at) {
        char key[64], value[1024];
        int used = 0;
        if (sscanf(at + 1, "%63[^=]=%1023[^,+]%n", key, value, &used) != 2)
            break;
        json_object_set_new(object, key, json_string(value));
        at += 1 + used;
        at = *at == ',' ? at : NULL;
    }
    if (plus)
        json_object_set_new(object, "transformation", json_string(plus + 1));
    char *text = ra_json_dump(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

json_t *ra_run_folder(void)
{
    char folder[4096];
    return getcwd(folder, sizeof folder) ? json_string(folder) : json_null();
}

enum ra_status ra_run_end(struct ra_store *store, const struct ra_run_ending *ending,
                          enum ra_status outcome, struct ra_error *err)
{
    enum ra_run_state state = outcome == RA_OK             ? RA_RUN_COMPLETE
                              : outcome == RA_EINTERRUPTED ? RA_RUN_ABORTED
                                                           : RA_RUN_FAILED;
    const json_t *result = ending->result;
    char *text = result ? ra_json_dump(result, JSON_COMPACT) : NULL;
    if (result && !text) {
        outcome = ra_fail(err, RA_ENOMEM, "%s: no memory for the result of run %" PRId64,
                          ending->db, ending->run_id);
        state = RA_RUN_FAILED;
        result = NULL;
    }
    if (outcome != RA_OK && err)
        (void)!ra_store_diagnostic(store, ending->run_id, "error", ending->source, err->msg, NULL);
    enum ra_status st =
        ra_store_run_end(store, ending->run_id, state, result ? ending->fingerprint : NULL,
                         result ? ending->output_hash : NULL, text, outcome == RA_OK ? err : NULL);
    free(text);
    return outcome == RA_OK ? st : outcome;
}
