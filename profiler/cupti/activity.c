/* SPDX-License-Identifier: Apache-2.0 */
/* A session of the Activity API: subscribe, attributes, buffers, kinds; and the same backwards. */
#include "profiler/activity.h"

#ifdef RA_CUPTI
#include <stdlib.h>
#include <time.h>

#include "profiler/cupti/buffers.h"

struct ra_activity {
    const struct ra_cupti *cupti;
    CUpti_SubscriberHandle subscriber;
    bool is_subscribed;
    int n_enabled;
    struct ra_buffers buffers;
    pthread_mutex_t lock;  /* of nodes: graphs may be instantiated by any thread */
    struct ra_idmap nodes; /* node id to scope */
    enum ra_status status; /* of what a callback could not do */
    struct ra_error error;
};

/* CUPTI's callbacks for buffers have no context: there is one session. */
static struct ra_activity *session;

static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                           CUPTI_ACTIVITY_KIND_MEMCPY,
                                           CUPTI_ACTIVITY_KIND_MEMSET,
                                           CUPTI_ACTIVITY_KIND_RUNTIME,
                                           CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,
                                           CUPTI_ACTIVITY_KIND_OVERHEAD};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static enum ra_status done(const struct ra_activity *a, CUptiResult result, const char *what,
                           struct ra_error *err)
{
    char text[RA_CUPTI_RESULT_MAX];
    if (result == CUPTI_SUCCESS)
        return RA_OK;
    return ra_fail(err, RA_ENODEV, "cuda: %s: %s", what, ra_cupti_result(a->cupti, result, text));
}

/* --- callbacks -------------------------------------------------------------------------------- */

static void CUPTIAPI give_buffer(uint8_t **buffer, size_t *size, size_t *max_records)
{
    *buffer = session ? ra_buffers_take(&session->buffers) : NULL;
    *size = *buffer ? RA_BUFFER_BYTES : 0;
    *max_records = 0;
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t valid)
{
    (void)context;
    (void)stream;
    (void)size;
    if (session && buffer)
        ra_buffers_give(&session->buffers, buffer, valid);
}

static enum ra_status put_node(struct ra_activity *a, uint64_t id, int64_t scope_id)
{
    pthread_mutex_lock(&a->lock);
    struct ra_error why;
    enum ra_status st = ra_idmap_put(&a->nodes, id, scope_id, &why);
    if (st != RA_OK) {
        a->status = st;
        a->error = why;
    }
    pthread_mutex_unlock(&a->lock);
    return st;
}

/* An executable graph has nodes of its own: they are of the scopes of those they were made from. */
static void node_cloned(struct ra_activity *a, const CUpti_GraphData *graph)
{
    uint64_t original = 0, clone = 0;
    if (a->cupti->cuptiGetGraphNodeId(graph->originalNode, &original) != CUPTI_SUCCESS ||
        a->cupti->cuptiGetGraphNodeId(graph->node, &clone) != CUPTI_SUCCESS)
        return;
    pthread_mutex_lock(&a->lock);
    int64_t scope_id = ra_idmap_get(&a->nodes, original);
    pthread_mutex_unlock(&a->lock);
    if (scope_id)
        (void)!put_node(a, clone, scope_id);
}

static void CUPTIAPI hear(void *context, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                          const void *data)
{
    const CUpti_ResourceData *resource = data;
    if (domain == CUPTI_CB_DOMAIN_RESOURCE && id == CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED)
        node_cloned(context, resource->resourceDescriptor);
}

/* --- life ------------------------------------------------------------------------------------- */

