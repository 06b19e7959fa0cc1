/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/eval_task.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"

struct spelled {
    struct ra_span name;
    char *file, *dir;
    int32_t prompt, steps, first; /* 0: not given */
};

static const char *const task_names[] = {"ppl", "prompts",      "niah",         "vt",       "cwe",
                                         "fwe", "chain-of-key", "table-to-tsv", "kv-recall"};
enum { N_NAMES = sizeof task_names / sizeof task_names[0] };
static const char *const key_names[] = {"file", "dir", "prompt", "steps", "first"};

static enum ra_status out_of_memory(const struct ra_eval_task *task, struct ra_error *err)
{
    return ra_fail(err, RA_ENOMEM, "--task %s: out of memory", task->spelling);
}

static enum ra_status take_key(const struct ra_eval_task *task, struct ra_span word,
                               struct spelled *out, struct ra_error *err)
{
    struct ra_span key, value = word;
    char hint[RA_HINT_MAX];
    if (!ra_span_cut(&value, '=', &key) || value.n == 0)
        return ra_fail(err, RA_EUSAGE, "--task %s: expected key=value, got '%.*s'", task->spelling,
                       RA_SPAN(word));
    char **text = ra_span_is(key, "file") ? &out->file : ra_span_is(key, "dir") ? &out->dir : NULL;
    int32_t *number = ra_span_is(key, "prompt")  ? &out->prompt
                      : ra_span_is(key, "steps") ? &out->steps
                      : ra_span_is(key, "first") ? &out->first
                                                 : NULL;
    if (!text && !number)
        return ra_fail(err, RA_EUSAGE, "--task %s: unknown key '%.*s'; %s", task->spelling,
                       RA_SPAN(key),
                       ra_text_hint(key, key_names, sizeof key_names / sizeof key_names[0],
                                    sizeof key_names[0], hint));
    if (text) {
        free(*text);
        *text = strndup(value.at, value.n);
        return *text ? RA_OK : out_of_memory(task, err);
    }
    if (!ra_span_count(value, number) || *number < 1)
        return ra_fail(err, RA_EUSAGE, "--task %s: %.*s: expected a number from 1 on, got '%.*s'",
                       task->spelling, RA_SPAN(key), RA_SPAN(value));
    return RA_OK;
}

