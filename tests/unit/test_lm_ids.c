/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of token ids: what is in them comes back, and whatever contradicts itself or the vocabulary
 * is refused with its place. Each table row changes one thing of a file that opens.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"
#include "traces/model/ids.h"
#include "traces/safetensors.h"

enum { VOCAB = 50, MAX_VALUES = 40 };

/* --- files that are made up ------------------------------------------------------------------- */

struct tensor {
    const char *name; /* NULL: not written */
    enum ra_st_dtype dtype;
    int rank;
    uint64_t shape[2];
    int64_t values[MAX_VALUES];
};

/* Prompts of 5, 3 and 6 tokens with P of 2, 1 and 4; four tokens are judged. */
enum { TOKENS, LENGTHS, PROMPT_LEN, SEED, DEPTH, PROBE, CANDIDATES, N_TENSORS };
static const struct tensor prompts_tensors[N_TENSORS] = {
    [TOKENS] =
        {"tokens", RA_ST_I32, 1, {14}, {10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32, 33, 34, 35}},
    [LENGTHS] = {"lengths", RA_ST_I32, 1, {3}, {5, 3, 6}},
    [PROMPT_LEN] = {"prompt_len", RA_ST_I32, 1, {3}, {2, 1, 4}},
    [SEED] = {"seed", RA_ST_I64, 1, {3}, {7, -1, 9000000000}},
    [DEPTH] = {"depth", RA_ST_F32, 1, {3}, {0x3e800000, 0x7fc00000, 0x3f800000}},
    [PROBE] = {"probe", RA_ST_I32, 2, {4, 2}, {0, 2, 0, 4, 1, 2, 2, 4}},
    [CANDIDATES] = {"candidates", RA_ST_I32, 2, {4, 3}, {1, 2, 3, 4, -1, -1, -1, -1, -1, 5, -1, 6}},
};
static const char *const prompts_metadata[][2] = {
    {"format", "rattn-prompts"}, {"version", "1.0"}, {"task", "niah:len=8"}, {"family", "niah"},
    {"tokenizer.sha256", "t"},   {"source", "s"},    {"source_sha256", "d"}, {"license", "l"},
};
enum { N_METADATA = sizeof prompts_metadata / sizeof prompts_metadata[0] };

static struct {
    struct tensor tensors[N_TENSORS];
    const char *metadata[N_METADATA][2];
} made;

static void make_prompts(void)
{
    memcpy(made.tensors, prompts_tensors, sizeof made.tensors);
    memcpy(made.metadata, prompts_metadata, sizeof made.metadata);
}

static void make_ids(void)
{
    make_prompts();
    for (int i = TOKENS + 1; i < N_TENSORS; i++)
        made.tensors[i].name = NULL;
    made.metadata[0][1] = "rattn-tokens";
}

static void put(struct ra_st_writer *writer, size_t index, const struct tensor *t)
{
    struct ra_error err;
    size_t n = 1, width = ra_st_dtype_bytes(t->dtype);
    for (int d = 0; d < t->rank; d++)
        n *= t->shape[d];
    for (size_t i = 0; i < n; i++)
        ra_assert_ok(ra_st_writer_put(writer, index, i * width, &t->values[i], width, &err));
}

static const char *write_made(void)
{
    struct ra_error err;
    struct ra_st_writer *writer;
    size_t index[N_TENSORS];
    const char *path = tmp_path(tmp_dir, "ids.safetensors");
    ra_assert_ok(ra_st_writer_open(&writer, path, &err));
    for (int i = 0; i < N_METADATA; i++)
        if (made.metadata[i][1])
            ra_assert_ok(
                ra_st_writer_metadata(writer, made.metadata[i][0], made.metadata[i][1], &err));
    for (int i = 0; i < N_TENSORS; i++) {
        const struct tensor *t = &made.tensors[i];
        if (t->name)
            ra_assert_ok(
                ra_st_writer_tensor(writer, t->name, t->dtype, t->rank, t->shape, &index[i], &err));
    }
    ra_assert_ok(ra_st_writer_begin(writer, &err));
    for (int i = 0; i < N_TENSORS; i++)
        if (made.tensors[i].name)
            put(writer, index[i], &made.tensors[i]);
    ra_assert_ok(ra_st_writer_commit(writer, &err));
    ra_st_writer_close(writer);
    return path;
}

