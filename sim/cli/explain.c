/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of one layer as the engine runs it (plan, learn, attend, advance), with everything that
 * the policy shows written down. Decides nothing itself: sets, orders and evictions are read from
 * the policy; only "pending" follows from which steps were full.
 */
#include "sim/cli/explain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/cli/output.h"

struct teller {
    struct ra_scene *scene;
    struct ra_policy *policy;
    int32_t first, last;
    double *prob; /* [Hq][L] */
    float *acc;   /* [Hq][P] or NULL */
    struct ra_scorer *scorer;
    int32_t *storage;          /* [Hkv][P + N] */
    struct ra_positions *sets; /* [Hkv] attended, self included */
    bool *old, *is_read;       /* [P + N] members of C_r before the step; of A */
    json_t *steps;
    int32_t pending_from; /* first position that is not in C_f */
    enum ra_caches caches;
    int64_t keys_read, keys_full;
    int32_t retained;
};

static json_t *list_of(const int32_t *pos, int32_t n)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(pos[i]));
    return list;
}

static json_t *list_range(int32_t first, int32_t end)
{
    json_t *list = json_array();
    for (int32_t pos = first; pos < end; pos++)
        json_array_append_new(list, json_integer(pos));
    return list;
}

static json_t *list_marked(const bool *marked, int32_t n)
{
    json_t *list = json_array();
    for (int32_t pos = 0; pos < n; pos++)
        if (marked[pos])
            json_array_append_new(list, json_integer(pos));
    return list;
}

static void mark(bool *marked, const struct ra_positions *set)
{
    for (int32_t i = 0; i < set->n; i++)
        marked[set->pos[i]] = true;
}

/* C_r; false where there is none. */
static bool view_of(const struct teller *teller, struct ra_retained *view)
{
    return ra_policy_view(teller->policy, teller->scene->layer, teller->scene->kv_head, view) &&
           teller->caches != RA_CACHES_FULL;
}

/* Mean over the group of the probability on the marked positions, of the scores last formed. */
static double mass_of(const struct teller *teller, const bool *marked, int32_t L)
{
    int G = teller->scene->env.model->G;
    const double *row = teller->prob + (size_t)(teller->scene->kv_head * G) * (size_t)L;
    double sum = 0;
    for (int g = 0; g < G; g++, row += L)
        for (int32_t pos = 0; pos < L; pos++)
            sum += marked[pos] ? row[pos] : 0;
    return sum / G;
}

/* The same where each query head of the group attends to a set of its own and self. */
static double mass_of_heads(const struct teller *teller, const struct ra_plan *plan, int32_t L)
{
    int G = teller->scene->env.model->G, first = teller->scene->kv_head * G;
    double sum = 0;
    for (int h = first; h < first + G; h++) {
        const double *row = teller->prob + (size_t)h * (size_t)L;
        for (int32_t i = 0; i < plan->sets[h].n; i++)
            sum += row[plan->sets[h].pos[i]];
        sum += row[L - 1];
    }
    return sum / G;
}

/* A, self included: of all query heads of the group where they choose for themselves. */
static void mark_read(struct teller *teller, const struct ra_step *step, const struct ra_plan *plan)
{
    int32_t L = step->self + 1;
    int G = teller->scene->env.model->G, head = teller->scene->kv_head;
    struct ra_retained view;
    memset(teller->is_read, 0, (size_t)L * sizeof *teller->is_read);
    if (plan->attend == RA_ATTEND_ALL)
        for (int32_t pos = 0; pos < L; pos++)
            teller->is_read[pos] = true;
    else if (plan->attend == RA_ATTEND_CACHE &&
             ra_policy_view(teller->policy, step->layer, head, &view))
        mark(teller->is_read, &view.set);
    else if (plan->attend == RA_ATTEND_SETS && !plan->per_query_head)
        mark(teller->is_read, &plan->sets[head]);
    else if (plan->attend == RA_ATTEND_SETS)
        for (int g = 0; g < G; g++)
            mark(teller->is_read, &plan->sets[head * G + g]);
    teller->is_read[step->self] = true;
}

static const char *kind_of(const struct teller *teller, const struct ra_plan *plan)
{
    if (plan->is_full)
        return "full";
    return teller->caches == RA_CACHES_BOTH ? "recycled" : "sparse";
}

static json_t *members_lost(const struct teller *teller, const struct ra_retained *now, int32_t L)
{
    bool *lost = calloc((size_t)L, sizeof *lost);
    if (!lost) {
        ra_json_lack();
        return NULL;
    }
    memcpy(lost, teller->old, (size_t)L * sizeof *lost);
    lost[L - 1] = true;
    for (int32_t i = 0; i < now->set.n; i++)
        lost[now->set.pos[i]] = false;
    json_t *list = list_marked(lost, L);
    free(lost);
    return list;
}

