/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend, several times. */
#include "tests/support/copies.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

struct copies {
    struct ra_backend_config config;
    void *cpu[MOST];
    int n, turn, run, played;
    bool is_recording;
    int32_t t;
    float *out; /* [n_steps][n_layers][n][Hq][Dv] of the recording */
    size_t out_floats;
    int32_t *order; /* a choice that went wrong */
};

struct copies_fault copies_fault;
struct copies_seen copies_seen;
static struct ra_backend_ops table;
static const struct ra_backend_ops *cpu;

static void *now(const struct copies *c)
{
    return c->cpu[c->turn];
}

static bool is_wrong(const struct copies *c, enum copies_wrong what, int layer)
{
    const struct copies_fault *f = &copies_fault;
    return f->what == what && (f->layer < 0 || f->layer == layer) &&
           (f->copy < 0 || f->copy == c->turn) && (f->run < 0 || f->run == c->run);
}

static size_t copies_memory(const struct ra_backend_config *config)
{
    return (size_t)(config->apart ? config->batch : 1) * cpu->memory(config);
}

static void copies_close(void *self)
{
    struct copies *c = self;
    if (!c)
        return;
    for (int i = 0; i < c->n; i++)
        cpu->close(c->cpu[i]);
    free(c->out);
    free(c->order);
    free(c);
}

static enum ra_status copies_open(void **self, const struct ra_backend_config *config,
                                  struct ra_error *err)
{
    struct copies *c = calloc(1, sizeof *c);
    int copies = config->apart ? config->batch : 1;
    RA_BUG_ON(!c || copies > MOST || (config->apart && !table.play));
    c->config = *config;
    c->run = -1;
    c->out_floats = (size_t)(config->model->Hq * config->model->Dv);
    c->out = malloc((size_t)config->n_steps * (size_t)config->n_layers * (size_t)copies *
                    c->out_floats * sizeof *c->out);
    c->order = malloc(((size_t)config->max_retained + 1) * sizeof *c->order);
    RA_BUG_ON(!c->out || !c->order);
    *self = c;
    for (; c->n < copies; c->n++)
        RA_TRY(cpu->open(&c->cpu[c->n], config, err));
    return RA_OK;
}

static void copies_reset(void *self)
{
    struct copies *c = self;
    c->run++;
    for (int i = 0; i < c->n; i++)
        cpu->reset(c->cpu[i]);
}

static void copies_turn(void *self, int copy)
{
    struct copies *c = self;
    RA_BUG_ON(copy < 0 || copy >= c->n);
    c->turn = copy;
}

static enum ra_status copies_load(void *self, int layer, const struct ra_prompt_rows *rows,
                                  struct ra_error *err)
{
    return cpu->load(now(self), layer, rows, err);
}

static enum ra_status copies_append(void *self, int layer, const void *k, const void *v,
                                    struct ra_error *err)
{
    struct copies *c = self;
    if (copies_seen.n < COPIES_SEEN) {
        copies_seen.layer[copies_seen.n] = layer;
        copies_seen.copy[copies_seen.n++] = c->turn;
    }
    return cpu->append(now(c), layer, k, v, err);
}

static size_t place(const struct copies *c, int32_t t, int layer, int copy)
{
    size_t step = (size_t)t * (size_t)c->config.n_layers + (size_t)layer;
    return (step * (size_t)c->n + (size_t)copy) * c->out_floats;
}

static void flip(float *value)
{
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    bits ^= 1;
    memcpy(value, &bits, sizeof bits);
}

static enum ra_status put_out(struct copies *c, int layer, float *out, enum ra_status st)
{
    if (is_wrong(c, COPIES_OUTPUT, layer))
        out[3] += 1e-2f;
    if (is_wrong(c, COPIES_BIT, layer))
        flip(&out[3]);
    if (c->is_recording && c->t >= 0)
        memcpy(c->out + place(c, c->t, layer, c->turn), out, c->out_floats * sizeof *out);
    return st;
}

static enum ra_status copies_attend_full(void *self, int layer, const float *q, bool want_scores,
                                         float *out, struct ra_error *err)
{
    return put_out(self, layer, out, cpu->attend_full(now(self), layer, q, want_scores, out, err));
}

static enum ra_status copies_attend_recycled(void *self, int layer, const float *q,
                                             bool want_scores, float *out, struct ra_error *err)
{
    return put_out(self, layer, out,
                   cpu->attend_recycled(now(self), layer, q, want_scores, out, err));
}

