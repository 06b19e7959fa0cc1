/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps as graphs, in as many pieces as the host waits for decisions. In the checked run every
 * operand that comes from the host is counted; the same calls then find room for all of them, so
 * that the recorded steps, played one after another, need nothing from the host: what a step reads
 * is on the card before the first begins, and what steps produced is fetched after the last ended.
 */
#include "kernels/cuda/backend.cuh"
#include "kernels/cuda/between.cuh"

#include <algorithm>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPERAND_ALIGNMENT = 256 };

/* Launches in a list are run by `play`. */
static enum ra_status run_or_list(struct ra_cuda *cuda, const char *name,
                                  const std::function<cudaError_t()> &run, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    if (!r.is_on || !cuda->config.no_graph)
        return ra_cuda_done(run(), name, err);
    r.steps.back().push_back({name, run});
    return RA_OK;
}

enum ra_status ra_cuda_launch(struct ra_cuda *cuda, cudaStream_t stream, const ra_cuda_work &work,
                              struct ra_error *err)
{
    bool is_main = stream == cuda->stream;
    /* A checked run copies between launches. */
    bool early =
        cuda->config.early && cuda->recording.is_on && is_main && cuda->ahead != RA_CUDA_NO_KERNEL;
    if (is_main)
        cuda->ahead = work.is_append ? RA_CUDA_APPEND : RA_CUDA_KERNEL;
    ra_cuda_recording &r = cuda->recording;
    if (!r.is_on)
        return ra_cuda_done(work.launch(stream), work.name, err);
    size_t i = r.steps.size() - 1;
    bool captured = !cuda->config.no_graph;
    return run_or_list(
        cuda, work.name,
        [=] {
            ra_early_launches may_start(early);
            ra_cuda_recording &now = cuda->recording;
            ra_cuda_watched seen(cuda->config.watch, now.is_counted ? NULL : &now.launched[i], work,
                                 (int32_t)i - 1, captured);
            return work.launch(stream);
        },
        err);
}

enum ra_status ra_cuda_between(struct ra_cuda *cuda, const char *name,
                               const std::function<cudaError_t()> &run, struct ra_error *err)
{
    cuda->ahead = RA_CUDA_NO_KERNEL;
    return run_or_list(cuda, name, run, err);
}

void *ra_cuda_keep(struct ra_cuda *cuda, const void *operand, size_t bytes)
{
    ra_cuda_recording &r = cuda->recording;
    size_t room = (bytes + OPERAND_ALIGNMENT - 1) / OPERAND_ALIGNMENT * OPERAND_ALIGNMENT;
    if (!r.is_on) {
        r.needed += room;
        return NULL;
    }
    RA_BUG_ON(room > r.size - r.used); /* not the calls of the checked run */
    char *at = r.card + r.used;
    memcpy(r.host + r.used, operand, bytes);
    r.used += room;
    return at;
}

/* Of one copy of one layer at one step. */
static size_t output_floats(const struct ra_cuda *cuda)
{
    return (size_t)cuda->model.Hq * (size_t)cuda->model.D;
}

/* Both branches of a decision have one output. That of a full step comes first. */
float *ra_cuda_output(struct ra_cuda *cuda)
{
    ra_cuda_recording &r = cuda->recording;
    size_t n = (size_t)cuda->at_hand, at = r.n_outputs;
    if (!cuda->is_passed_over)
        r.n_outputs += n;
    else if (cuda->branch == RA_BRANCH_RECYCLED)
        at -= n;
    if (!r.is_on)
        return cuda->out.card;
    RA_BUG_ON(at + n > r.outputs_of_run);
    return r.outputs.card + at * output_floats(cuda);
}

void ra_cuda_recording_reset(struct ra_cuda *cuda)
{
    ra_cuda_recording &r = cuda->recording;
    if (r.is_on)
        return;
    r.needed = r.n_outputs = 0;
    r.choices.clear();
}

void ra_cuda_recording_close(struct ra_cuda *cuda)
{
    ra_cuda_recording &r = cuda->recording;
    for (cudaGraphExec_t graph : r.graphs)
        cudaGraphExecDestroy(graph);
    for (cudaEvent_t mark : r.marks)
        cudaEventDestroy(mark);
    for (const std::vector<cudaEvent_t> &span : r.spans)
        for (cudaEvent_t mark : span)
            cudaEventDestroy(mark);
    if (r.is_capturing) {
        cudaGraph_t unfinished = NULL;
        cudaStreamEndCapture(cuda->stream, &unfinished);
        if (unfinished)
            cudaGraphDestroy(unfinished);
    }
    cudaFree(r.card);
    cudaFree(r.outputs.card);
    cudaFreeHost(r.outputs.host);
    free(r.host);
    r = {};
}

