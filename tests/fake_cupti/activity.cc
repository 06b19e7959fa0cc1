/* SPDX-License-Identifier: Apache-2.0 */
/* Subscribers, external ids and records, in buffers of the client's. */
#include "tests/fake_cupti/internal.h"

#include <deque>
#include <map>
#include <set>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vector>

namespace
{
CUpti_CallbackFunc subscriber;
void *subscriber_data;
std::set<std::pair<int, int>> callbacks; /* domain, id */
std::set<int> kinds;
CUpti_BuffersCallbackRequestFunc request;
CUpti_BuffersCallbackCompleteFunc complete;
uint8_t *buffer;
size_t buffer_bytes, buffer_used;
uint32_t next_call = 1;
bool instantiated_unwatched;
long n_kernels;
std::map<const void *, uint64_t> node_ids;
std::set<std::string> names; /* outlive the records that point to them */
thread_local std::map<int, std::vector<uint64_t>> external;
int token;
} // namespace

static uint64_t now_ns()
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Beyond what a signed number holds, as ids of a card may be. */
static uint64_t id_of(const void *node)
{
    auto it = node_ids.find(node);
    if (it == node_ids.end())
        it = node_ids.emplace(node, 0x8000000000000000u + node_ids.size() + 1).first;
    return it->second;
}

static size_t size_of(int kind)
{
    switch (kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
        return sizeof(CUpti_ActivityKernel10);
    case CUPTI_ACTIVITY_KIND_MEMCPY:
        return sizeof(CUpti_ActivityMemcpy6);
    case CUPTI_ACTIVITY_KIND_MEMSET:
        return sizeof(CUpti_ActivityMemset4);
    case CUPTI_ACTIVITY_KIND_RUNTIME:
    case CUPTI_ACTIVITY_KIND_DRIVER:
        return sizeof(CUpti_ActivityAPI);
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION:
        return sizeof(CUpti_ActivityExternalCorrelation);
    case CUPTI_ACTIVITY_KIND_OVERHEAD:
        return sizeof(CUpti_ActivityOverhead3);
    default:
        return 0;
    }
}

static void hand_over()
{
    if (!buffer)
        return;
    uint8_t *full = buffer;
    buffer = NULL;
    complete(NULL, 0, full, buffer_bytes, buffer_used);
}

static void record(const void *bytes, size_t n)
{
    if (buffer && buffer_bytes - buffer_used < n)
        hand_over();
    if (!buffer) {
        size_t most = 0;
        request(&buffer, &buffer_bytes, &most);
        if (!buffer || buffer_bytes < n || (uintptr_t)buffer % 8)
            fake_fault("the client's buffer is none, too small, or not aligned to 8");
        if (most)
            fake_fault("maxNumRecords was asked to be 0");
        buffer_used = 0;
    }
    memcpy(buffer + buffer_used, bytes, n);
    buffer_used += n;
}

extern "C" {
/* --- what the card tells ---------------------------------------------------------------------- */

uint32_t fake_cupti_call(const char *name)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    uint32_t call = next_call++;
    if (!kinds.count(CUPTI_ACTIVITY_KIND_RUNTIME))
        return call;
    for (const auto &stack : external) {
        if (!kinds.count(CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION) || stack.second.empty())
            continue;
        CUpti_ActivityExternalCorrelation of = {};
        of.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
        of.externalKind = (CUpti_ExternalCorrelationKind)stack.first;
        of.externalId = stack.second.back();
        of.correlationId = call;
        record(&of, sizeof of);
    }
    CUpti_ActivityAPI api = {};
    api.kind = CUPTI_ACTIVITY_KIND_RUNTIME;
    api.cbid = strcmp(name, "cudaGraphLaunch") == 0 ? 311 : 211;
    api.start = now_ns();
    api.end = api.start + 1;
    api.processId = (uint32_t)getpid();
    api.threadId = (uint32_t)gettid();
    api.correlationId = call;
    record(&api, sizeof api);
    return call;
}

void fake_cupti_kernel(const struct fake_kernel *k)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    fake_range_kernel(k);
    if (!kinds.count(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL))
        return;
    if (instantiated_unwatched && k->node)
        fake_fault("a graph runs that was made executable before kernels were watched");
    long lose = fake_number("lose", 0), zero = fake_number("zero", 0);
    n_kernels++;
    if (lose && n_kernels % lose == 0)
        return;
    bool timed = !zero || n_kernels % zero;
    CUpti_ActivityKernel10 r = {};
    r.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
    r.start = timed ? k->start_ns : 0;
    r.end = timed ? k->end_ns : 0;
    r.contextId = 1;
    r.streamId = k->stream;
    r.gridX = (int32_t)k->grid[0], r.gridY = (int32_t)k->grid[1], r.gridZ = (int32_t)k->grid[2];
    r.blockX = (int32_t)k->block[0], r.blockY = (int32_t)k->block[1];
    r.blockZ = (int32_t)k->block[2];
    r.dynamicSharedMemory = (int32_t)k->shared_bytes;
    r.correlationId = k->correlation;
    std::string name = k->name;
    if (fake_number("mangle", 0))
        name = "_Z" + std::to_string(name.size()) + name + "Pfi";
    r.name = names.insert(name).first->c_str();
    r.graphId = k->graph;
    r.graphNodeId = k->node ? id_of(k->node) : 0;
    record(&r, sizeof r);
}

