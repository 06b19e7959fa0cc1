/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain: what a policy attends to, keeps, evicts, holds back and flushes, step by step. Without
 * a trace it is shown on a few words; either way the policy itself decides.
 */
#include <stdio.h>

#include "sim/cli/commands.h"
#include "sim/cli/explain_text.h"
#include "sim/cli/output.h"

struct values {
    const char *trace, *policy, *text;
    int64_t layer, head;
    struct ra_option_range steps;
};

static const struct ra_operand operands[] = {
    {"TRACE", 0, 1, offsetof(struct values, trace),
     .help = "show it on one layer and KV head of this trace; without it, on a few words"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, policy),
     .argument = "POLICY",
     .words = RA_WORDS_POLICIES,
     .fallback = "recycled:k=3,stride=3,pool=1",
     .help = "the policy, NAME:key=value,...; 'list policies -v' has them all"},
    {.name = "text",
     .kind = RA_OPTION_TEXT,
     .offset = offsetof(struct values, text),
     .argument = "TEXT",
     .words = RA_WORDS_NONE,
     .help = "the words, of which the last four are decoded; their scores are drawn from --seed"},
    {.name = "layer",
     .kind = RA_OPTION_INT,
     .offset = offsetof(struct values, layer),
     .argument = "L",
     .fallback = "-1",
     .min = -1,
     .max = 4095,
     .needs = "TRACE",
     .help = "number of the layer in the model; -1: the middle recorded one"},
    {.name = "head",
     .kind = RA_OPTION_INT,
     .offset = offsetof(struct values, head),
     .argument = "H",
     .fallback = "0",
     .min = 0,
     .max = 4095,
     .needs = "TRACE",
     .help = "KV head"},
    {.name = "steps",
     .kind = RA_OPTION_RANGE,
     .offset = offsetof(struct values, steps),
     .argument = "A..B",
     .min = 0,
     .max = INT32_MAX,
     .help = "decode steps to show, from 0, both included (default: the first ten)"},
    {.name = NULL},
};

enum { DEFAULT_STEPS = 10 };

static enum ra_status open_scene(const struct ra_cli *cli, const struct values *values,
                                 const struct ra_policy_spec *spec, struct ra_scene *scene,
                                 struct ra_error *err)
{
    if (!values->trace)
        return ra_scene_words(scene, values->text, cli->seed, err);
    if (values->text)
        return ra_fail(err, RA_EUSAGE, "explain: expected TRACE or --text, got both");
    return ra_scene_trace(scene, values->trace, (int)values->layer, (int)values->head,
                          ra_policy_spec_needs(spec), err);
}

static enum ra_status choose_steps(const struct values *values, const struct ra_scene *scene,
                                   int32_t *first, int32_t *last, struct ra_error *err)
{
    int32_t N = scene->env.N;
    *first = 0;
    *last = (N < DEFAULT_STEPS ? N : DEFAULT_STEPS) - 1;
    if (!values->steps.is_set)
        return RA_OK;
    if (values->steps.last >= N)
        return ra_fail(err, RA_EUSAGE, "--steps: expected steps below %d, got %d", (int)N,
                       (int)values->steps.last);
    *first = (int32_t)values->steps.first;
    *last = (int32_t)values->steps.last;
    return RA_OK;
}

static enum ra_status tell(const struct ra_cli *cli, const struct values *values,
                           const struct ra_policy_spec *spec, struct ra_scene *scene,
                           struct ra_error *err)
{
    int32_t first, last;
    json_t *story;
    RA_TRY(choose_steps(values, scene, &first, &last, err));
    RA_TRY(ra_explain(scene, spec, first, last, &story, err));
    enum ra_status status = RA_OK;
    if (cli->format == RA_FORMAT_TEXT)
        ra_explain_text(scene, story, cli->verbosity > 0);
    else
        status = ra_put_json(story, err);
    json_decref(story);
    return status;
}

/* What is told are positions chosen by the scores of what was recorded. */
static enum ra_status check_plain(const struct ra_policy_spec *spec, struct ra_error *err)
{
    const struct ra_transform_chain *chain = ra_policy_spec_transform(spec);
    if (!chain)
        return RA_OK;
    return ra_fail(err, RA_EUSAGE,
                   "explain: shows schedules on keys as they were recorded: leave out '+%s'",
                   ra_transform_canonical(chain));
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct ra_policy_spec *spec;
    struct ra_scene scene = {0};
    RA_TRY(ra_policy_parse(&spec, values->policy, err));
    enum ra_status status = check_plain(spec, err);
    if (status == RA_OK)
        status = open_scene(cli, values, spec, &scene, err);
    if (status == RA_OK)
        status = tell(cli, values, spec, &scene, err);
    ra_scene_close(&scene);
    ra_policy_spec_close(spec);
    return status;
}

const struct ra_command ra_cmd_explain = {
    .name = "explain",
    .summary = "what a policy attends to, keeps and evicts, step by step",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_SEED | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "Without TRACE and --text: nine words, five of them the prompt, with the scores of a "
             "worked example. Step t is the paper's i = t + 1.",
};