static enum ra_status parse(const struct ra_eval_task *task, struct spelled *out,
                            struct ra_error *err)
{
    struct ra_span rest = ra_span_of(task->spelling), word;
    char hint[RA_HINT_MAX];
    bool has_keys = ra_span_cut(&rest, ':', &out->name), is_known = false;
    for (int i = 0; i < N_NAMES; i++)
        is_known |= ra_span_is(out->name, task_names[i]);
    if (!is_known)
        return ra_fail(err, RA_EUSAGE, "--task: unknown task '%.*s'; %s", RA_SPAN(out->name),
                       ra_text_hint(out->name, task_names, N_NAMES, sizeof task_names[0], hint));
    while (has_keys && rest.n) {
        ra_span_cut(&rest, ',', &word);
        RA_TRY(take_key(task, word, out, err));
    }
    bool is_ppl = ra_span_is(out->name, "ppl");
    if (is_ppl ? !out->file == !out->dir : !out->file || out->dir)
        return ra_fail(err, RA_EUSAGE, "--task %s: expected %s", task->spelling,
                       is_ppl ? "file=IDS or dir=FOLDER" : "file=PROMPTS");
    if (is_ppl ? out->first != 0 : out->prompt != 0 || out->steps != 0)
        return ra_fail(err, RA_EUSAGE, "--task %s: expected %s", task->spelling,
                       is_ppl ? "prompt=P and steps=N alone" : "first=n alone");
    return RA_OK;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* One text; without prompt=, all that the steps leave; without steps=, 256. */
static enum ra_status add_text(struct ra_eval_task *task, const char *path,
                               const struct spelled *spelled, const struct ra_language_model *model,
                               struct ra_error *err)
{
    size_t n = (size_t)task->n + 1;
    void *items = realloc(task->items, n * sizeof *task->items);
    task->items = items ? items : task->items;
    void *texts = realloc(task->texts, n * sizeof(struct ra_ids *));
    task->texts = texts ? texts : task->texts;
    void *names = realloc(task->names, n * sizeof(char *));
    task->names = names ? names : task->names;
    if (!items || !texts || !names)
        return out_of_memory(task, err);
    struct ra_ids *ids;
    RA_TRY(ra_ids_open(&ids, path, model->config->vocab, err));
    task->texts[task->n] = ids;
    task->names[task->n] = strdup(name_of(path));
    task->n++;
    if (!task->names[task->n - 1])
        return out_of_memory(task, err);
    RA_TRY(ra_language_model_speaks(model, path, ids->tokenizer_sha256, err));
    int64_t N = spelled->steps ? spelled->steps : 256;
    int64_t P = spelled->prompt ? spelled->prompt : (int64_t)ids->n - N - 1;
    if (P < 1 || P + N + 1 > (int64_t)ids->n)
        return ra_fail(err, RA_EUSAGE,
                       "%s: expected at least %" PRId64 " tokens for a prompt of %" PRId64
                       " and %" PRId64 " steps, got %zu",
                       path, (P < 1 ? 1 : P) + N + 1, P < 1 ? 1 : P, N, ids->n);
    RA_TRY(ra_language_model_reaches(model, path, P, N, err));
    task->items[task->n - 1] =
        (struct ra_eval_item){.text = {.tokens = ids->tokens, .P = (int32_t)P, .N = (int32_t)N},
                              .name = task->names[task->n - 1],
                              .depth = NAN};
    return RA_OK;
}

static int is_ids(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && end && strcmp(end, ".safetensors") == 0;
}

static enum ra_status add_folder(struct ra_eval_task *task, const struct spelled *spelled,
                                 const struct ra_language_model *model, struct ra_error *err)
{
    struct dirent **entries;
    int n = scandir(spelled->dir, &entries, is_ids, alphasort);
    if (n < 0)
        return ra_fail(err, RA_EIO, "%s: cannot read the folder: %s", spelled->dir,
                       strerror(errno));
    enum ra_status st =
        n ? RA_OK
          : ra_fail(err, RA_EUSAGE, "%s: expected *.safetensors of token ids", spelled->dir);
    for (int i = 0; i < n; i++) {
        size_t room = strlen(spelled->dir) + strlen(entries[i]->d_name) + 2;
        char *path = malloc(room);
        if (st == RA_OK && !path)
            st = out_of_memory(task, err);
        if (st == RA_OK) {
            snprintf(path, room, "%s/%s", spelled->dir, entries[i]->d_name);
            st = add_text(task, path, spelled, model, err);
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    return st;
}

static enum ra_status add_prompt(struct ra_eval_task *task, const struct ra_language_model *model,
                                 size_t *probe, struct ra_error *err)
{
    const struct ra_prompts *p = task->prompts;
    size_t i = (size_t)task->n, first = *probe;
    while (*probe < p->n_probes && p->probes[*probe].prompt == (int32_t)i)
        (*probe)++;
    struct ra_eval_item *item = &task->items[i];
    *item = (struct ra_eval_item){.text = {.tokens = p->tokens[i],
                                           .P = p->prompt_len[i],
                                           .N = p->length[i] - p->prompt_len[i] - 1,
                                           .probes = p->probes + first,
                                           .n_probes = (int)(*probe - first)},
                                  .seed = p->seed[i],
                                  .depth = p->depth ? (double)p->depth[i] : NAN};
    if (item->text.N < 1 || item->text.n_probes < 1)
        return ra_fail(err, RA_EFORMAT,
                       "%s: prompt %zu: expected a step to decode and a token to judge, got %d and "
                       "%d",
                       task->spelling, i, item->text.N, item->text.n_probes);
    if (p->length[i] - 1 > model->config->max_positions)
        return ra_fail(err, RA_EUSAGE,
                       "%s: prompt %zu: expected at most %d positions (max_position_embeddings), "
                       "got %d",
                       task->spelling, i, model->config->max_positions, p->length[i] - 1);
    char name[24];
    snprintf(name, sizeof name, "%zu", i);
    task->names[i] = strdup(name);
    item->name = task->names[i];
    task->n++;
    return item->name ? RA_OK : out_of_memory(task, err);
}

static enum ra_status add_prompts(struct ra_eval_task *task, const struct spelled *spelled,
                                  const struct ra_language_model *model, struct ra_error *err)
{
    RA_TRY(ra_prompts_open(&task->prompts, spelled->file, model->config->vocab, err));
    const struct ra_prompts *p = task->prompts;
    RA_TRY(ra_language_model_speaks(model, spelled->file, p->tokenizer_sha256, err));
    if (!ra_span_is(spelled->name, "prompts") && !ra_span_is(spelled->name, p->family))
        return ra_fail(err, RA_EUSAGE, "%s: expected prompts of family %.*s, got %s", spelled->file,
                       RA_SPAN(spelled->name), p->family);
    size_t n = spelled->first && (size_t)spelled->first < p->n ? (size_t)spelled->first : p->n;
    size_t probe = 0;
    task->name = p->task;
    task->family = p->family;
    task->items = calloc(n, sizeof *task->items);
    task->names = calloc(n, sizeof(char *));
    if (!task->items || !task->names)
        return out_of_memory(task, err);
    for (size_t i = 0; i < n; i++)
        RA_TRY(add_prompt(task, model, &probe, err));
    return RA_OK;
}

enum ra_status ra_eval_task_open(struct ra_eval_task *task, const char *spelling,
                                 const struct ra_language_model *model, struct ra_error *err)
{
    struct spelled spelled = {.file = NULL};
    *task = (struct ra_eval_task){.spelling = strdup(spelling), .name = "ppl", .family = "ppl"};
    if (!task->spelling)
        return ra_fail(err, RA_ENOMEM, "--task: out of memory");
    enum ra_status st = parse(task, &spelled, err);
    task->is_ppl = st == RA_OK && ra_span_is(spelled.name, "ppl");
    if (st == RA_OK)
        st = spelled.dir    ? add_folder(task, &spelled, model, err)
             : task->is_ppl ? add_text(task, spelled.file, &spelled, model, err)
                            : add_prompts(task, &spelled, model, err);
    task->path = spelled.dir ? spelled.dir : spelled.file;
    if (spelled.dir)
        free(spelled.file);
    return st;
}

void ra_eval_task_close(struct ra_eval_task *task)
{
    for (int i = 0; task->texts && i < task->n; i++)
        ra_ids_close(task->texts[i]);
    for (int i = 0; task->names && i < task->n; i++)
        free(task->names[i]);
    free(task->items);
    free(task->texts);
    free(task->names);
    free(task->spelling);
    free(task->path);
    ra_prompts_close(task->prompts);
    *task = (struct ra_eval_task){0};
}