static enum ra_status copies_attend_sets(void *self, int layer, const float *q,
                                         const struct ra_positions *sets, int n_sets, float *out,
                                         struct ra_error *err)
{
    return put_out(self, layer, out, cpu->attend_sets(now(self), layer, q, sets, n_sets, out, err));
}

static enum ra_status copies_score(void *self, int layer, const float *q, struct ra_error *err)
{
    return cpu->score(now(self), layer, q, err);
}

static enum ra_status copies_select(void *self, int layer, const struct ra_select_rule *rule,
                                    struct ra_positions *order, struct ra_error *err)
{
    struct copies *c = self;
    RA_TRY(cpu->select(now(c), layer, rule, order, err));
    if (!is_wrong(c, COPIES_SELECT, layer))
        return RA_OK;
    int32_t n = order[0].n;
    for (int32_t i = 0; i < n; i++)
        c->order[i] = order[0].pos[n - 1 - i];
    order[0].pos = c->order;
    return RA_OK;
}

static void copies_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained)
{
    cpu->adopt(now(self), layer, kv_head, retained);
}

static enum ra_status copies_refresh(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    enum ra_status st = cpu->refresh(now(self), layer, moved, err);
    *moved += is_wrong(self, COPIES_REFRESH, layer);
    return st;
}

static enum ra_status copies_evict(void *self, int layer, const int32_t *K, int32_t *evicted,
                                   struct ra_error *err)
{
    enum ra_status st = cpu->insert_evict(now(self), layer, K, evicted, err);
    if (is_wrong(self, COPIES_EVICT, layer))
        evicted[0] = -1;
    return st;
}

static enum ra_status copies_cosine(void *self, int layer, const float *q, double *cosine,
                                    struct ra_error *err)
{
    enum ra_status st = cpu->cosine(now(self), layer, q, cosine, err);
    *cosine += is_wrong(self, COPIES_COSINE, layer) ? 1e-3 : 0;
    return st;
}

static enum ra_status copies_set_reference(void *self, int layer, const float *q,
                                           struct ra_error *err)
{
    return cpu->set_reference(now(self), layer, q, err);
}

static enum ra_status copies_record_begin(void *self, struct ra_error *err)
{
    (void)err;
    ((struct copies *)self)->is_recording = true;
    return RA_OK;
}

static enum ra_status copies_record_step(void *self, int32_t t, struct ra_error *err)
{
    (void)err;
    ((struct copies *)self)->t = t;
    return RA_OK;
}

static enum ra_status copies_play(void *self, struct ra_step_time *times, const float **out,
                                  struct ra_error *err)
{
    struct copies *c = self;
    int32_t n = c->config.n_steps - 1;
    (void)err;
    for (int32_t t = -1; t < n; t++)
        times[t + 1] = (struct ra_step_time){1, 2, 1000 + (uint64_t)t, false};
    c->run = c->played++;
    for (int layer = 0; layer < c->config.n_layers; layer++)
        for (c->turn = 0; c->turn < c->n; c->turn++)
            for (int32_t t = 0; t < n; t++) {
                float *value = &c->out[place(c, t, layer, c->turn)];
                if (is_wrong(c, COPIES_PLAYED, layer))
                    flip(value);
                if (is_wrong(c, COPIES_PLAYED_OFF, layer))
                    *value += 1e-2f;
            }
    *out = c->out;
    return RA_OK;
}

const struct ra_backend_ops *copies_backend(bool plays)
{
    cpu = ra_backend_find("cpu");
    copies_fault = (struct copies_fault){0};
    copies_seen.n = 0;
    table = *cpu;
    table.memory = copies_memory;
    table.open = copies_open;
    table.close = copies_close;
    table.reset = copies_reset;
    table.load = copies_load;
    table.append = copies_append;
    table.attend_full = copies_attend_full;
    table.attend_recycled = copies_attend_recycled;
    table.attend_sets = copies_attend_sets;
    table.score = copies_score;
    table.select = copies_select;
    table.adopt = copies_adopt;
    table.refresh = copies_refresh;
    table.insert_evict = copies_evict;
    table.cosine = copies_cosine;
    table.set_reference = copies_set_reference;
    if (!plays)
        return &table;
    table.turn = copies_turn;
    table.record_begin = copies_record_begin;
    table.record_step = copies_record_step;
    table.play = copies_play;
    return &table;
}
