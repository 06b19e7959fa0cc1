/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps that depend on the query: its comparison, and both branches of a decision where the device
 * takes it. Of those the one not taken is launched too, and finds its gate shut.
 */
#include <math.h>

#include "sim/engine_beat.h"
#include "sim/rope.h"

/* Mean query before rotation, head by head, for schedules that compare such queries. */
static const float *query_to_compare(struct ra_beat *b, const struct ra_plan *plan)
{
    const struct ra_model *m = b->shape->model;
    if (!plan->compares_unrotated)
        return b->q;
    for (int h = 0; h < m->Hq; h++) {
        for (int d = 0; d < m->D; d++)
            b->head[d] = b->q[h * m->D + d];
        ra_rope_unrotate(&m->rope, m->D, b->step.self, b->head);
        for (int d = 0; d < m->D; d++)
            b->unrotated[h * m->D + d] = (float)b->head[d];
    }
    return b->unrotated;
}

/* Both halves of the comparison are one operation: a full step's query becomes the reference. */
static enum ra_status compare_on_device(struct ra_beat *b, const struct ra_plan *plan,
                                        const float *q, double *cosine, struct ra_error *err)
{
    if (plan->otherwise && b->config->decide != RA_DECIDE_KNOWN)
        return b->ops->decide(b->dev, b->lane_number, q, plan->sim, plan->is_full, cosine, err);
    if (plan->checks_query)
        RA_TRY(b->ops->cosine(b->dev, b->lane_number, q, cosine, err));
    if (plan->is_full || b->step.t < 0)
        RA_TRY(b->ops->set_reference(b->dev, b->lane_number, q, err));
    return RA_OK;
}

enum ra_status ra_beat_decide(struct ra_beat *b, const struct ra_plan *plan, struct ra_error *err)
{
    double cosine = NAN;
    if (!(ra_policy_spec_needs(b->track->spec) & RA_NEEDS_QUERIES) ||
        !(plan->checks_query || plan->is_full || b->step.t < 0))
        return RA_OK;
    const float *q = query_to_compare(b, plan);
    RA_TIMED(b, RA_OP_COSINE, compare_on_device(b, plan, q, &cosine, err), err);
    /* Queries are un-rotated into f32, so the backend's value carries that rounding. */
    if (plan->checks_query && ra_beat_is_exact(b) && plan->compared_step == b->step.t &&
        fabs(cosine - plan->query_cosine) > 1e-5)
        return ra_fail(err, RA_EDIVERGED,
                       "layer %d, step %d: query cosine %.9g on the backend, %.9g expected",
                       b->lane->id, b->step.t, cosine, plan->query_cosine);
    return RA_OK;
}

/* Does the device take this step's decision? */
static bool is_open(const struct ra_beat *b, const struct ra_plan *plan)
{
    return plan->otherwise && b->config->decide == RA_DECIDE_DEVICE;
}

static enum ra_branch branch_of(const struct ra_plan *plan)
{
    return plan->is_full ? RA_BRANCH_FULL : RA_BRANCH_RECYCLED;
}

static enum ra_status choose(struct ra_beat *b, const struct ra_plan *plan, bool scores,
                             struct ra_error *err)
{
    int64_t moved;
    if (scores)
        RA_TRY(b->ops->score(b->dev, b->lane_number, b->q, err));
    RA_TRY(b->ops->select(b->dev, b->lane_number, plan->rule, b->chosen, err));
    return b->ops->refresh(b->dev, b->lane_number, &moved, err);
}

/* The operations of a plan that is not taken. */
static enum ra_status pass_over(struct ra_beat *b, const struct ra_plan *plan, struct ra_error *err)
{
    bool before = plan->scores == RA_SCORES_BEFORE;
    bool recomputes = b->config->scores == RA_SCORES_RECOMPUTE;
    if (plan->rebuilds && before)
        RA_TRY(choose(b, plan, true, err));
    if (plan->attend == RA_ATTEND_ALL)
        RA_TRY(b->ops->attend_full(b->dev, b->lane_number, b->q, plan->rebuilds && !recomputes,
                                   b->out, err));
    else
        RA_TRY(b->ops->attend_recycled(b->dev, b->lane_number, b->q, false, b->out, err));
    if (plan->rebuilds)
        return before ? RA_OK : choose(b, plan, recomputes, err);
    /* However many are kept: what has room for one more has it for all. */
    for (int h = 0; h < b->shape->model->Hkv; h++)
        b->most[h] = b->shape->P + b->shape->run_steps;
    return b->ops->insert_evict(b->dev, b->lane_number, b->most, NULL, err);
}

enum ra_status ra_beat_begin_branch(struct ra_beat *b, const struct ra_plan *plan,
                                    struct ra_error *err)
{
    if (!is_open(b, plan))
        return RA_OK;
    RA_BUG_ON(plan->otherwise->is_full == plan->is_full);
    if (plan->otherwise->is_full) {
        b->ops->branch(b->dev, RA_BRANCH_FULL, false);
        RA_TRY(pass_over(b, plan->otherwise, err));
    }
    b->ops->branch(b->dev, branch_of(plan), true);
    return RA_OK;
}

enum ra_status ra_beat_end_branch(struct ra_beat *b, const struct ra_plan *plan,
                                  struct ra_error *err)
{
    enum ra_status st = RA_OK;
    if (!is_open(b, plan))
        return RA_OK;
    if (plan->is_full) {
        b->ops->branch(b->dev, RA_BRANCH_RECYCLED, false);
        st = pass_over(b, plan->otherwise, err);
    }
    b->ops->branch(b->dev, RA_BRANCH_NONE, true);
    return st;
}
