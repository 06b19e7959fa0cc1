/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, events and graphs. A stream is a queue of closures: with seed 0 they run at once, with
 * another some run now, by chance, and the rest when somebody waits. A graph is a list of such
 * closures with the order its streams and events gave them.
 */
#include "tests/emu/internal.h"

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

/* One thing to do: work, or wait until `event` is through with its `wanted`-th record. */
struct op {
    std::function<void()> work;
    cudaEvent_t event;
    uint64_t wanted;
};

/* What a capture saw: the op, its stream, and which op of the graph it waits for (-1: none). */
struct CUgraphNode_st {
    char is_one; /* of account is the address */
};
struct node {
    std::function<void()> work;
    cudaStream_t stream;
    int after;
    std::shared_ptr<CUgraphNode_st> handle;
};

struct CUgraph_st {
    std::vector<node> nodes;
};
struct CUgraphExec_st {
    std::vector<node> nodes;
    uint32_t number;
};

struct capture {
    cudaStream_t origin;
    std::vector<node> nodes;
    std::map<cudaStream_t, int> last; /* node that ends each stream that takes part, -1: none yet */
    std::set<cudaStream_t> loose;     /* have work that the origin does not wait for */
    bool spoilt;
};

struct CUstream_st {
    unsigned flags;
    std::deque<op> queue;
    struct capture *capture;
};

struct CUevent_st {
    unsigned flags;
    cudaStream_t stream;
    uint64_t recorded, done;
    double ms;
    struct capture *capture; /* the last record belongs to it: node `at` of stream */
    int at;
};

namespace
{
struct CUstream_st legacy;
std::set<cudaStream_t> streams = {&legacy};
std::set<cudaEvent_t> events;
std::set<struct capture *> captures;
std::set<cudaGraph_t> graphs;
std::set<cudaGraphExec_t> execs;
} // namespace

/* --- order ------------------------------------------------------------------------------------ */

static void step(cudaStream_t stream)
{
    op next = std::move(stream->queue.front());
    stream->queue.pop_front();
    while (next.event && next.event->done < next.wanted)
        step(next.event->stream);
    if (next.work)
        next.work();
}

static void drain(cudaStream_t stream)
{
    while (!stream->queue.empty())
        step(stream);
}

void ra_emu_drain()
{
    for (cudaStream_t stream : streams)
        drain(stream);
}

bool ra_emu_capturing()
{
    return !captures.empty();
}

/* A call that would wait for, or act on, what is only being recorded. */
static bool forbidden(cudaStream_t stream)
{
    if (stream && !stream->capture)
        return false;
    for (struct capture *c : captures)
        c->spoilt = true;
    return !captures.empty();
}

/* The stream a handle means; NULL if it means none. */
static cudaStream_t resolve(cudaStream_t stream)
{
    if (!stream || stream == cudaStreamLegacy)
        return &legacy;
    return streams.count(stream) ? stream : NULL;
}

static int append(struct capture *c, cudaStream_t stream, std::function<void()> work, int after)
{
    c->nodes.push_back({std::move(work), stream, after, std::make_shared<CUgraphNode_st>()});
    if (stream != c->origin)
        c->loose.insert(stream);
    return c->last[stream] = (int)c->nodes.size() - 1;
}

/* The legacy stream comes after everything that blocking streams have, and before what follows. */
static void respect_legacy(cudaStream_t stream)
{
    if (stream != &legacy) {
        if (!(stream->flags & cudaStreamNonBlocking))
            drain(&legacy);
        return;
    }
    for (cudaStream_t other : streams)
        if (other != &legacy && !(other->flags & cudaStreamNonBlocking))
            drain(other);
}

static cudaError_t push(cudaStream_t stream, op next)
{
    if (stream == &legacy && forbidden(NULL))
        return cudaErrorStreamCaptureUnsupported;
    respect_legacy(stream);
    stream->queue.push_back(std::move(next));
    if (!ra_emu_shuffled()) {
        drain(stream);
        return cudaSuccess;
    }
    for (cudaStream_t any : streams)
        while (!any->queue.empty() && ra_emu_below(2))
            step(any);
    return cudaSuccess;
}