static enum ra_status allocate(ra_cuda_recording *r, size_t output_bytes, struct ra_error *err)
{
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    r->host = (char *)malloc(r->size);
    if (!r->host)
        return ra_fail(err, RA_ENOMEM, "cuda: no memory for %zu bytes of recorded rows", r->size);
    if (cudaMalloc((void **)&r->card, r->size) != cudaSuccess ||
        cudaMalloc((void **)&r->outputs.card, output_bytes) != cudaSuccess ||
        cudaMallocHost((void **)&r->outputs.host, output_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return ra_fail(err, RA_ENOMEM,
                       "cuda: rows, choices and outputs of all steps need %zu bytes of the card's "
                       "memory, %zu of %zu are free; replay fewer steps (--steps)",
                       r->size + output_bytes, free_bytes, total);
    }
    return RA_OK;
}

enum ra_status ra_cuda_record_begin(void *self, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_recording checked = cuda->recording;
    size_t floats = output_floats(cuda);
    RA_BUG_ON(checked.is_on);
    cuda->recording = {};
    ra_cuda_recording &r = cuda->recording;
    r.size = checked.needed > 0 ? checked.needed : (size_t)OPERAND_ALIGNMENT;
    r.outputs_of_run = checked.n_outputs;
    r.choices = checked.choices;
    r.surprised = -1;
    RA_TRY(allocate(&r, (checked.n_outputs ? checked.n_outputs : 1) * floats * sizeof(float), err));
    r.is_on = true;
    return RA_OK;
}

/* A layer's part begins or ends here, in each play. */
static enum ra_status mark_span(struct ra_cuda *cuda, struct ra_error *err)
{
    cudaEvent_t mark = NULL;
    RA_TRY(ra_cuda_done(cudaEventCreate(&mark), "make an event", err));
    cuda->recording.spans.back().push_back(mark);
    unsigned flags = cuda->config.no_graph ? cudaEventRecordDefault : cudaEventRecordExternal;
    cudaStream_t stream = cuda->stream;
    return ra_cuda_between(
        cuda, "mark a layer", [=] { return cudaEventRecordWithFlags(mark, stream, flags); }, err);
}

enum ra_status ra_cuda_begin_layer(struct ra_cuda *cuda, struct ra_error *err)
{
    if (!cuda->config.between || !cuda->recording.is_open)
        return RA_OK;
    if (!cuda->recording.spans.back().empty())
        RA_TRY(mark_span(cuda, err));
    const char *from = cuda->filler;
    uint64_t n = cuda->filler_bytes / 16;
    uint32_t *never = cuda->never;
    auto launch = [=](cudaStream_t stream) { return ra_launch_between(from, n, never, stream); };
    RA_TRY(ra_cuda_launch(cuda, cuda->stream, {"read between layers", launch, "between", -1, false},
                          err));
    return mark_span(cuda, err);
}

/* What was captured becomes a graph, and a part of the step. */
static enum ra_status end_capture(struct ra_cuda *cuda, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t part = NULL;
    if (!r.is_capturing)
        return RA_OK;
    RA_TRY(ra_cuda_done(cudaStreamEndCapture(cuda->stream, &graph), "end recording a step", err));
    r.is_capturing = false;
    cudaError_t error = cudaGraphInstantiate(&part, graph, 0);
    cudaGraphDestroy(graph);
    RA_TRY(ra_cuda_done(error, "make a graph of a step", err));
    r.graphs.push_back(part);
    cudaStream_t stream = cuda->stream;
    r.steps.back().push_back({"launch a step", [=] { return cudaGraphLaunch(part, stream); }});
    return RA_OK;
}

static enum ra_status begin_capture(struct ra_cuda *cuda, struct ra_error *err)
{
    if (cuda->config.no_graph)
        return RA_OK;
    RA_TRY(ra_cuda_done(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                        "record a step", err));
    cuda->recording.is_capturing = true;
    return RA_OK;
}

static enum ra_status close_step(struct ra_cuda *cuda, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    if (!r.is_open)
        return RA_OK;
    RA_TRY(ra_cuda_flush(cuda, err));
    RA_TRY(ra_cuda_settle(cuda, err));
    if (!r.spans.back().empty())
        RA_TRY(mark_span(cuda, err));
    r.is_open = false;
    r.n_steps++;
    return end_capture(cuda, err);
}

/* The host waits for what was decided. */
static cudaError_t learn(struct ra_cuda *cuda, const int32_t *fires, int layer,
                         const std::vector<int32_t> &expects)
{
    int32_t *host = cuda->fires.host;
    size_t n = expects.size();
    cudaError_t error =
        cudaMemcpyAsync(host, fires, n * sizeof *host, cudaMemcpyDeviceToHost, cuda->stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(cuda->stream);
    for (size_t i = 0; error == cudaSuccess && i < n; i++)
        if ((host[i] != 0) != (expects[i] != 0))
            cuda->recording.surprised = layer;
    return error;
}

enum ra_status ra_cuda_ask(struct ra_cuda *cuda, const ra_cuda_call &call, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    const int32_t *fires = cuda->layers[call.layer].fires + call.first;
    std::vector<int32_t> expects = call.expects;
    int layer = call.layer;
    RA_TRY(ra_cuda_join(cuda, err));
    RA_TRY(end_capture(cuda, err));
    cuda->ahead = RA_CUDA_NO_KERNEL;
    r.steps.back().push_back(
        {"wait for a decision", [=] { return learn(cuda, fires, layer, expects); }});
    return begin_capture(cuda, err);
}

static enum ra_status add_mark(struct ra_cuda *cuda, struct ra_error *err)
{
    cudaEvent_t mark = NULL;
    RA_TRY(ra_cuda_done(cudaEventCreate(&mark), "make an event", err));
    cuda->recording.marks.push_back(mark);
    return RA_OK;
}

enum ra_status ra_cuda_record_step(void *self, int32_t t, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_recording &r = cuda->recording;
    RA_TRY(close_step(cuda, err));
    RA_BUG_ON(!r.is_on || t + 1 != r.n_steps);
    RA_TRY(add_mark(cuda, err));
    cuda->ahead = RA_CUDA_NO_KERNEL;
    r.is_open = true;
    r.spans.emplace_back();
    r.steps.emplace_back();
    r.launched.push_back({0, 0});
    return begin_capture(cuda, err);
}

/* The state after `load`; what is beyond the counts is of no consequence. */
static enum ra_status rewind(struct ra_cuda *cuda, struct ra_error *err)
{
    size_t counts = (size_t)cuda->rows * sizeof(int32_t);
    for (int i = 0; i < cuda->config.n_layers; i++) {
        const struct ra_cuda_layer *layer = &cuda->layers[i];
        RA_TRY(ra_cuda_clear(cuda, layer, err));
        RA_TRY(ra_cuda_done(cudaMemcpyAsync(layer->n, layer->n_prompt, counts,
                                            cudaMemcpyDeviceToDevice, cuda->stream),
                            "rewind", err));
        if (layer->digest) /* a page may have grown since */
            RA_TRY(ra_cuda_done(ra_cuda_digest(cuda, layer, 0, cuda->B, -1, cuda->stream), "rewind",
                                err));
    }
    return RA_OK;
}

static uint64_t now_ns()
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum ra_status launch(struct ra_cuda *cuda, size_t i, struct ra_error *err)
{
    for (const ra_cuda_recorded &each : cuda->recording.steps[i])
        RA_TRY(ra_cuda_done(each.run(), each.name, err));
    return RA_OK;
}

/* The prefill, which comes first, is no step. */
static void tell_late(const ra_cuda_recording &r, size_t i, struct ra_step_time *times)
{
    if (i > 0 && i < r.steps.size() && r.steps[i].size() == 1)
        times[i].is_late = true;
}

/* Before step i, or after the last. A card that has run dry waited for the mark, in the step ahead,
 * and waits for what follows it. */
static enum ra_status mark_step(struct ra_cuda *cuda, size_t i, struct ra_step_time *times,
                                struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    if (i > 0 && ra_has_run_dry(cuda->stream)) {
        tell_late(r, i - 1, times);
        tell_late(r, i, times);
    }
    return ra_cuda_done(cudaEventRecord(r.marks[i], cuda->stream), "mark a step", err);
}

/* Where the card is still at the step ahead when this one is all there, it waits for nothing. */
static enum ra_status launch_step(struct ra_cuda *cuda, size_t i, struct ra_step_time *times,
                                  struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    times[i].begin_ns = now_ns();
    RA_TRY(mark_step(cuda, i, times, err));
    RA_TRY(launch(cuda, i, err));
    if (i > 0 && ra_has_come_to(r.marks[i]))
        tell_late(r, i, times);
    times[i].end_ns = now_ns();
    return RA_OK;
}

static enum ra_status run_steps(struct ra_cuda *cuda, struct ra_step_time *times,
                                struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    const struct ra_backend_watch *watch = cuda->config.watch;
    if (cuda->config.no_graph && !r.is_counted) /* a play before may have failed on its way */
        std::fill(r.launched.begin(), r.launched.end(), ra_step_launches{0, 0});
    for (size_t i = 0; i < (size_t)r.n_steps; i++)
        times[i].is_late = false;
    for (size_t i = 0; i < (size_t)r.n_steps; i++) {
        if (watch && watch->step)
            watch->step(watch->context, (int32_t)i - 1, true);
        enum ra_status st = launch_step(cuda, i, times, err);
        if (watch && watch->step)
            watch->step(watch->context, (int32_t)i - 1, false);
        RA_TRY(st);
    }
    r.is_counted = true;
    return mark_step(cuda, (size_t)r.n_steps, times, err);
}

/* The last step ends here, and all operands go to the card. */
static enum ra_status end_recording(struct ra_cuda *cuda, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    if (!r.is_open)
        return RA_OK;
    RA_TRY(close_step(cuda, err));
    RA_TRY(add_mark(cuda, err));
    return ra_cuda_done(cudaMemcpy(r.card, r.host, r.used, cudaMemcpyHostToDevice),
                        "copy to the card", err);
}

/* The first copy's outputs in line, if the others' are the same. */
static enum ra_status keep_first(struct ra_cuda *cuda, struct ra_error *err)
{
    ra_cuda_recording &r = cuda->recording;
    size_t one = output_floats(cuda), all = one * (size_t)cuda->B;
    for (size_t i = 0; i < r.n_outputs / (size_t)cuda->B && cuda->B > 1; i++) {
        RA_TRY(ra_cuda_same(cuda, r.outputs.host + i * all, one * sizeof(float), "output", err));
        memmove(r.outputs.host + i * one, r.outputs.host + i * all, one * sizeof(float));
    }
    return RA_OK;
}

/* The whole step, or its layers' parts without what is between. */
static enum ra_status step_ms(const ra_cuda_recording &r, size_t i, double *ms,
                              struct ra_error *err)
{
    std::vector<cudaEvent_t> whole = {r.marks[i], r.marks[i + 1]};
    const std::vector<cudaEvent_t> &parts = r.spans[i].empty() ? whole : r.spans[i];
    for (size_t part = 0; part + 1 < parts.size(); part += 2) {
        float each = 0;
        RA_TRY(ra_cuda_done(cudaEventElapsedTime(&each, parts[part], parts[part + 1]),
                            "read a step's time", err));
        *ms += (double)each;
    }
    return RA_OK;
}

enum ra_status ra_cuda_play(void *self, struct ra_step_time *times, const float **out,
                            struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_recording &r = cuda->recording;
    size_t floats = output_floats(cuda);
    RA_BUG_ON(!r.is_on);
    RA_TRY(end_recording(cuda, err));
    RA_TRY(rewind(cuda, err));
    RA_TRY(ra_cuda_done(
        cudaMemsetAsync(r.outputs.card, 0xff, r.n_outputs * floats * sizeof(float), cuda->stream),
        "poison outputs", err));
    RA_TRY(run_steps(cuda, times, err));
    RA_TRY(ra_cuda_done(cudaMemcpyAsync(r.outputs.host, r.outputs.card,
                                        r.n_outputs * floats * sizeof(float),
                                        cudaMemcpyDeviceToHost, cuda->stream),
                        "copy from the card", err));
    RA_TRY(ra_cuda_done(cudaStreamSynchronize(cuda->stream), "run the steps", err));
    for (size_t i = 0; i < (size_t)r.n_steps; i++) {
        double ms = 0;
        RA_TRY(step_ms(r, i, &ms, err));
        times[i].event_ns = (uint64_t)(ms * 1e6 + 0.5);
    }
    *out = r.outputs.host;
    if (r.surprised >= 0)
        return ra_fail(err, RA_EDIVERGED,
                       "cuda: layer %d of the replay: the card decided otherwise than before",
                       r.surprised);
    return cuda->config.apart ? RA_OK : keep_first(cuda, err);
}

const struct ra_step_launches *ra_cuda_launched(void *self)
{
    return static_cast<struct ra_cuda *>(self)->recording.launched.data();
}

/* --- on the host, whose execution counts ------------------------------------------------------ */

#ifndef __CUDACC__
static enum ra_status count_steps(struct ra_cuda *cuda, struct ra_step_traffic *steps,
                                  struct ra_error *err)
{
    for (size_t i = 0; i < (size_t)cuda->recording.n_steps; i++) {
        struct ra_emu_traffic total;
        ra_emu_reset_traffic();
        RA_TRY(launch(cuda, i, err));
        RA_TRY(ra_cuda_done(cudaStreamSynchronize(cuda->stream), "run a step", err));
        ra_emu_total_traffic(&total);
        steps[i] = {total.load_bytes, total.store_bytes, total.sectors, total.min_sectors,
                    total.launches};
    }
    return RA_OK;
}

enum ra_status ra_cuda_count(void *self, struct ra_step_traffic *steps, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    RA_BUG_ON(!cuda->recording.is_on);
    RA_TRY(end_recording(cuda, err));
    RA_TRY(rewind(cuda, err));
    RA_TRY(ra_cuda_done(cudaStreamSynchronize(cuda->stream), "rewind", err));
    ra_emu_count_traffic(1);
    enum ra_status st = count_steps(cuda, steps, err);
    ra_emu_count_traffic(0);
    ra_emu_reset_traffic();
    return st;
}
#endif
