/* SPDX-License-Identifier: Apache-2.0 */
#ifdef RA_CUPTI
#include "profiler/cupti/records.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static enum ra_status make_room(void **rows, size_t n, size_t *capacity, size_t size,
                                struct ra_error *err)
{
    if (n < *capacity)
        return RA_OK;
    size_t more = *capacity ? 2 * *capacity : 256;
    void *grown = realloc(*rows, more * size);
    if (!grown)
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for %zu records", more);
    *rows = grown;
    *capacity = more;
    return RA_OK;
}

#define ROOM_FOR(records, what, err)                                                               \
    make_room((void **)&(records)->what, (records)->n_##what, &(records)->what##_capacity,         \
              sizeof *(records)->what, err)

/* --- names ------------------------------------------------------------------------------------ */

typedef char *(*demangler)(const char *mangled, char *buffer, size_t *size, int *status);

/* The C++ library is not linked; where it is not, names stay as the compiler made them. */
static demangler find_demangler(void)
{
    static demangler found;
    static bool looked;
    if (!looked) {
        void *library = dlopen("libstdc++.so.6", RTLD_NOW);
        if (library)
            *(void **)&found = dlsym(library, "__cxa_demangle");
        looked = true;
    }
    return found;
}

static char *readable(const char *name)
{
    demangler demangle = find_demangler();
    int status = -1;
    char *text = demangle ? demangle(name, NULL, NULL, &status) : NULL;
    if (text && status == 0)
        return text;
    free(text);
    return strdup(name);
}

/* CUPTI's names may go with a module: each is copied, once while it repeats. */
static enum ra_status keep_name(struct ra_records *records, const char *recorded,
                                const struct ra_kernel_name **kept, struct ra_error *err)
{
    for (size_t i = records->n_names; i > 0 && i + 16 > records->n_names; i--)
        if (strcmp(records->names[i - 1].mangled, recorded) == 0) {
            *kept = &records->names[i - 1];
            return RA_OK;
        }
    RA_TRY(ROOM_FOR(records, names, err));
    struct ra_kernel_name *name = &records->names[records->n_names];
    *name = (struct ra_kernel_name){.mangled = strdup(recorded), .name = readable(recorded)};
    if (!name->mangled || !name->name) {
        free(name->mangled);
        free(name->name);
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for the name of a kernel");
    }
    records->n_names++;
    *kept = name;
    return RA_OK;
}

/* --- one record ------------------------------------------------------------------------------- */

static enum ra_status read_kernel(struct ra_records *records, const CUpti_ActivityKernel10 *r,
                                  struct ra_error *err)
{
    const struct ra_kernel_name *kept = NULL;
    RA_TRY(ROOM_FOR(records, kernels, err));
    RA_TRY(keep_name(records, r->name ? r->name : "(no name)", &kept, err));
    bool clusters = r->clusterX > 0;
    records->kernels[records->n_kernels++] = (struct ra_kernel_row){
        .correlation_id = r->correlationId,
        .start_ns = r->start,
        .end_ns = r->end,
        .context_id = r->contextId,
        .stream_id = r->streamId,
        .name = kept->name,
        .grid = {r->gridX, r->gridY, r->gridZ},
        .block = {r->blockX, r->blockY, r->blockZ},
        .cluster = {clusters ? (int32_t)r->clusterX : -1, clusters ? (int32_t)r->clusterY : -1,
                    clusters ? (int32_t)r->clusterZ : -1},
        .registers = r->registersPerThread,
        .smem_static_bytes = r->staticSharedMemory,
        .smem_dynamic_bytes = r->dynamicSharedMemory,
        .smem_executed_bytes = r->sharedMemoryExecuted,
        .local_total_bytes = (int64_t)r->localMemoryTotal_v2,
        .graph_id = r->graphId,
        .graph_node_id = r->graphNodeId,
        .mangled = r->name ? kept->mangled : NULL};
    return RA_OK;
}

static enum ra_status read_memop(struct ra_records *records, struct ra_memop_row row,
                                 struct ra_error *err)
{
    RA_TRY(ROOM_FOR(records, memops, err));
    records->memops[records->n_memops++] = row;
    return RA_OK;
}

static enum ra_status read_call(struct ra_records *records, const CUpti_ActivityAPI *r,
                                struct ra_error *err)
{
    RA_TRY(ROOM_FOR(records, calls, err));
    records->calls[records->n_calls++] = (struct ra_api_call_row){
        .correlation_id = r->correlationId,
        .domain = r->kind == CUPTI_ACTIVITY_KIND_RUNTIME ? "runtime" : "driver",
        .cbid = (int32_t)r->cbid,
        .thread_id = r->threadId,
        .start_ns = r->start,
        .end_ns = r->end,
        .result = r->returnValue};
    return RA_OK;
}

static enum ra_status read_overhead(struct ra_records *records, CUpti_ActivityOverhead3 *r,
                                    struct ra_error *err)
{
    RA_TRY(ROOM_FOR(records, overheads, err));
    records->overheads[records->n_overheads++] = (struct ra_overhead_row){
        .kind = (int32_t)r->overheadKind, .start_ns = r->start, .end_ns = r->end};
    free(r->overheadData); /* the client's, CUPTI says */
    r->overheadData = NULL;
    return RA_OK;
}

