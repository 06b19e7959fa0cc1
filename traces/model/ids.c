/* SPDX-License-Identifier: Apache-2.0 */
/* One text. */
#include "traces/model/ids.h"

#include <stdlib.h>

#include "traces/model/ids_file.h"

static enum ra_status read_ids(struct ra_ids *ids, const struct ra_shards *file, int vocab,
                               struct ra_error *err)
{
    struct ra_ids_shape shape = {RA_ST_I32, 1, {0}};
    void *tokens;
    RA_TRY(ra_ids_file_tensor(file, "tokens", true, &shape, &tokens, err));
    ids->tokens = tokens;
    ids->n = (size_t)shape.length[0];
    RA_TRY(ra_ids_file_range(file, "tokens", ids->tokens, ids->n, 0, vocab - 1, err));
    RA_TRY(ra_ids_file_text(file, "source", false, &ids->source, err));
    RA_TRY(ra_ids_file_text(file, "source_sha256", false, &ids->source_sha256, err));
    RA_TRY(ra_ids_file_text(file, "license", false, &ids->license, err));
    return ra_ids_file_text(file, "tokenizer.sha256", false, &ids->tokenizer_sha256, err);
}

enum ra_status ra_ids_open(struct ra_ids **ids, const char *path, int vocab, struct ra_error *err)
{
    *ids = NULL;
    struct ra_shards *file = NULL;
    RA_TRY(ra_ids_file_open(&file, path, "rattn-tokens", err));
    struct ra_ids *opened = calloc(1, sizeof *opened);
    enum ra_status st = opened ? read_ids(opened, file, vocab, err)
                               : ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    ra_shards_close(file);
    if (st == RA_OK)
        *ids = opened;
    else
        ra_ids_close(opened);
    return st;
}

void ra_ids_close(struct ra_ids *ids)
{
    if (!ids)
        return;
    free(ids->tokens);
    free(ids->source);
    free(ids->source_sha256);
    free(ids->license);
    free(ids->tokenizer_sha256);
    free(ids);
}