/* What became of C_r in this step, told from its members before (teller->old) and now. */
static void tell_cache(struct teller *teller, json_t *row, const struct ra_step *step,
                       bool is_rebuilt)
{
    struct ra_retained now;
    if (!view_of(teller, &now)) {
        json_object_set_new(row, "cache", json_null());
        return;
    }
    int32_t common = 0;
    json_t *entered = json_array();
    for (int32_t i = 0; i < now.set.n; i++) {
        if (teller->old[now.set.pos[i]])
            common++;
        else
            json_array_append_new(entered, json_integer(now.set.pos[i]));
    }
    json_object_set_new(row, "overlap",
                        is_rebuilt && now.set.n ? json_real((double)common / now.set.n)
                                                : json_null());
    json_object_set_new(row, "entered", entered);
    json_object_set_new(row, "evicted", members_lost(teller, &now, step->self + 1));
    json_object_set_new(row, "cache", list_of(now.evict.pos, now.evict.n));
}

static void tell_pending(struct teller *teller, json_t *row, const struct ra_step *step,
                         bool is_full)
{
    if (teller->caches != RA_CACHES_BOTH)
        return;
    json_object_set_new(row, "flushed",
                        is_full ? list_range(teller->pending_from, step->self) : json_array());
    if (is_full)
        teller->pending_from = step->self + 1;
    json_object_set_new(row, "pending", list_range(teller->pending_from, step->self + 1));
}

/* Sets of the query heads, self not counted, where they choose for themselves. */
static json_t *tell_heads(const struct teller *teller, const struct ra_plan *plan)
{
    int G = teller->scene->env.model->G, first = teller->scene->kv_head * G;
    if (plan->attend != RA_ATTEND_SETS || !plan->per_query_head)
        return json_null();
    json_t *heads = json_array();
    for (int h = first; h < first + G; h++)
        json_array_append_new(heads, list_of(plan->sets[h].pos, plan->sets[h].n));
    return heads;
}

/* What the layer chose for others to follow. */
static json_t *tell_chosen(const struct teller *teller, const struct ra_plan *plan)
{
    struct ra_retained view;
    if (!plan->rule || plan->rebuilds || teller->caches != RA_CACHES_FULL)
        return json_null();
    ra_policy_view(teller->policy, teller->scene->layer, teller->scene->kv_head, &view);
    return list_of(view.set.pos, view.set.n);
}

static void tell_step(struct teller *teller, const struct ra_step *step, const struct ra_plan *plan,
                      double mass, double old_mass)
{
    int32_t L = step->self + 1;
    json_t *row = json_object(), *attended = list_marked(teller->is_read, L);
    struct ra_retained now;
    json_object_set_new(row, "step", json_integer(step->t));
    json_object_set_new(row, "self", json_integer(step->self));
    json_object_set_new(row, "kind", json_string(kind_of(teller, plan)));
    json_object_set_new(row, "keys", json_integer(L));
    json_object_set_new(row, "attended", attended);
    json_object_set_new(row, "heads", tell_heads(teller, plan));
    json_object_set_new(row, "chosen", tell_chosen(teller, plan));
    json_object_set_new(row, "mass", ra_json_real(mass));
    json_object_set_new(row, "rebuilt", json_boolean(plan->rebuilds));
    json_object_set_new(row, "old_mass", ra_json_real(old_mass));
    tell_pending(teller, row, step, plan->is_full);
    tell_cache(teller, row, step, plan->rebuilds);
    if (view_of(teller, &now) && now.set.n > teller->retained)
        teller->retained = now.set.n;
    if (step->t >= teller->first) {
        teller->keys_read += (int64_t)json_array_size(attended);
        teller->keys_full += L;
        json_array_append(teller->steps, row);
    }
    json_decref(row);
}

/* What every KV head attends to, where scores are asked for of that. */
static void list_attended(struct teller *teller, const struct ra_step *step,
                          const struct ra_plan *plan)
{
    const struct ra_policy_env *env = &teller->scene->env;
    for (int h = 0; h < env->model->Hkv; h++) {
        struct ra_retained view;
        int32_t *out = teller->storage + (size_t)h * (size_t)(env->P + env->N), n;
        teller->sets[h] = (struct ra_positions){NULL, step->self + 1};
        if (plan->attend == RA_ATTEND_ALL)
            continue;
        ra_policy_view(teller->policy, step->layer, h, &view);
        const struct ra_positions *set =
            plan->attend == RA_ATTEND_CACHE ? &view.set : &plan->sets[h];
        n = set->n;
        if (n)
            memcpy(out, set->pos, (size_t)n * sizeof *out);
        if (n == 0 || out[n - 1] != step->self)
            out[n++] = step->self;
        teller->sets[h] = (struct ra_positions){out, n};
    }
}

