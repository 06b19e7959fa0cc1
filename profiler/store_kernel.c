/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of device activity: by far the most rows of a pass, so each is one prepared statement. */
#include "profiler/store_kernel.h"

#include "profiler/store_names.h"
#include "profiler/store_row.h"

/* A time of 0 was lost. */
static void put_time(struct ra_row *row, uint64_t ns)
{
    if (ns == 0)
        ra_row_int_or_null(row, 0, 0);
    else
        ra_row_u64(row, ns);
}

/* An id of 0 is none. */
static void put_id(struct ra_row *row, uint64_t id)
{
    put_time(row, id);
}

static void put_three(struct ra_row *row, const int32_t xyz[3])
{
    for (int i = 0; i < 3; i++)
        ra_row_int_or_null(row, xyz[i], -1);
}

enum ra_status ra_store_kernel(struct ra_store *store, const struct ra_kernel_row *kernel,
                               struct ra_error *err)
{
    struct ra_row row;
    int64_t name_id = 0, mangled_id = 0;
    RA_BUG_ON(!kernel->name);
    RA_TRY(ra_store_name(store, kernel->name, &name_id, err));
    if (kernel->mangled)
        RA_TRY(ra_store_name(store, kernel->mangled, &mangled_id, err));
    RA_TRY(ra_row_begin(store, RA_SQL_KERNEL, &row, err));
    ra_row_int(&row, kernel->pass_id);
    ra_row_int_or_null(&row, kernel->scope_id, 0);
    ra_row_u64(&row, kernel->correlation_id);
    put_time(&row, kernel->start_ns);
    put_time(&row, kernel->end_ns);
    ra_row_int(&row, kernel->context_id);
    ra_row_int(&row, kernel->stream_id);
    ra_row_int(&row, name_id);
    put_three(&row, kernel->grid);
    put_three(&row, kernel->block);
    put_three(&row, kernel->cluster);
    ra_row_int_or_null(&row, kernel->registers, -1);
    ra_row_int_or_null(&row, kernel->smem_static_bytes, -1);
    ra_row_int_or_null(&row, kernel->smem_dynamic_bytes, -1);
    ra_row_int_or_null(&row, kernel->smem_executed_bytes, -1);
    ra_row_int_or_null(&row, kernel->local_total_bytes, -1);
    put_id(&row, kernel->graph_id);
    put_id(&row, kernel->graph_node_id);
    ra_row_int_or_null(&row, mangled_id, 0);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_memop(struct ra_store *store, const struct ra_memop_row *memop,
                              struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_MEMOP, &row, err));
    ra_row_int(&row, memop->pass_id);
    ra_row_int_or_null(&row, memop->scope_id, 0);
    ra_row_u64(&row, memop->correlation_id);
    ra_row_text(&row, memop->op);
    ra_row_int_or_null(&row, memop->copy_kind, -1);
    ra_row_u64(&row, memop->bytes);
    put_time(&row, memop->start_ns);
    put_time(&row, memop->end_ns);
    ra_row_int(&row, memop->stream_id);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_api_call(struct ra_store *store, const struct ra_api_call_row *call,
                                 struct ra_error *err)
{
    struct ra_row row;
    int64_t name_id = 0;
    if (call->name)
        RA_TRY(ra_store_name(store, call->name, &name_id, err));
    RA_TRY(ra_row_begin(store, RA_SQL_API_CALL, &row, err));
    ra_row_int(&row, call->pass_id);
    ra_row_u64(&row, call->correlation_id);
    ra_row_text(&row, call->domain);
    ra_row_int(&row, call->cbid);
    ra_row_int_or_null(&row, name_id, 0);
    ra_row_int(&row, call->thread_id);
    put_time(&row, call->start_ns);
    put_time(&row, call->end_ns);
    ra_row_int(&row, call->result);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_overhead(struct ra_store *store, const struct ra_overhead_row *overhead,
                                 struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_OVERHEAD, &row, err));
    ra_row_int(&row, overhead->pass_id);
    ra_row_int(&row, overhead->kind);
    put_time(&row, overhead->start_ns);
    put_time(&row, overhead->end_ns);
    return ra_row_write(&row, err);
}