static void ids_refused(const char *message)
{
    struct ra_error err;
    struct ra_ids *ids;
    ra_assert_fails(ra_ids_open(&ids, write_made(), VOCAB, &err), RA_EFORMAT, message);
    assert_null(ids);
    assert_non_null(strstr(err.msg, "/ids.safetensors: "));
}

static void prompts_refused(const char *message)
{
    struct ra_error err;
    struct ra_prompts *prompts;
    ra_assert_fails(ra_prompts_open(&prompts, write_made(), VOCAB, &err), RA_EFORMAT, message);
    assert_null(prompts);
    assert_non_null(strstr(err.msg, "/ids.safetensors: "));
}

/* --- one text --------------------------------------------------------------------------------- */

static void test_ids(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_ids *ids;
    make_ids();
    ra_assert_ok(ra_ids_open(&ids, write_made(), VOCAB, &err));
    assert_int_equal(ids->n, 14);
    for (size_t i = 0; i < ids->n; i++)
        assert_int_equal(ids->tokens[i], prompts_tensors[TOKENS].values[i]);
    assert_string_equal(ids->source, "s");
    assert_string_equal(ids->source_sha256, "d");
    assert_string_equal(ids->license, "l");
    assert_string_equal(ids->tokenizer_sha256, "t");
    ra_ids_close(ids);
    for (int i = 2; i < N_METADATA; i++)
        made.metadata[i][1] = NULL;
    made.metadata[1][1] = "1.17";
    ra_assert_ok(ra_ids_open(&ids, write_made(), VOCAB, &err));
    assert_string_equal(ids->source, "");
    assert_string_equal(ids->tokenizer_sha256, "");
    ra_ids_close(ids);
    ra_ids_close(NULL);
}

static void test_ids_refused(void **state)
{
    (void)state;
    make_ids();
    made.tensors[TOKENS].values[13] = VOCAB;
    ids_refused("tokens: element 13: expected 0 to 49, got 50");
    made.tensors[TOKENS].values[13] = VOCAB - 1;
    made.tensors[TOKENS].values[3] = -1;
    ids_refused("tokens: element 3: expected 0 to 49, got -1");
    make_ids();
    made.tensors[TOKENS].name = "token";
    ids_refused("tokens: missing");
    make_ids();
    made.tensors[TOKENS].dtype = RA_ST_I64;
    ids_refused("tokens: expected I32 [n], got I64 [14]");
    make_ids();
    made.tensors[TOKENS].rank = 2;
    made.tensors[TOKENS].shape[1] = 1;
    ids_refused("tokens: expected I32 [n], got I32 [14, 1]");
    make_ids();
    made.tensors[TOKENS].shape[0] = 0;
    ids_refused("tokens: expected I32 [n], got I32 [0]");
    make_ids();
    made.metadata[0][1] = "rattn-trace";
    ids_refused("metadata: format: expected rattn-tokens, got 'rattn-trace'");
    made.metadata[0][1] = NULL;
    ids_refused("metadata: format: expected rattn-tokens, got nothing");
    const char *const versions[] = {"2.0", "1", "1.", "1.x", "10.0", " 1.0", NULL};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        make_ids();
        made.metadata[1][1] = versions[i];
        ids_refused("metadata: version: expected 1.x (this reader knows 1.0), got");
    }
    struct ra_error err;
    struct ra_ids *ids;
    ra_assert_fails(ra_ids_open(&ids, tmp_path(tmp_dir, "absent"), VOCAB, &err), RA_EIO,
                    "absent: cannot open");
}

/* --- many prompts ----------------------------------------------------------------------------- */

