/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recording of a tiny model over an older one, its evaluation and its speculation, while memory,
 * disk and signals fail: the trace is a whole new one, or the old one, and nothing else is left.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"
#include "tests/support/tmp_dir.h"
#include "traces/model/gemm.h"
#include "traces/safetensors.h"

static const char old_trace[] = "a trace that was complete";
static char trace[600], model[600], ids[600], task[700], db[600];

/* Row-major matrices, and norms where columns is 0. */
static const struct {
    const char *name;
    uint64_t shape[2];
} tensors[] = {{"model.embed_tokens.weight", {11, 16}},
               {"model.norm.weight", {16, 0}},
               {"model.layers.0.input_layernorm.weight", {16, 0}},
               {"model.layers.0.self_attn.q_proj.weight", {16, 16}},
               {"model.layers.0.self_attn.k_proj.weight", {8, 16}},
               {"model.layers.0.self_attn.v_proj.weight", {8, 16}},
               {"model.layers.0.self_attn.o_proj.weight", {16, 16}},
               {"model.layers.0.post_attention_layernorm.weight", {16, 0}},
               {"model.layers.0.mlp.gate_proj.weight", {24, 16}},
               {"model.layers.0.mlp.up_proj.weight", {24, 16}},
               {"model.layers.0.mlp.down_proj.weight", {16, 24}}};
enum { N_TENSORS = sizeof tensors / sizeof *tensors, N_IDS = 24 };

static void write_weights(const char *path)
{
    struct ra_st_writer *w;
    struct ra_error err;
    float values[24 * 16];
    size_t index[N_TENSORS];
    ra_assert_ok(ra_st_writer_open(&w, path, &err));
    for (size_t i = 0; i < N_TENSORS; i++)
        ra_assert_ok(ra_st_writer_tensor(w, tensors[i].name, RA_ST_F32, tensors[i].shape[1] ? 2 : 1,
                                         tensors[i].shape, &index[i], &err));
    ra_assert_ok(ra_st_writer_begin(w, &err));
    for (size_t i = 0; i < N_TENSORS; i++) {
        size_t n = tensors[i].shape[0] * (tensors[i].shape[1] ? tensors[i].shape[1] : 1);
        for (size_t j = 0; j < n; j++)
            values[j] = (float)(0.3 * ra_rng_normal(i, j) + (tensors[i].shape[1] == 0));
        ra_assert_ok(ra_st_writer_put(w, index[i], 0, values, n * sizeof *values, &err));
    }
    ra_assert_ok(ra_st_writer_commit(w, &err));
    ra_st_writer_close(w);
}

static void write_ids(const char *path)
{
    struct ra_st_writer *w;
    struct ra_error err;
    const uint64_t shape[] = {N_IDS};
    int32_t values[N_IDS];
    size_t index;
    for (int i = 0; i < N_IDS; i++)
        values[i] = ra_rng_int(77, (uint64_t)i, 0, 10);
    ra_assert_ok(ra_st_writer_open(&w, path, &err));
    ra_assert_ok(ra_st_writer_metadata(w, "format", "rattn-tokens", &err));
    ra_assert_ok(ra_st_writer_metadata(w, "version", "1.0", &err));
    ra_assert_ok(ra_st_writer_tensor(w, "tokens", RA_ST_I32, 1, shape, &index, &err));
    ra_assert_ok(ra_st_writer_begin(w, &err));
    ra_assert_ok(ra_st_writer_put(w, index, 0, values, sizeof values, &err));
    ra_assert_ok(ra_st_writer_commit(w, &err));
    ra_st_writer_close(w);
}