cudaError_t ra_emu_submit(cudaStream_t handle, std::function<void()> work)
{
    cudaStream_t stream = resolve(handle);
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    if (!stream->capture)
        return push(stream, {std::move(work), NULL, 0});
    append(stream->capture, stream, std::move(work), -1);
    return cudaSuccess;
}

/* --- streams ---------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    RA_EMU_ENTER();
    *stream = new CUstream_st();
    (*stream)->flags = flags;
    streams.insert(*stream);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    if (!streams.count(stream) || stream == &legacy)
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    drain(stream);
    streams.erase(stream);
    delete stream;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    RA_EMU_ENTER();
    cudaStream_t stream = resolve(handle);
    if (!stream)
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (forbidden(stream == &legacy ? NULL : stream))
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    respect_legacy(stream);
    drain(stream);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    RA_EMU_ENTER();
    cudaStream_t stream = resolve(handle);
    if (!stream)
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (forbidden(stream))
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    if (!stream->queue.empty()) /* whoever asks again and again gets there */
        step(stream);
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    RA_EMU_ENTER();
    if (forbidden(NULL))
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    ra_emu_drain();
    return ra_emu_result(cudaSuccess);
}

/* --- events ----------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    RA_EMU_ENTER();
    *event = new CUevent_st();
    (*event)->flags = flags;
    events.insert(*event);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    if (!events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    ra_emu_drain();
    events.erase(event);
    delete event;
    return ra_emu_result(cudaSuccess);
}

static void happen(cudaEvent_t event, uint64_t number)
{
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    event->done = number;
    event->ms = std::chrono::duration<double, std::milli>(now).count();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    RA_EMU_ENTER();
    cudaStream_t stream = resolve(handle);
    if (!stream || !events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    event->stream = stream;
    event->capture = stream->capture;
    if (stream->capture) {
        event->at = append(stream->capture, stream, NULL, -1);
        return ra_emu_result(cudaSuccess);
    }
    uint64_t number = ++event->recorded;
    return ra_emu_result(push(stream, {[event, number] { happen(event, number); }, NULL, 0}));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags)
{
    if (flags == cudaEventRecordDefault)
        return cudaEventRecord(event, handle);
    RA_EMU_ENTER();
    cudaStream_t stream = resolve(handle);
    if (!stream || !events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (flags != cudaEventRecordExternal || !stream->capture)
        return ra_emu_result(cudaErrorInvalidValue);
    auto record = [event] { happen(event, ++event->recorded); };
    append(stream->capture, stream, record, -1);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned)
{
    RA_EMU_ENTER();
    cudaStream_t stream = resolve(handle);
    if (!stream || !events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    struct capture *c = captures.count(event->capture) ? event->capture : NULL;
    if (!c && !stream->capture)
        return ra_emu_result(push(stream, {NULL, event, event->recorded}));
    if (!c || (stream->capture && stream->capture != c)) {
        forbidden(NULL);
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    }
    stream->capture = c;
    append(c, stream, NULL, event->at);
    if (stream == c->origin && c->last[event->stream] == event->at)
        c->loose.erase(event->stream);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    RA_EMU_ENTER();
    if (!events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (captures.count(event->capture) && forbidden(NULL))
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    while (event->done < event->recorded)
        step(event->stream);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    RA_EMU_ENTER();
    if (!events.count(event))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (event->done < event->recorded)
        step(event->stream);
    return event->done < event->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    RA_EMU_ENTER();
    if (!events.count(from) || !events.count(to) || !from->recorded || !to->recorded ||
        (from->flags | to->flags) & cudaEventDisableTiming)
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    if (from->done < from->recorded || to->done < to->recorded)
        return ra_emu_result(cudaErrorNotReady);
    *ms = (float)(to->ms - from->ms);
    return ra_emu_result(cudaSuccess);
}

/* --- graphs ----------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
    RA_EMU_ENTER();
    if (!streams.count(stream) || stream->capture)
        return ra_emu_result(cudaErrorStreamCaptureUnsupported);
    stream->capture = new capture();
    stream->capture->origin = stream;
    captures.insert(stream->capture);
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    RA_EMU_ENTER();
    *graph = NULL;
    struct capture *c = streams.count(stream) ? stream->capture : NULL;
    if (!c || c->origin != stream)
        return ra_emu_result(cudaErrorInvalidValue);
    cudaError_t error = c->spoilt           ? cudaErrorStreamCaptureInvalidated
                        : !c->loose.empty() ? cudaErrorStreamCaptureUnjoined
                                            : cudaSuccess;
    if (!error) {
        *graph = new CUgraph_st{std::move(c->nodes)};
        graphs.insert(*graph);
    }
    for (cudaStream_t each : streams)
        if (each->capture == c)
            each->capture = NULL;
    captures.erase(c);
    delete c;
    return ra_emu_result(error);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                     unsigned long long *, cudaGraph_t *,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **,
                                     size_t *n_nodes)
{
    static cudaGraphNode_t last;
    RA_EMU_ENTER();
    if (!streams.count(stream))
        return ra_emu_result(cudaErrorInvalidResourceHandle);
    struct capture *c = stream->capture;
    *status = c ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    *n_nodes = 0;
    if (!c || c->last.find(stream) == c->last.end() || c->last[stream] < 0)
        return ra_emu_result(cudaSuccess);
    last = c->nodes[(size_t)c->last[stream]].handle.get();
    *nodes = &last;
    *n_nodes = 1;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    RA_EMU_ENTER();
    if (!graphs.count(graph))
        return ra_emu_result(cudaErrorInvalidValue);
    static uint32_t number;
    *exec = new CUgraphExec_st{graph->nodes, ++number};
    for (node &each : (*exec)->nodes) { /* which are nodes of their own */
        std::shared_ptr<CUgraphNode_st> original = each.handle;
        each.handle = std::make_shared<CUgraphNode_st>();
        ra_emu_cloned(original.get(), each.handle.get());
    }
    ra_emu_instantiated();
    execs.insert(*exec);
    return ra_emu_result(cudaSuccess);
}

