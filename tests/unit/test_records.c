/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activity records, built by hand and read by CUPTI's own cuptiActivityGetNextRecord, which needs
 * no device: that a buffer cut anywhere, of unknown kinds, out of order or of any numbers ends in
 * counted rows of the right scopes, and never in a crash or a row too many.
 */
#include "tests/support/ra_test.h"

#include <stdlib.h>
#include <string.h>

#ifdef RA_CUPTI
#include "profiler/cupti/buffers.h"
#include "tests/support/cupti_leaks.h"
#include "tests/support/store_fixture.h"

enum { ROOM = 1 << 16 };
static const struct ra_cupti *cupti;
static _Alignas(8) uint8_t buffer[ROOM];
static size_t used;

static void put(const void *record, size_t size)
{
    assert_true(used + size <= sizeof buffer);
    memcpy(buffer + used, record, size);
    used += size;
}

static void put_kernel(const char *name, uint32_t correlation, uint64_t start, uint64_t node)
{
    CUpti_ActivityKernel10 r = {.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                .start = start,
                                .end = start ? start + 5 : 0,
                                .streamId = 7 + correlation % 3,
                                .gridX = 3,
                                .gridY = 2,
                                .gridZ = 1,
                                .blockX = 128,
                                .blockY = 1,
                                .blockZ = 1,
                                .correlationId = correlation,
                                .name = name,
                                .graphId = node ? 9 : 0,
                                .graphNodeId = node};
    put(&r, sizeof r);
}

static void put_external(int kind, uint32_t correlation, uint64_t id)
{
    CUpti_ActivityExternalCorrelation r = {.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,
                                           .externalKind = (CUpti_ExternalCorrelationKind)kind,
                                           .externalId = id,
                                           .correlationId = correlation};
    put(&r, sizeof r);
}

static void put_call(uint32_t correlation)
{
    CUpti_ActivityAPI r = {.kind = CUPTI_ACTIVITY_KIND_RUNTIME,
                           .cbid = 211,
                           .start = 10,
                           .end = 12,
                           .correlationId = correlation};
    put(&r, sizeof r);
}

static void put_copies(uint32_t correlation)
{
    CUpti_ActivityMemcpy6 copy = {.kind = CUPTI_ACTIVITY_KIND_MEMCPY,
                                  .copyKind = 1,
                                  .bytes = 4096,
                                  .start = 20,
                                  .end = 30,
                                  .correlationId = correlation};
    CUpti_ActivityMemset4 set = {.kind = CUPTI_ACTIVITY_KIND_MEMSET,
                                 .bytes = 64,
                                 .start = 31,
                                 .end = 32,
                                 .correlationId = correlation};
    put(&copy, sizeof copy);
    put(&set, sizeof set);
}

static struct ra_records read_all(size_t bytes)
{
    struct ra_records records = {0};
    struct ra_error err;
    ra_assert_ok(ra_records_read(&records, cupti, buffer, bytes, &err));
    return records;
}

static int setup(void **state)
{
    struct ra_error err;
    (void)state;
    return ra_cupti_load(&cupti, &err) == RA_OK ? 0 : 1;
}

static int clean(void **state)
{
    (void)state;
    memset(buffer, 0, sizeof buffer);
    used = 0;
    return 0;
}

static void all_kinds_are_read(void **state)
{
    (void)state;
    CUpti_ActivityOverhead3 cost = {.kind = CUPTI_ACTIVITY_KIND_OVERHEAD,
                                    .overheadKind = CUPTI_ACTIVITY_OVERHEAD_CUPTI_BUFFER_FLUSH,
                                    .start = 1,
                                    .end = 4};
    put_kernel("_ZN2ra6decodeIfEEvPKT_i", 1, 100, 0);
    put_call(1);
    put_copies(2);
    put(&cost, sizeof cost);
    put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, 1, 41);
    struct ra_records r = read_all(used);
    assert_int_equal(r.n_kernels + r.n_calls + r.n_memops + r.n_overheads, 5);
    assert_string_equal(r.kernels[0].name, "void ra::decode<float>(float const*, int)");
    assert_int_equal(r.kernels[0].grid[1], 2);
    assert_int_equal(r.kernels[0].cluster[0], -1);
    assert_int_equal(r.memops[0].bytes, 4096);
    assert_string_equal(r.memops[1].op, "memset");
    assert_int_equal(ra_idmap_get(&r.steps, 1), 41);
    ra_records_clear(&r);
}

