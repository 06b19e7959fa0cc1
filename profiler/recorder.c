/* SPDX-License-Identifier: Apache-2.0 */
/* Lists and sums of timed brackets. */
#include "profiler/recorder.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/clock.h"

const char *ra_op_name(enum ra_op op)
{
    static const char *const names[] = {"append",  "attend", "scores", "select",
                                        "refresh", "evict",  "cosine"};
    return names[op];
}

enum ra_status ra_recorder_open(struct ra_recorder *recorder, int32_t first_step, int32_t n_steps,
                                size_t n_ops_expected, struct ra_error *err)
{
    *recorder = (struct ra_recorder){.first_step = first_step, .n_steps = n_steps};
    recorder->capacity = n_ops_expected + 1;
    recorder->ops = calloc(recorder->capacity, sizeof *recorder->ops);
    recorder->step_ns = calloc((size_t)n_steps + 1, sizeof *recorder->step_ns);
    recorder->step_late = calloc((size_t)n_steps + 1, sizeof *recorder->step_late);
    if (!recorder->ops || !recorder->step_ns || !recorder->step_late) {
        ra_recorder_close(recorder);
        return ra_fail(err, RA_ENOMEM, "recorder: no memory for %zu timed operations",
                       n_ops_expected);
    }
    return RA_OK;
}

void ra_recorder_clear(struct ra_recorder *recorder)
{
    recorder->n_ops = 0;
    recorder->prefill_ns = 0;
    memset(recorder->op_ns, 0, sizeof recorder->op_ns);
    recorder->n_late = 0;
    memset(recorder->step_ns, 0, (size_t)recorder->n_steps * sizeof *recorder->step_ns);
    memset(recorder->step_late, 0, (size_t)recorder->n_steps * sizeof *recorder->step_late);
}

void ra_recorder_close(struct ra_recorder *recorder)
{
    free(recorder->ops);
    free(recorder->step_ns);
    free(recorder->step_late);
    recorder->ops = NULL;
    recorder->step_ns = NULL;
    recorder->step_late = NULL;
}

uint64_t ra_recorder_begin(void)
{
    return ra_clock_ns();
}

static enum ra_status keep(struct ra_recorder *recorder, const struct ra_op_time *time,
                           struct ra_error *err)
{
    uint64_t ns = time->op == RA_OP_WHOLE_STEP ? time->event_ns : time->end_ns - time->start_ns;
    if (time->step >= 0 && time->step < recorder->first_step)
        return RA_OK;
    if (time->step < 0) {
        recorder->prefill_ns += ns;
    } else if (time->is_late) {
        recorder->step_late[time->step - recorder->first_step] = true;
        recorder->n_late++;
    } else {
        if (time->op < RA_OP_COUNT)
            recorder->op_ns[time->op] += ns;
        recorder->step_ns[time->step - recorder->first_step] += ns;
    }
    if (recorder->n_ops == recorder->capacity) {
        size_t capacity = 2 * recorder->capacity;
        struct ra_op_time *ops = realloc(recorder->ops, capacity * sizeof *ops);
        if (!ops)
            return ra_fail(err, RA_ENOMEM, "recorder: no memory for %zu timed operations",
                           capacity);
        recorder->ops = ops;
        recorder->capacity = capacity;
    }
    recorder->ops[recorder->n_ops++] = *time;
    return RA_OK;
}

enum ra_status ra_recorder_end(struct ra_recorder *recorder, uint64_t begin_ns, int32_t step,
                               int layer, enum ra_op op, struct ra_error *err)
{
    struct ra_op_time time = {
        .step = step, .layer = layer, .op = op, .start_ns = begin_ns, .end_ns = ra_clock_ns()};
    return keep(recorder, &time, err);
}

enum ra_status ra_recorder_step(struct ra_recorder *recorder, int32_t step, uint64_t begin_ns,
                                uint64_t end_ns, uint64_t event_ns, bool is_late,
                                struct ra_error *err)
{
    struct ra_op_time time = {.step = step,
                              .layer = -1,
                              .op = RA_OP_WHOLE_STEP,
                              .start_ns = begin_ns,
                              .end_ns = end_ns,
                              .event_ns = event_ns,
                              .is_late = is_late};
    return keep(recorder, &time, err);
}