static enum ra_status learn(struct teller *teller, const struct ra_step *step, struct ra_plan *plan,
                            enum ra_scores_when when, struct ra_error *err)
{
    struct ra_scene *scene = teller->scene;
    struct ra_scores scores;
    struct ra_scores_input input = {.step = step,
                                    .prob = teller->prob,
                                    .acc = step->t < 0 ? teller->acc : NULL,
                                    .attended = teller->sets};
    if (plan->scores != when)
        return RA_OK;
    scene->score(scene, step->t, teller->prob);
    if (plan->of == RA_SCORES_OF_ATTENDED)
        list_attended(teller, step, plan);
    if (scene->rows)
        scene->rows(scene, step->t, &input);
    RA_TRY(ra_scorer_form(teller->scorer, plan, &input, &scores, err));
    return ra_policy_learn(teller->policy, step, &scores, plan, err);
}

/* One step of a layer; `is_shown` writes it down. */
static enum ra_status take_step(struct teller *teller, const struct ra_step *step, bool is_shown,
                                struct ra_error *err)
{
    struct ra_plan plan = {0};
    struct ra_retained view;
    int32_t L = step->self + 1;
    double mass = NAN, old_mass = NAN;
    memset(teller->old, 0, (size_t)L * sizeof *teller->old);
    if (is_shown && view_of(teller, &view))
        mark(teller->old, &view.set);
    RA_TRY(ra_policy_plan(teller->policy, step, &plan, err));
    RA_TRY(learn(teller, step, &plan, RA_SCORES_BEFORE, err));
    if (is_shown && step->t >= 0)
        mark_read(teller, step, &plan);
    RA_TRY(learn(teller, step, &plan, RA_SCORES_AFTER, err));
    if (is_shown && step->t >= teller->first) {
        bool is_scored = plan.scores != RA_SCORES_NONE;
        if (!is_scored && teller->scene->has_truth)
            teller->scene->score(teller->scene, step->t, teller->prob);
        if (is_scored || teller->scene->has_truth) {
            mass = plan.attend == RA_ATTEND_ALL ? 1
                   : plan.per_query_head        ? mass_of_heads(teller, &plan, L)
                                                : mass_of(teller, teller->is_read, L);
            teller->old[step->self] = true;
            old_mass = plan.rebuilds ? mass_of(teller, teller->old, L) : NAN;
            teller->old[step->self] = false;
        }
    }
    ra_policy_advance(teller->policy, step);
    if (is_shown && step->t >= 0)
        tell_step(teller, step, &plan, mass, old_mass);
    return RA_OK;
}

static json_t *tell_prefill(const struct teller *teller)
{
    static const char *const evictions[] = {"order", "score", "none"};
    struct ra_retained view;
    bool has_view = view_of(teller, &view);
    json_t *row = json_object();
    json_object_set_new(row, "self", json_integer(teller->scene->env.P - 1));
    json_object_set_new(row, "cache",
                        has_view ? list_of(view.evict.pos, view.evict.n) : json_null());
    json_object_set_new(row, "evictions",
                        has_view ? json_string(evictions[view.evictions]) : json_null());
    return row;
}

/* Layers before the shown one run too: a policy may let a layer follow them. */
static enum ra_status run_layer(struct teller *teller, int layer, json_t *story,
                                struct ra_error *err)
{
    struct ra_scene *scene = teller->scene;
    RA_TRY(scene->enter(scene, layer, err));
    if (teller->acc)
        RA_TRY(scene->acc(scene, teller->acc, err));
    bool is_shown = layer == scene->layer;
    for (int32_t t = -1; t <= teller->last; t++) {
        struct ra_step step = {.t = t,
                               .self = scene->env.P + t,
                               .layer = layer,
                               .layer_id = scene->env.layer_ids[layer]};
        RA_TRY(take_step(teller, &step, is_shown, err));
        if (t < 0 && is_shown)
            json_object_set_new(story, "prefill", tell_prefill(teller));
    }
    return RA_OK;
}

static json_t *begin_story(const struct teller *teller, const struct ra_policy_spec *spec)
{
    const struct ra_scene *scene = teller->scene;
    json_t *story = json_object();
    json_object_set_new(story, "policy", json_string(ra_policy_spec_canonical(spec)));
    json_object_set_new(story, "title", ra_json_text(scene->title));
    json_object_set_new(story, "scores", json_string(scene->scores));
    json_object_set_new(story, "P", json_integer(scene->env.P));
    json_object_set_new(story, "N", json_integer(scene->env.N));
    json_object_set_new(story, "layer", json_integer(scene->env.layer_ids[scene->layer]));
    json_object_set_new(story, "head", json_integer(scene->kv_head));
    return story;
}