static enum ra_status subscribe(struct ra_activity *a, struct ra_error *err)
{
    char other[CUPTI_OLD_SUBSCRIBER_NAME_MIN_LEN + 1] = "";
    CUpti_SubscriberParams params = {.structSize = CUpti_SubscriberParams_STRUCT_SIZE,
                                     .subscriberName = "rattn-sim",
                                     .oldSubscriberName = other,
                                     .oldSubscriberSize = sizeof other};
    CUptiResult result = a->cupti->cuptiSubscribe_v2(&a->subscriber, hear, a, &params);
    if (result == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED)
        return ra_fail(
            err, RA_ENODEV,
            "cuda: another CUPTI tool (%s) is attached; run without nsys or ncu, or with "
            "--profile off",
            other[0] ? other : "of no name");
    RA_TRY(done(a, result, "cuptiSubscribe", err));
    a->is_subscribed = true;
    return done(a,
                a->cupti->cuptiEnableCallback(1, a->subscriber, CUPTI_CB_DOMAIN_RESOURCE,
                                              CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED),
                "watch graphs", err);
}

static enum ra_status enable(struct ra_activity *a, struct ra_error *err)
{
    uint8_t zeroed = 1;
    size_t size = sizeof zeroed;
    (void)a->cupti->cuptiActivitySetAttribute(CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER, &size,
                                              &zeroed);
    RA_TRY(done(a, a->cupti->cuptiActivityRegisterCallbacks(give_buffer, take_buffer),
                "cuptiActivityRegisterCallbacks", err));
    for (; a->n_enabled < N_KINDS; a->n_enabled++)
        RA_TRY(done(a, a->cupti->cuptiActivityEnable(kinds[a->n_enabled]), "cuptiActivityEnable",
                    err));
    return RA_OK;
}

enum ra_status ra_activity_open(struct ra_activity **activity, struct ra_error *err)
{
    struct ra_activity *a = calloc(1, sizeof *a);
    *activity = a;
    if (!a)
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for a session");
    RA_BUG_ON(session);
    pthread_mutex_init(&a->lock, NULL);
    enum ra_status st = ra_cupti_load(&a->cupti, err);
    if (st == RA_OK)
        st = ra_buffers_open(&a->buffers, a->cupti, err);
    if (st == RA_OK) {
        session = a;
        st = subscribe(a, err);
    }
    if (st == RA_OK)
        st = enable(a, err);
    if (st != RA_OK) {
        ra_activity_close(a);
        *activity = NULL;
    }
    return st;
}

void ra_activity_close(struct ra_activity *a)
{
    if (!a)
        return;
    if (session == a && a->n_enabled > 0)
        (void)a->cupti->cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    while (a->n_enabled > 0)
        (void)a->cupti->cuptiActivityDisable(kinds[--a->n_enabled]);
    if (a->is_subscribed)
        (void)a->cupti->cuptiUnsubscribe(a->subscriber);
    if (session == a) {
        (void)!ra_buffers_settle(&a->buffers, NULL);
        session = NULL;
    }
    if (a->cupti)
        ra_buffers_close(&a->buffers);
    ra_idmap_clear(&a->nodes);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* --- scopes ----------------------------------------------------------------------------------- */

enum ra_status ra_activity_node(struct ra_activity *a, void *node, int64_t scope_id,
                                struct ra_error *err)
{
    uint64_t id = 0;
    RA_TRY(done(a, a->cupti->cuptiGetGraphNodeId(node, &id), "cuptiGetGraphNodeId", err));
    enum ra_status st = put_node(a, id, scope_id);
    if (st != RA_OK && err)
        *err = a->error;
    return st;
}

static CUpti_ExternalCorrelationKind external(enum ra_activity_scope kind)
{
    return kind == RA_ACTIVITY_STEP ? CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0
                                    : CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM1;
}

enum ra_status ra_activity_push(struct ra_activity *a, enum ra_activity_scope kind,
                                int64_t scope_id, struct ra_error *err)
{
    CUptiResult result =
        a->cupti->cuptiActivityPushExternalCorrelationId(external(kind), (uint64_t)scope_id);
    return done(a, result, "push an external id", err);
}

enum ra_status ra_activity_pop(struct ra_activity *a, enum ra_activity_scope kind,
                               struct ra_error *err)
{
    uint64_t last = 0;
    CUptiResult result = a->cupti->cuptiActivityPopExternalCorrelationId(external(kind), &last);
    return done(a, result, "pop an external id", err);
}

/* --- records ---------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ra_activity_clocks(const struct ra_activity *a, struct ra_clock_triple *clocks)
{
    uint64_t cupti = 0;
    clocks->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
    if (a->cupti->cuptiGetTimestamp(&cupti) != CUPTI_SUCCESS)
        cupti = 0;
    clocks->cupti_ns = cupti;
    clocks->realtime_ns = clock_ns(CLOCK_REALTIME);
}

/* The device must be idle: a flush does not wait for it. */
static enum ra_status flush(struct ra_activity *a, struct ra_error *err)
{
    RA_TRY(done(a, a->cupti->cuptiActivityFlushAll(0), "cuptiActivityFlushAll", err));
    RA_TRY(done(a, a->cupti->cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED),
                "cuptiActivityFlushAll", err));
    RA_TRY(ra_buffers_settle(&a->buffers, err));
    if (a->status != RA_OK && err)
        *err = a->error;
    return a->status;
}