static void test_prompts(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_prompts *p;
    make_prompts();
    ra_assert_ok(ra_prompts_open(&p, write_made(), VOCAB, &err));
    assert_int_equal(p->n, 3);
    assert_int_equal(p->tokens[0][0], 10);
    assert_int_equal(p->tokens[0][4], 14);
    assert_int_equal(p->tokens[1][0], 20);
    assert_int_equal(p->tokens[2][5], 35);
    assert_int_equal(p->length[2], 6);
    assert_int_equal(p->prompt_len[0], 2);
    assert_int_equal(p->prompt_len[2], 4);
    assert_true(p->seed[1] == -1 && p->seed[2] == 9000000000);
    assert_true(p->depth[0] == 0.25f && isnan(p->depth[1]) && p->depth[2] == 1);
    assert_int_equal(p->n_probes, 4);
    static const int expected[4][3] = {{0, 2, 3}, {0, 4, 1}, {1, 2, 0}, {2, 4, 2}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(p->probes[i].prompt, expected[i][0]);
        assert_int_equal(p->probes[i].at, expected[i][1]);
        assert_int_equal(p->probes[i].n_candidates, expected[i][2]);
    }
    assert_int_equal(p->probes[0].candidates[2], 3);
    assert_int_equal(p->probes[1].candidates[0], 4);
    assert_int_equal(p->probes[3].candidates[0], 5);
    assert_int_equal(p->probes[3].candidates[1], 6);
    assert_string_equal(p->task, "niah:len=8");
    assert_string_equal(p->family, "niah");
    assert_string_equal(p->source, "s");
    assert_string_equal(p->source_sha256, "d");
    assert_string_equal(p->license, "l");
    assert_string_equal(p->tokenizer_sha256, "t");
    ra_prompts_close(p);
    made.tensors[DEPTH].name = NULL;
    made.tensors[CANDIDATES].name = NULL;
    made.metadata[5][1] = NULL;
    ra_assert_ok(ra_prompts_open(&p, write_made(), VOCAB, &err));
    assert_null(p->depth);
    assert_int_equal(p->probes[0].n_candidates, 0);
    assert_string_equal(p->source, "");
    ra_prompts_close(p);
    ra_prompts_close(NULL);
}

static const struct {
    int tensor, at;
    int64_t value;
    const char *message;
} changes[] = {
    {TOKENS, 13, VOCAB, "tokens: element 13: expected 0 to 49, got 50"},
    {TOKENS, 0, -5, "tokens: element 0: expected 0 to 49, got -5"},
    {LENGTHS, 0, 1, "lengths: element 0: expected at least 2 tokens, of which 14 are left, got 1"},
    {LENGTHS, 0, -3, "lengths: element 0: expected at least 2 tokens, of which 14 are left, got -"},
    {LENGTHS, 2, 7, "lengths: element 2: expected at least 2 tokens, of which 6 are left, got 7"},
    {LENGTHS, 1, INT32_MAX, "lengths: element 1: expected at least 2 tokens, of which 9 are left"},
    {LENGTHS, 2, 5, "tokens: expected 13, the sum of lengths, got 14"},
    {PROMPT_LEN, 1, 0, "prompt_len: element 1: expected 1 to 2, one less than its length, got 0"},
    {PROMPT_LEN, 1, 3, "prompt_len: element 1: expected 1 to 2, one less than its length, got 3"},
    {DEPTH, 1, 0x7f800000, "depth: element 1: expected 0 to 1, or NaN, got inf"},
    {DEPTH, 1, 0x40000000, "depth: element 1: expected 0 to 1, or NaN, got 2"},
    {DEPTH, 0, 0xbf800000, "depth: element 0: expected 0 to 1, or NaN, got -1"},
    {PROBE, 0, -1, "probe: element 0: expected a prompt from 0 to 2, ascending, got -1"},
    {PROBE, 6, 3, "probe: element 6: expected a prompt from 1 to 2, ascending, got 3"},
    {PROBE, 4, 0, "probe: element 5: expected a token of prompt 0 from 5 to 4, ascending, got 2"},
    {PROBE, 2, 2, "probe: element 4: expected a prompt from 2 to 2, ascending, got 1"},
    {PROBE, 1, 1, "probe: element 1: expected a token of prompt 0 from 2 to 4, ascending, got 1"},
    {PROBE, 3, 2, "probe: element 3: expected a token of prompt 0 from 3 to 4, ascending, got 2"},
    {PROBE, 3, 5, "probe: element 3: expected a token of prompt 0 from 3 to 4, ascending, got 5"},
    {PROBE, 7, 3, "probe: element 7: expected a token of prompt 2 from 4 to 5, ascending, got 3"},
    {CANDIDATES, 1, VOCAB, "candidates: element 1: expected -1 to 49, got 50"},
    {CANDIDATES, 11, -2, "candidates: element 11: expected -1 to 49, got -2"},
    {CANDIDATES, 4, 14,
     "candidates: element 4: expected another token than the one that is judged"
     ", got 14"},
};