/* Streams of the graph take turns by chance; each keeps its order and waits for what it waits for.
 */
static void replay(const std::vector<node> &nodes, uint32_t call, uint32_t graph)
{
    std::vector<bool> done(nodes.size());
    for (size_t left = nodes.size(); left; left--) {
        std::set<cudaStream_t> seen;
        std::vector<size_t> able;
        for (size_t i = 0; i < nodes.size(); i++)
            if (!done[i] && seen.insert(nodes[i].stream).second &&
                (nodes[i].after < 0 || done[(size_t)nodes[i].after]))
                able.push_back(i);
        size_t next = able[ra_emu_below(able.size())];
        ra_emu_from({call, graph, nodes[next].handle.get()});
        if (nodes[next].work)
            nodes[next].work();
        done[next] = true;
    }
    ra_emu_from({});
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    RA_EMU_ENTER();
    if (!execs.count(exec))
        return ra_emu_result(cudaErrorInvalidValue);
    std::vector<node> nodes = exec->nodes;
    uint32_t call = ra_emu_call("cudaGraphLaunch"), number = exec->number;
    return ra_emu_result(ra_emu_submit(stream, [=] { replay(nodes, call, number); }));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    if (!graphs.erase(graph))
        return ra_emu_result(cudaErrorInvalidValue);
    delete graph;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    if (!execs.erase(exec))
        return ra_emu_result(cudaErrorInvalidValue);
    delete exec;
    return ra_emu_result(cudaSuccess);
}
