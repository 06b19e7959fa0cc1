/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `eval` lets a model decode: texts, whose perplexity counts, or prompts with answers that are
 * judged. Spelled "ppl:file=IDS[,prompt=P][,steps=N]", "ppl:dir=FOLDER[,...]", or, of prompts,
 * "NAME:file=PROMPTS[,first=n]" with the name of their family, or "prompts".
 */
#ifndef RA_SIM_CLI_EVAL_TASK_H
#define RA_SIM_CLI_EVAL_TASK_H

#include "sim/cli/language_model.h"
#include "sim/eval.h"

/* One text of a task, and where it comes from. */
struct ra_eval_item {
    struct ra_eval_text text;
    const char *name; /* of the file, or of the prompt: its number */
    int64_t seed;     /* of a prompt; 0 */
    double depth;     /* of what is to be found, 0 to 1; NaN */
};

struct ra_eval_task {
    char *spelling;   /* as given */
    char *path;       /* the file or folder that it names */
    const char *name; /* "ppl", or what the prompts file calls its task */
    const char *family;
    bool is_ppl;
    struct ra_eval_item *items; /* [n] */
    int n;
    struct ra_ids **texts; /* [n] behind the items of ppl */
    char **names;          /* [n] */
    struct ra_prompts *prompts;
};

/* Errors: RA_EUSAGE for the spelling and for texts that are too short or not the model's; of the
 * files. A zeroed task may be closed. */
RA_MUST_CHECK enum ra_status ra_eval_task_open(struct ra_eval_task *task, const char *spelling,
                                               const struct ra_language_model *model,
                                               struct ra_error *err);
void ra_eval_task_close(struct ra_eval_task *task);

#endif