void fake_cupti_copy(const struct fake_copy *c)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    int kind = c->is_set ? CUPTI_ACTIVITY_KIND_MEMSET : CUPTI_ACTIVITY_KIND_MEMCPY;
    if (!kinds.count(kind))
        return;
    CUpti_ActivityMemcpy6 copy = {};
    CUpti_ActivityMemset4 set = {};
    copy.kind = set.kind = (CUpti_ActivityKind)kind;
    copy.copyKind = (uint8_t)c->kind;
    copy.bytes = set.bytes = c->bytes;
    copy.start = set.start = c->start_ns;
    copy.end = set.end = c->end_ns;
    copy.contextId = set.contextId = 1;
    copy.streamId = set.streamId = c->stream;
    copy.correlationId = set.correlationId = c->correlation;
    if (c->is_set)
        record(&set, sizeof set);
    else
        record(&copy, sizeof copy);
}

void fake_cupti_cloned(const void *node, const void *copy)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    std::pair<int, int> wanted = {CUPTI_CB_DOMAIN_RESOURCE, CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED};
    id_of(copy);
    if (!subscriber || !callbacks.count(wanted))
        return;
    CUpti_GraphData graph = {};
    graph.originalNode = (CUgraphNode)(uintptr_t)node;
    graph.node = (CUgraphNode)(uintptr_t)copy;
    CUpti_ResourceData data = {};
    data.resourceDescriptor = &graph;
    subscriber(subscriber_data, CUPTI_CB_DOMAIN_RESOURCE, CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED,
               &data);
}

void fake_cupti_instantiated(void)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    instantiated_unwatched = !kinds.count(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
}

/* --- what the client calls -------------------------------------------------------------------- */

CUptiResult CUPTIAPI cuptiGetVersion(uint32_t *version)
{
    FAKE_ENTER();
    *version = CUPTI_API_VERSION;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiGetTimestamp(uint64_t *timestamp)
{
    FAKE_ENTER();
    *timestamp = now_ns();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiGetResultString(CUptiResult result, const char **text)
{
    static char buffer[32];
    snprintf(buffer, sizeof buffer, "CUPTI_ERROR_%d", (int)result);
    *text = buffer;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiSubscribe_v2(CUpti_SubscriberHandle *handle, CUpti_CallbackFunc callback,
                                       void *data, CUpti_SubscriberParams *params)
{
    if (params->oldSubscriberName)
        snprintf(params->oldSubscriberName, params->oldSubscriberSize, "%s",
                 fake_setting("other").c_str());
    FAKE_ENTER();
    if (subscriber)
        return CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
    subscriber = callback;
    subscriber_data = data;
    *handle = reinterpret_cast<CUpti_SubscriberHandle>(&token);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiUnsubscribe(CUpti_SubscriberHandle)
{
    FAKE_ENTER();
    if (!subscriber)
        fake_fault("unsubscribed, never subscribed");
    if (!kinds.empty())
        fake_fault("unsubscribed while records are made: disable kinds first");
    if (buffer)
        fake_fault("unsubscribed with records that were not flushed");
    subscriber = NULL;
    callbacks.clear();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiEnableCallback(uint32_t enable, CUpti_SubscriberHandle,
                                         CUpti_CallbackDomain domain, CUpti_CallbackId id)
{
    FAKE_ENTER();
    if (!subscriber)
        return CUPTI_ERROR_INVALID_PARAMETER;
    if (enable)
        callbacks.insert({(int)domain, (int)id});
    else
        callbacks.erase({(int)domain, (int)id});
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiGetGraphNodeId(CUgraphNode node, uint64_t *id)
{
    FAKE_ENTER();
    *id = id_of(node);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityEnable(CUpti_ActivityKind kind)
{
    FAKE_ENTER();
    if (!request)
        fake_fault("a kind was enabled before buffers were registered");
    if (!size_of(kind))
        return CUPTI_ERROR_INVALID_KIND;
    kinds.insert(kind);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityDisable(CUpti_ActivityKind kind)
{
    FAKE_ENTER();
    kinds.erase(kind);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivitySetAttribute(CUpti_ActivityAttribute, size_t *, void *)
{
    FAKE_ENTER();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc ask,
                                                    CUpti_BuffersCallbackCompleteFunc done)
{
    FAKE_ENTER();
    request = ask;
    complete = done;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityFlushAll(uint32_t)
{
    FAKE_ENTER();
    hand_over();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityGetNextRecord(uint8_t *from, size_t bytes, CUpti_Activity **next)
{
    FAKE_ENTER();
    if (!from)
        return CUPTI_ERROR_INVALID_PARAMETER;
    uint8_t *at = from;
    if (*next)
        at = (uint8_t *)*next + size_of((*next)->kind);
    if ((size_t)(at - from) + sizeof(CUpti_ActivityKind) > bytes)
        return CUPTI_ERROR_MAX_LIMIT_REACHED;
    size_t size = size_of(((CUpti_Activity *)(void *)at)->kind);
    if (!size)
        return CUPTI_ERROR_INVALID_KIND;
    if ((size_t)(at - from) + size > bytes)
        return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *next = (CUpti_Activity *)(void *)at;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityGetNumDroppedRecords(CUcontext, uint32_t, size_t *n)
{
    static long before;
    FAKE_ENTER();
    *n = n_kernels > before ? (size_t)fake_number("dropped", 0) : 0;
    before = n_kernels; /* reading resets */
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind,
                                                            uint64_t id)
{
    FAKE_ENTER();
    external[kind].push_back(id);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind,
                                                           uint64_t *last)
{
    FAKE_ENTER();
    if (external[kind].empty())
        fake_fault("an external id was popped that was not pushed");
    if (last)
        *last = external[kind].back();
    external[kind].pop_back();
    return CUPTI_SUCCESS;
}
}