static void test_prompts_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        make_prompts();
        made.tensors[changes[i].tensor].values[changes[i].at] = changes[i].value;
        prompts_refused(changes[i].message);
    }
}

static void test_prompts_shapes(void **state)
{
    (void)state;
    const char *const missing[] = {"tokens", "lengths", "prompt_len", "seed", NULL, "probe"};
    for (int i = 0; i <= PROBE; i++) {
        char message[64];
        if (!missing[i])
            continue;
        snprintf(message, sizeof message, "%s: missing", missing[i]);
        make_prompts();
        made.tensors[i].name = "x";
        prompts_refused(message);
    }
    make_prompts();
    made.tensors[PROMPT_LEN].shape[0] = 2;
    prompts_refused("prompt_len: expected I32 [3], got I32 [2]");
    make_prompts();
    made.tensors[SEED].dtype = RA_ST_I32;
    prompts_refused("seed: expected I64 [3], got I32 [3]");
    make_prompts();
    made.tensors[DEPTH].dtype = RA_ST_F64;
    prompts_refused("depth: expected F32 [3], got F64 [3]");
    make_prompts();
    made.tensors[PROBE].shape[0] = 2;
    made.tensors[PROBE].shape[1] = 4;
    prompts_refused("probe: expected I32 [n, 2], got I32 [2, 4]");
    make_prompts();
    made.tensors[PROBE].shape[0] = 3;
    prompts_refused("candidates: expected I32 [3, n], got I32 [4, 3]");
    make_prompts();
    made.metadata[2][1] = NULL;
    prompts_refused("metadata: task: expected a text, got nothing");
    make_prompts();
    made.metadata[3][1] = NULL;
    prompts_refused("metadata: family: expected a text, got nothing");
    make_ids();
    prompts_refused("metadata: format: expected rattn-prompts, got 'rattn-tokens'");
}

/* Cut anywhere, or with one bit of data turned, a file opens or is refused with a message. */
static void test_bytes(void **state)
{
    (void)state;
    size_t n;
    make_prompts();
    uint8_t *bytes = tmp_read(write_made(), &n);
    const char *path = tmp_path(tmp_dir, "cut.safetensors");
    for (size_t cut = 0; cut < n; cut += cut < 1500 || cut >= 4096 ? 1 : 97) {
        struct ra_error err;
        struct ra_prompts *p;
        tmp_write(path, bytes, cut);
        ra_assert_fails(ra_prompts_open(&p, path, VOCAB, &err), RA_EFORMAT, "cut.safetensors: ");
    }
    for (size_t i = 4096; i < n; i++) {
        struct ra_error err = {RA_OK, ""};
        struct ra_prompts *p;
        bytes[i] ^= (uint8_t)(1 << i % 8);
        tmp_write(path, bytes, n);
        enum ra_status st = ra_prompts_open(&p, path, VOCAB, &err);
        assert_true(st == RA_OK ? p != NULL : st == RA_EFORMAT && strstr(err.msg, ": expected "));
        ra_prompts_close(p);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_ids_refused),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_prompts_refused),
        cmocka_unit_test(test_prompts_shapes),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