static int64_t read_dropped(const struct ra_activity *a)
{
    size_t n = 0;
    return a->cupti->cuptiActivityGetNumDroppedRecords(NULL, 0, &n) == CUPTI_SUCCESS ? (int64_t)n
                                                                                     : -1;
}

enum ra_status ra_activity_discard(struct ra_activity *a, struct ra_error *err)
{
    RA_TRY(flush(a, err));
    (void)read_dropped(a); /* reading resets */
    a->buffers.n_refused = 0;
    ra_records_clear(&a->buffers.records);
    return RA_OK;
}

enum ra_status ra_activity_collect(struct ra_activity *a, struct ra_store *store, int64_t pass_id,
                                   struct ra_activity_counts *counts, struct ra_error *err)
{
    struct ra_records *records = &a->buffers.records;
    struct ra_records_stored stored;
    *counts = (struct ra_activity_counts){0};
    RA_TRY(flush(a, err));
    counts->dropped = read_dropped(a);
    counts->unreadable = (int64_t)records->n_unreadable;
    counts->refused = a->buffers.n_refused;
    RA_TRY(ra_store_expect_rows(store, (int64_t)(records->n_kernels + records->n_calls), err));
    RA_TRY(ra_records_store(records, &a->nodes, store, pass_id, &stored, err));
    counts->kernels = stored.kernels;
    counts->zero_time = stored.zero_time;
    counts->unplaced = stored.unplaced;
    a->buffers.n_refused = 0;
    ra_records_clear(records);
    return RA_OK;
}
#else
static enum ra_status not_built(struct ra_error *err)
{
    return ra_fail(err, RA_ENODEV, "cuda: built without the headers of CUPTI");
}

enum ra_status ra_activity_open(struct ra_activity **activity, struct ra_error *err)
{
    *activity = NULL;
    return not_built(err);
}

enum ra_status ra_activity_node(struct ra_activity *a, void *node, int64_t scope_id,
                                struct ra_error *err)
{
    (void)a;
    (void)node;
    (void)scope_id;
    return not_built(err);
}

enum ra_status ra_activity_push(struct ra_activity *a, enum ra_activity_scope kind,
                                int64_t scope_id, struct ra_error *err)
{
    (void)a;
    (void)kind;
    (void)scope_id;
    return not_built(err);
}

enum ra_status ra_activity_pop(struct ra_activity *a, enum ra_activity_scope kind,
                               struct ra_error *err)
{
    (void)a;
    (void)kind;
    return not_built(err);
}

void ra_activity_clocks(const struct ra_activity *a, struct ra_clock_triple *clocks)
{
    (void)a;
    *clocks = (struct ra_clock_triple){0};
}

enum ra_status ra_activity_discard(struct ra_activity *a, struct ra_error *err)
{
    (void)a;
    return not_built(err);
}

enum ra_status ra_activity_collect(struct ra_activity *a, struct ra_store *store, int64_t pass_id,
                                   struct ra_activity_counts *counts, struct ra_error *err)
{
    (void)a;
    (void)store;
    (void)pass_id;
    *counts = (struct ra_activity_counts){0};
    return not_built(err);
}

void ra_activity_close(struct ra_activity *a)
{
    (void)a;
}
#endif