/* Whatever a buffer is cut to, what is whole before the cut is read, and no more. */
static void a_cut_buffer_loses_its_last_record_alone(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 12; i++)
        put_kernel("k", i, 100 * i, 0);
    size_t whole = used, one = whole / 12;
    for (size_t bytes = 0; bytes <= whole; bytes++) {
        struct ra_records r = read_all(bytes);
        assert_int_equal(r.n_kernels, bytes / one);
        assert_int_equal(r.n_unreadable, 0);
        ra_records_clear(&r);
    }
}

static void an_unknown_kind_ends_its_buffer_and_is_counted(void **state)
{
    (void)state;
    put_kernel("a", 1, 100, 0);
    size_t at = used;
    put_kernel("b", 2, 200, 0);
    put_kernel("c", 3, 300, 0);
    for (uint32_t kind = 9000; kind < 9003; kind++) {
        memcpy(buffer + at, &kind, sizeof kind);
        struct ra_records r = read_all(used);
        assert_int_equal(r.n_kernels, 1);
        assert_int_equal(r.n_unreadable, 1);
        ra_records_clear(&r);
    }
}

/* Out of order, on three streams, from calls, graphs and neither; a time lost; ids of all bits. */
static void kernels_find_their_scopes(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_store *store;
    struct ra_idmap nodes = {0};
    struct ra_records_stored stored;
    int64_t run_id, pass_id, step, op, node_scope;
    void *fixture = NULL;
    assert_int_equal(store_setup(&fixture), 0);
    const char *path = ((struct store_fixture *)fixture)->path;
    store = store_append(path);
    run_id = store_begin_run(store);
    ra_assert_ok(ra_store_pass_begin(store, run_id, 0, "timing", &pass_id, &err));
    ra_assert_ok(ra_store_scope(
        store,
        &(struct ra_scope_row){
            .run_id = run_id, .kind = "step", .step = 3, .layer = RA_SCOPE_NONE, .name = "step"},
        &step, &err));
    ra_assert_ok(
        ra_store_scope(store,
                       &(struct ra_scope_row){
                           .run_id = run_id, .kind = "op", .step = 3, .layer = 1, .name = "attend"},
                       &op, &err));
    ra_assert_ok(
        ra_store_scope(store,
                       &(struct ra_scope_row){
                           .run_id = run_id, .kind = "op", .step = 3, .layer = 2, .name = "select"},
                       &node_scope, &err));
    const uint64_t node = 0xffffffffffffff01u;
    ra_assert_ok(ra_idmap_put(&nodes, node, node_scope, &err));
    put_kernel("late", 5, 900, 0);
    put_kernel("of_graph", 6, 300, node);
    put_kernel("of_graph_unknown", 6, 310, node + 1);
    put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM1, 5, (uint64_t)op);
    put_kernel("early", 4, 100, 0);
    put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, 4, (uint64_t)step);
    put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, 5, (uint64_t)step);
    put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, 6, (uint64_t)step);
    put_kernel("of_none", 0xffffffffu, 50, 0);
    put_kernel("timeless", 4, 0, 0);
    put_copies(5);
    put_call(4);
    struct ra_records r = read_all(used);
    ra_assert_ok(ra_records_store(&r, &nodes, store, pass_id, &stored, &err));
    assert_int_equal(stored.kernels, 6);
    assert_int_equal(stored.zero_time, 1);
    assert_int_equal(stored.unplaced, 1);
    ra_assert_ok(ra_store_pass_end(store, pass_id, RA_RUN_INCOMPLETE, &err));
    ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_COMPLETE, NULL, NULL, NULL, &err));
    store_done(store);
#define SCOPE_OF(name)                                                                             \
    store_ask(path, "select coalesce(scope_id, 0) from kernel k join string_ids s on "             \
                    "s.id = k.name_id where s.value = '" name "'")
    assert_int_equal(SCOPE_OF("late"), op);
    assert_int_equal(SCOPE_OF("early"), step);
    assert_int_equal(SCOPE_OF("of_graph"), node_scope);
    assert_int_equal(SCOPE_OF("of_graph_unknown"), step);
    assert_int_equal(SCOPE_OF("of_none"), 0);
    assert_int_equal(store_ask(path, "select count(*) from kernel where start_ns is null"), 1);
    assert_int_equal(store_ask(path,
                               "select graph_node_id from kernel k join string_ids s on s.id = "
                               "k.name_id where s.value = 'of_graph'"),
                     (int64_t)node);
    assert_int_equal(store_ask(path,
                               "select correlation_id from kernel k join string_ids s on s.id = "
                               "k.name_id where s.value = 'of_none'"),
                     0xffffffff);
    assert_int_equal(store_ask(path, "select count(*) from memop where scope_id is not null"), 2);
    assert_int_equal(store_ask(path, "select count(*) from api_call"), 1);
    ra_records_clear(&r);
    ra_idmap_clear(&nodes);
    store_teardown(&fixture);
}