static int setup(void **state)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-5,"
        " \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
        " \"head_dim\": 8, \"hidden_size\": 16, \"intermediate_size\": 24, \"vocab_size\": 11,"
        " \"max_position_embeddings\": 64, \"tie_word_embeddings\": true, \"rope_theta\": 1e4}";
    int rc = tmp_dir_setup(state);
    snprintf(model, sizeof model, "%s", tmp_dir);
    snprintf(ids, sizeof ids, "%s/ids", tmp_dir);
    snprintf(db, sizeof db, "%s/runs.db", tmp_dir);
    snprintf(trace, sizeof trace, "%s/trace.safetensors", tmp_dir);
    snprintf(task, sizeof task, "ppl:file=%s,steps=3", ids);
    tmp_write(tmp_path(tmp_dir, "config.json"), config, sizeof config - 1);
    write_weights(tmp_path(tmp_dir, "model.safetensors"));
    write_ids(ids);
    return rc;
}

static void prepare(void *context)
{
    (void)context;
    tmp_write(trace, old_trace, sizeof old_trace);
}

static void run(void *context, struct fault_outcome *outcome)
{
    fault_cli(context, outcome);
}

static void check(void *context, const struct fault_outcome *outcome)
{
    (void)context;
    static size_t whole;
    size_t n;
    uint8_t *bytes = tmp_read(trace, &n);
    bool is_old = n == sizeof old_trace && memcmp(bytes, old_trace, n) == 0;
    free(bytes);
    if (outcome->code == 0)
        assert_false(is_old);
    if (!is_old) {
        whole = whole ? whole : n;
        assert_int_equal(n, whole);
        assert_true(n > 4096);
    }
    assert_int_equal(tmp_dir_count(tmp_dir), 4);
}

static void need_blas(void)
{
    struct ra_error err;
    if (ra_gemm_open(RA_GEMM_BLAS, 1, &err) != RA_OK)
        skip();
}

static void test_record(void **unused)
{
    (void)unused;
    const char *const words[] = {
        "record", model, "--tokens", ids, "-n", "3",        "-p",   "recycled:k=3,stride=2",
        "-o",     trace, "-j",       "1", "-q", "--format", "json", NULL};
    static const char *const places[] = {"trace.safetensors", "config.json", "model.safetensors",
                                         "ids", NULL};
    need_blas();
    struct fault_case c = {.name = "record",
                           .context = (void *)words,
                           .prepare = prepare,
                           .run = run,
                           .check = check,
                           .places = places};
    static const struct {
        enum fault_op op;
        int error;
    } faults[] = {{FAULT_WRITE, ENOSPC},
                  {FAULT_READ, EIO},
                  {FAULT_OPEN, EMFILE},
                  {FAULT_RENAME, EXDEV},
                  {FAULT_SYNC, EIO}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        assert_true(fault_sweep(&c, faults[i].op, faults[i].error).n_failed > 0);
    assert_true(fault_sweep_lasting(&c, FAULT_WRITE, ENOSPC).n_failed > 0);
    fault_sweep(&c, FAULT_WRITE, FAULT_SHORT);
    c.places = NULL;
    assert_true(fault_sweep(&c, FAULT_WRITE, FAULT_SIGNAL).n_calls > 0);
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 20);
}

static void remove_store(void *context)
{
    (void)context;
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock"};
    char path[640];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(path, sizeof path, "%s%s", db, suffixes[i]);
        remove(path);
    }
}

/* Whatever failed: a run that calls itself complete is whole, and none is still running. */
static void check_store(void *context, const struct fault_outcome *outcome)
{
    (void)context;
    struct ra_error err;
    struct ra_store *store;
    if (!store_exists(db, "")) {
        assert_int_not_equal(outcome->code, 0);
        return;
    }
    if (ra_store_open(&store, db, RA_STORE_APPEND, &err) != RA_OK) { /* died while it was made */
        assert_int_not_equal(outcome->code, 0);
        return;
    }
    store_done(store);
    assert_int_equal(store_ask(db, "SELECT count(*) FROM run WHERE state = 'running'"), 0);
    assert_int_equal(
        store_ask(db, "SELECT count(*) FROM run WHERE state = 'complete' AND (result_json IS NULL"
                      " OR (kind = 'eval' AND NOT EXISTS (SELECT 1 FROM eval_sample WHERE run_id ="
                      " run.id)))"),
        0);
    if (outcome->code == 0)
        assert_int_equal(store_ask(db, "SELECT count(*) FROM run WHERE state <> 'complete'"), 0);
}