static enum ra_status read_external(struct ra_records *records,
                                    const CUpti_ActivityExternalCorrelation *r,
                                    struct ra_error *err)
{
    struct ra_idmap *map =
        r->externalKind == CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0   ? &records->steps
        : r->externalKind == CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM1 ? &records->ops
                                                                     : NULL;
    if (!map || r->externalId == 0)
        return RA_OK;
    return ra_idmap_put(map, r->correlationId, (int64_t)r->externalId, err);
}

static enum ra_status read_one(struct ra_records *records, CUpti_Activity *record,
                               struct ra_error *err)
{
    void *any = record;
    const CUpti_ActivityMemcpy6 *copy = any;
    const CUpti_ActivityMemset4 *set = any;
    switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
        return read_kernel(records, any, err);
    case CUPTI_ACTIVITY_KIND_MEMCPY:
        return read_memop(records,
                          (struct ra_memop_row){.correlation_id = copy->correlationId,
                                                .op = "memcpy",
                                                .copy_kind = copy->copyKind,
                                                .bytes = copy->bytes,
                                                .start_ns = copy->start,
                                                .end_ns = copy->end,
                                                .stream_id = copy->streamId},
                          err);
    case CUPTI_ACTIVITY_KIND_MEMSET:
        return read_memop(records,
                          (struct ra_memop_row){.correlation_id = set->correlationId,
                                                .op = "memset",
                                                .copy_kind = -1,
                                                .bytes = set->bytes,
                                                .start_ns = set->start,
                                                .end_ns = set->end,
                                                .stream_id = set->streamId},
                          err);
    case CUPTI_ACTIVITY_KIND_RUNTIME:
    case CUPTI_ACTIVITY_KIND_DRIVER:
        return read_call(records, any, err);
    case CUPTI_ACTIVITY_KIND_OVERHEAD:
        return read_overhead(records, any, err);
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION:
        return read_external(records, any, err);
    default:
        return RA_OK; /* of a kind that was not asked for */
    }
}

enum ra_status ra_records_read(struct ra_records *records, const struct ra_cupti *cupti,
                               uint8_t *buffer, size_t bytes, struct ra_error *err)
{
    CUpti_Activity *record = NULL;
    CUptiResult result;
    while (bytes > 0 && (result = cupti->cuptiActivityGetNextRecord(buffer, bytes, &record)) !=
                            CUPTI_ERROR_MAX_LIMIT_REACHED) {
        if (result != CUPTI_SUCCESS) {
            records->n_unreadable++;
            return RA_OK;
        }
        RA_TRY(read_one(records, record, err));
    }
    return RA_OK;
}

/* --- all of a pass ---------------------------------------------------------------------------- */

static int64_t scope_of(const struct ra_records *records, const struct ra_idmap *nodes,
                        uint64_t node, uint64_t correlation)
{
    int64_t scope = node && nodes ? ra_idmap_get(nodes, node) : 0;
    if (!scope)
        scope = ra_idmap_get(&records->ops, correlation);
    return scope ? scope : ra_idmap_get(&records->steps, correlation);
}

static enum ra_status store_calls(const struct ra_records *records, struct ra_store *store,
                                  int64_t pass_id, struct ra_error *err)
{
    for (size_t i = 0; i < records->n_calls; i++) {
        struct ra_api_call_row row = records->calls[i];
        row.pass_id = pass_id;
        if (row.start_ns && row.end_ns)
            RA_TRY(ra_store_api_call(store, &row, err));
    }
    for (size_t i = 0; i < records->n_overheads; i++) {
        struct ra_overhead_row row = records->overheads[i];
        row.pass_id = pass_id;
        if (row.start_ns && row.end_ns)
            RA_TRY(ra_store_overhead(store, &row, err));
    }
    return RA_OK;
}

enum ra_status ra_records_store(struct ra_records *records, const struct ra_idmap *nodes,
                                struct ra_store *store, int64_t pass_id,
                                struct ra_records_stored *stored, struct ra_error *err)
{
    *stored = (struct ra_records_stored){0};
    for (size_t i = 0; i < records->n_kernels; i++) {
        struct ra_kernel_row row = records->kernels[i];
        row.pass_id = pass_id;
        row.scope_id = scope_of(records, nodes, row.graph_node_id, row.correlation_id);
        stored->kernels++;
        stored->zero_time += row.start_ns == 0 || row.end_ns == 0;
        stored->unplaced += row.scope_id == 0;
        RA_TRY(ra_store_kernel(store, &row, err));
    }
    for (size_t i = 0; i < records->n_memops; i++) {
        struct ra_memop_row row = records->memops[i];
        row.pass_id = pass_id;
        row.scope_id = scope_of(records, NULL, 0, row.correlation_id);
        RA_TRY(ra_store_memop(store, &row, err));
    }
    return store_calls(records, store, pass_id, err);
}

void ra_records_clear(struct ra_records *records)
{
    for (size_t i = 0; i < records->n_names; i++) {
        free(records->names[i].mangled);
        free(records->names[i].name);
    }
    free(records->names);
    free(records->kernels);
    free(records->memops);
    free(records->calls);
    free(records->overheads);
    ra_idmap_clear(&records->steps);
    ra_idmap_clear(&records->ops);
    *records = (struct ra_records){0};
}
#else
extern int ra_records_are_not_built;
#endif