static json_t *tell_memory(const struct teller *teller, enum ra_caches caches)
{
    static const char *const names[] = {"full", "reduced", "both"};
    const struct ra_scene *scene = teller->scene;
    json_t *row = json_object();
    json_object_set_new(row, "keys_read", json_integer(teller->keys_read));
    json_object_set_new(row, "keys_full", json_integer(teller->keys_full));
    json_object_set_new(row, "caches", json_string(names[caches]));
    json_object_set_new(row, "rows", json_integer(scene->env.P + teller->last + 1));
    json_object_set_new(row, "retained", json_integer(teller->retained));
    json_object_set_new(row, "row_bytes",
                        scene->row_bytes ? json_integer(scene->row_bytes) : json_null());
    return row;
}

static enum ra_status allocate(struct teller *teller, unsigned needs, struct ra_error *err)
{
    const struct ra_scene *scene = teller->scene;
    size_t rows = (size_t)scene->env.P + (size_t)scene->env.N, Hq = (size_t)scene->env.model->Hq;
    teller->prob = malloc(Hq * rows * sizeof *teller->prob);
    teller->old = calloc(rows, sizeof *teller->old);
    teller->is_read = calloc(rows, sizeof *teller->is_read);
    teller->steps = json_array();
    teller->sets = calloc((size_t)scene->env.model->Hkv, sizeof *teller->sets);
    teller->storage = malloc((size_t)scene->env.model->Hkv * rows * sizeof *teller->storage);
    bool wants_acc = (needs & RA_NEEDS_ACC) && scene->has_acc;
    if (wants_acc)
        teller->acc = malloc(Hq * (size_t)scene->env.P * sizeof *teller->acc);
    if (!teller->prob || !teller->old || !teller->is_read || !teller->steps || !teller->sets ||
        !teller->storage || (wants_acc && !teller->acc))
        return ra_fail(err, RA_ENOMEM, "explain: no memory for the scores of %zu keys", rows);
    return ra_scorer_open(&teller->scorer, scene->env.model, scene->env.P, (int32_t)rows, err);
}

/* A scene of words has positions and scores, but neither keys nor the prompt's queries. */
static enum ra_status check_scene(const struct ra_scene *scene, const struct ra_policy_spec *spec,
                                  struct ra_error *err)
{
    unsigned needs = ra_policy_spec_needs(spec);
    struct ra_page_rule rule;
    const char *name = ra_policy_spec_ops(spec)->name, *what = NULL;
    if ((needs & RA_NEEDS_ACC) && !scene->has_acc)
        what = "acc, the attention that the prompt's positions received";
    else if ((needs & RA_NEEDS_TAIL) && !scene->rows)
        what = "the queries of the prompt's end, and keys";
    else if (!scene->rows && ra_policy_spec_pages(spec, 0, scene->env.P, &rule))
        what = "queries and keys";
    if (!what)
        return RA_OK;
    if (scene->rows)
        return ra_fail(err, RA_EUSAGE, "%s: needs %s, which %s lacks", name, what, scene->title);
    return ra_fail(
        err, RA_EUSAGE,
        "%s: needs %s, which words lack: give a trace (rattn-sim explain TRACE -p %s:...)", name,
        what, name);
}

enum ra_status ra_explain(struct ra_scene *scene, const struct ra_policy_spec *spec, int32_t first,
                          int32_t last, json_t **story, struct ra_error *err)
{
    struct teller teller = {.scene = scene,
                            .first = first,
                            .last = last,
                            .pending_from = scene->env.P,
                            .caches = ra_policy_spec_caches(spec)};
    unsigned needs = ra_policy_spec_needs(spec);
    *story = NULL;
    RA_TRY(check_scene(scene, spec, err));
    enum ra_status status = allocate(&teller, needs, err);
    if (status == RA_OK)
        status = ra_policy_open(&teller.policy, spec, &scene->env, err);
    if (status != RA_OK)
        goto out;
    *story = begin_story(&teller, spec);
    for (int layer = 0; layer <= scene->layer && status == RA_OK; layer++)
        status = run_layer(&teller, layer, *story, err);
    if (status != RA_OK)
        goto out;
    json_object_set(*story, "steps", teller.steps);
    json_object_set_new(*story, "memory", tell_memory(&teller, ra_policy_spec_caches(spec)));
out:
    ra_policy_close(teller.policy);
    json_decref(teller.steps);
    free(teller.prob);
    free(teller.acc);
    free(teller.old);
    free(teller.is_read);
    free(teller.sets);
    free(teller.storage);
    ra_scorer_close(teller.scorer);
    if (status != RA_OK) {
        json_decref(*story);
        *story = NULL;
    }
    return status;
}