/* Any bytes but where pointers are, which are the library's to set. */
static void any_bytes_are_read_to_some_end(void **state)
{
    (void)state;
    uint64_t seed = 20611;
    for (int round = 0; round < 2000; round++) {
        clean(NULL);
        for (uint32_t i = 1; i <= 8; i++) {
            put_kernel("k", i, i, i % 2 ? ~(uint64_t)i : 0);
            put_external(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM1, i, i);
            put_call(i);
        }
        size_t kernel = sizeof(CUpti_ActivityKernel10), each = used / 8;
        for (int flips = 0; flips < 6; flips++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t at = (size_t)(seed >> 33) % used, within = at % each;
            size_t name = offsetof(CUpti_ActivityKernel10, name);
            bool is_pointer =
                within < kernel && within >= name && within < name + 2 * sizeof(void *);
            bool is_kind = within < 4 || (within >= kernel && within < kernel + 4) ||
                           (within >= each - sizeof(CUpti_ActivityAPI) &&
                            within < each - sizeof(CUpti_ActivityAPI) + 4);
            if (!is_pointer && !is_kind)
                buffer[at] = (uint8_t)(seed >> 25);
        }
        if (round % 3 == 0) { /* a kind that is none */
            uint32_t kind = 5000 + (uint32_t)round;
            memcpy(buffer + (size_t)(round % 8) * each, &kind, sizeof kind);
        }
        struct ra_records r = read_all(used - (size_t)(round % 60));
        assert_true(r.n_kernels <= 8 && r.n_calls <= 8);
        assert_int_equal(r.n_unreadable, round % 3 == 0);
        assert_int_equal(r.n_kernels, round % 3 == 0 ? round % 8 : 8);
        ra_records_clear(&r);
    }
}

/* A reader of its own: what is given from any thread, in any number, is read once. */
static void buffers_go_round(void **state)
{
    (void)state;
    struct ra_buffers buffers;
    struct ra_error err;
    ra_assert_ok(ra_buffers_open(&buffers, cupti, &err));
    for (uint32_t i = 1; i <= 10; i++)
        put_kernel("k", i, i, 0);
    for (int round = 0; round < 40; round++) {
        uint8_t *bytes = ra_buffers_take(&buffers);
        assert_non_null(bytes);
        assert_int_equal((uintptr_t)bytes % 8, 0);
        assert_true(bytes[0] == 0 && bytes[RA_BUFFER_BYTES - 1] == 0);
        memcpy(bytes, buffer, used);
        ra_buffers_give(&buffers, bytes, used);
    }
    ra_assert_ok(ra_buffers_settle(&buffers, &err));
    assert_int_equal(buffers.records.n_kernels, 400);
    assert_true(buffers.n_made <= 40);
    uint8_t *again = ra_buffers_take(&buffers); /* as zeroed as a new one */
    for (size_t i = 0; i < used; i++)
        assert_int_equal(again[i], 0);
    ra_buffers_give(&buffers, again, 0);
    ra_assert_ok(ra_buffers_settle(&buffers, &err));
    uint8_t *held[RA_BUFFERS_MAX];
    int n = 0;
    while (n < RA_BUFFERS_MAX && (held[n] = ra_buffers_take(&buffers)))
        n++;
    assert_int_equal(n, RA_BUFFERS_MAX);
    assert_null(ra_buffers_take(&buffers));
    assert_int_equal(buffers.n_refused, 1);
    while (n > 0)
        ra_buffers_give(&buffers, held[--n], 0);
    ra_assert_ok(ra_buffers_settle(&buffers, &err));
    ra_buffers_close(&buffers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_kinds_are_read, clean),
        cmocka_unit_test_setup(a_cut_buffer_loses_its_last_record_alone, clean),
        cmocka_unit_test_setup(an_unknown_kind_ends_its_buffer_and_is_counted, clean),
        cmocka_unit_test_setup(kernels_find_their_scopes, clean),
        cmocka_unit_test_setup(any_bytes_are_read_to_some_end, clean),
        cmocka_unit_test_setup(buffers_go_round, clean),
    };
    return cmocka_run_group_tests_name("records", tests, setup, NULL);
}
#else
static void no_headers(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_headers)};
    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
#endif