static void sweep_store(const char *name, const char *const *words)
{
    static const char *const places[] = {"runs.db", NULL};
    struct fault_case c = {.name = name,
                           .context = (void *)words,
                           .prepare = remove_store,
                           .run = run,
                           .check = check_store,
                           .places = places};
    fault_spare_sqlite(true);
    assert_true(fault_sweep(&c, FAULT_WRITE, ENOSPC).n_failed > 0);
    assert_true(fault_sweep_lasting(&c, FAULT_WRITE, ENOSPC).n_failed > 0);
    c.places = NULL;
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 20);
    fault_spare_sqlite(false);
    remove_store(NULL);
}

static void test_eval_into_a_store(void **unused)
{
    (void)unused;
    const char *const words[] = {"eval", model, "--task", task,   "-p", "recycled:k=3,stride=2",
                                 "-j",   "1",   "-q",     "--db", db,   NULL};
    need_blas();
    sweep_store("eval --db", words);
}

static void test_import(void **unused)
{
    (void)unused;
    static const char json[] =
        "{\"format\":\"rattn-eval\",\"version\":\"1.0\",\"tool\":\"t\",\"tool_version\":\"1\","
        "\"model\":\"m\",\"results\":[{\"task\":\"ppl\",\"policy\":\"full\",\"documents\":["
        "{\"document\":\"a\",\"prompt_len\":4,\"steps\":2,\"nll\":[1,2]},"
        "{\"document\":\"b\",\"prompt_len\":4,\"steps\":1,\"nll\":[3]}]}]}";
    char path[640];
    snprintf(path, sizeof path, "%s/made.json", tmp_dir);
    tmp_write(path, json, sizeof json - 1);
    const char *const words[] = {"import", path, "--db", db, "-q", NULL};
    sweep_store("import", words);
    struct fault_case c = {.name = "import", .context = (void *)words, .run = run};
    static const char *const places[] = {"made.json", "runs.db", NULL};
    c.places = places;
    assert_true(fault_sweep(&c, FAULT_READ, EIO).n_failed > 0);
    assert_true(fault_sweep(&c, FAULT_OPEN, EMFILE).n_failed > 0);
    remove_store(NULL);
    remove(path);
}

static void test_eval(void **unused)
{
    (void)unused;
    const char *const words[] = {
        "eval", model, "--task", task,       "-p",   "h2o:k=3", "-p", "recycled:k=3,stride=2",
        "-j",   "1",   "-q",     "--format", "json", NULL};
    need_blas();
    struct fault_case c = {.name = "eval", .context = (void *)words, .run = run};
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 20);
    assert_true(fault_sweep(&c, FAULT_READ, EIO).n_failed > 0);
}

static void test_speculate(void **unused)
{
    (void)unused;
    const char *const words[] = {"speculate", model, "--tokens", ids,
                                 "-n",        "4",   "-p",       "triforce:k=3,chunk=1,gamma=9",
                                 "--gamma",   "3",   "--below",  "streaming:k=2,sinks=1",
                                 "-j",        "1",   "-q",       "--format",
                                 "json",      NULL};
    need_blas();
    struct fault_case c = {.name = "speculate", .context = (void *)words, .run = run};
    assert_true(fault_sweep(&c, FAULT_MEMORY, ENOMEM).n_failed > 20);
    assert_true(fault_sweep(&c, FAULT_READ, EIO).n_failed > 0);
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_eval_into_a_store),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_speculate),
    };
    fault_init();
    return cmocka_run_group_tests_name("fault_record", tests, setup, tmp_dir_teardown);
}
