/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The story of a policy for people. Short lists are spelled out with the names of their positions,
 * long ones become ranges.
 */
#include "sim/cli/explain_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"

enum { LABEL = 11, LINE = 79, FEW = 12, NEXT = 6, MAX_LINES = 3 };

struct telling {
    const struct ra_scene *scene;
    bool is_verbose;
    const char *evictions; /* of the story */
    json_int_t first_head; /* query head */
    int column, lines;
    bool is_cut;
};

static json_int_t int_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static int32_t at(const json_t *list, size_t i)
{
    return (int32_t)json_integer_value(json_array_get(list, i));
}

/* --- lists of positions ------------------------------------------------------------------------
 */

static void label(struct telling *telling, const char *name)
{
    printf("  %-*s", LABEL - 2, name);
    telling->column = LABEL;
    telling->lines = 0;
    telling->is_cut = false;
}

/* One item of a list; a line that would be too long is broken before it. */
static void put_item(struct telling *telling, const char *text, bool is_first)
{
    int n = (int)strlen(text);
    if (telling->is_cut)
        return;
    /* The last line of a list that may be cut has room for the cut. */
    bool is_last = !telling->is_verbose && telling->lines + 1 == MAX_LINES;
    if (!is_first && telling->column + 2 + n > LINE - (is_last ? 5 : 0)) {
        if (!telling->is_verbose && ++telling->lines == MAX_LINES) {
            fputs(", ...", stdout);
            telling->is_cut = true;
            return;
        }
        printf(",\n%*s", LABEL, "");
        telling->column = LABEL;
    } else if (!is_first) {
        fputs(", ", stdout);
        telling->column += 2;
    }
    ra_put_safe(text);
    telling->column += n;
}

static void put_named(struct telling *telling, int32_t pos, bool is_first)
{
    char name[RA_SCENE_NAME], text[RA_SCENE_NAME + 16];
    telling->scene->name(telling->scene, pos, name);
    snprintf(text, sizeof text, "%" PRId32 "%s%s", pos, *name ? " " : "", name);
    put_item(telling, text, is_first);
}

static int compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* "0-3, 17, 25-31" of a list in any order. */
static void put_ranges(struct telling *telling, const json_t *list)
{
    size_t n = json_array_size(list);
    int32_t *pos = malloc(n * sizeof *pos);
    if (!pos) {
        ra_json_lack();
        return;
    }
    for (size_t i = 0; i < n; i++)
        pos[i] = at(list, i);
    qsort(pos, n, sizeof *pos, compare);
    for (size_t i = 0, end; i < n; i = end) {
        char text[32];
        for (end = i + 1; end < n && pos[end] == pos[end - 1] + 1;)
            end++;
        if (end - i == 1)
            snprintf(text, sizeof text, "%" PRId32, pos[i]);
        else
            snprintf(text, sizeof text, "%" PRId32 "-%" PRId32, pos[i], pos[end - 1]);
        put_item(telling, text, i == 0);
    }
    free(pos);
}

static void put_list(struct telling *telling, const char *name, const json_t *list)
{
    size_t n = json_array_size(list);
    label(telling, name);
    if (n == 0)
        fputs("nothing", stdout);
    if (n > FEW)
        put_ranges(telling, list);
    else
        for (size_t i = 0; i < n; i++)
            put_named(telling, at(list, i), i == 0);
    putchar('\n');
}

/* C_r, in the order in which its entries will go. */
static void put_cache(struct telling *telling, const char *name, const json_t *cache)
{
    size_t n = json_array_size(cache);
    put_list(telling, name, cache);
    if (n <= FEW)
        return;
    label(telling, "");
    if (strcmp(telling->evictions, "order") != 0) {
        printf("%zu entries; %s\n", n,
               strcmp(telling->evictions, "score") == 0 ? "scores decide which goes next"
                                                        : "none will go");
        return;
    }
    printf("%zu entries, the next to go: ", n);
    telling->column += 40;
    for (size_t i = 0; i < NEXT; i++)
        put_named(telling, at(cache, i), i == 0);
    putchar('\n');
}

/* --- steps -------------------------------------------------------------------------------------
 */

static void put_prefill(struct telling *telling, const json_t *prefill)
{
    char name[RA_SCENE_NAME];
    int32_t self = (int32_t)int_of(prefill, "self");
    const json_t *cache = json_object_get(prefill, "cache");
    telling->scene->name(telling->scene, self, name);
    printf("prefill, last prompt position %" PRId32 " ", self);
    ra_put_safe(name);
    putchar('\n');
    if (json_is_array(cache))
        put_cache(telling, "keeps", cache);
    else {
        label(telling, "keeps");
        puts("no cache of its own");
    }
    putchar('\n');
}

static void put_attended(struct telling *telling, const json_t *step)
{
    const json_t *attended = json_object_get(step, "attended");
    const json_t *mass = json_object_get(step, "mass"), *heads = json_object_get(step, "heads");
    size_t n = json_array_size(attended);
    put_list(telling, "attends", attended);
    for (size_t i = 0; i < json_array_size(heads); i++) {
        char name[32];
        snprintf(name, sizeof name, "head %" JSON_INTEGER_FORMAT,
                 telling->first_head + (json_int_t)i);
        put_list(telling, name, json_array_get(heads, i));
    }
    label(telling, "");
    printf("%zu of %" JSON_INTEGER_FORMAT " keys", n, int_of(step, "keys"));
    if (json_is_real(mass) && (json_int_t)n < int_of(step, "keys"))
        printf(", which hold %.4g of the attention", json_real_value(mass));
    putchar('\n');
}

static void put_rebuild(struct telling *telling, const json_t *step)
{
    const json_t *overlap = json_object_get(step, "overlap");
    const json_t *old_mass = json_object_get(step, "old_mass");
    label(telling, "rebuilds");
    printf("C_r from these scores; %zu of %zu entries are new",
           json_array_size(json_object_get(step, "entered")),
           json_array_size(json_object_get(step, "cache")));
    if (json_is_real(overlap))
        printf(" (overlap %.4g)", json_real_value(overlap));
    putchar('\n');
    if (json_is_real(old_mass)) {
        label(telling, "");
        printf("the old C_r and self would have held %.4g of the attention\n",
               json_real_value(old_mass));
    }
}

static void put_step(struct telling *telling, const json_t *step)
{
    char name[RA_SCENE_NAME];
    int32_t self = (int32_t)int_of(step, "self");
    const json_t *flushed = json_object_get(step, "flushed"),
                 *cache = json_object_get(step, "cache");
    json_int_t t = int_of(step, "step");
    telling->scene->name(telling->scene, self, name);
    printf("step %" JSON_INTEGER_FORMAT " (i = %" JSON_INTEGER_FORMAT "), %s, self %" PRId32 " ", t,
           t + 1, json_string_value(json_object_get(step, "kind")), self);
    ra_put_safe(name);
    putchar('\n');
    if (json_array_size(flushed) > 0)
        put_list(telling, "flushes", flushed);
    put_attended(telling, step);
    if (json_is_true(json_object_get(step, "rebuilt")))
        put_rebuild(telling, step);
    else if (json_is_array(cache) && json_array_size(json_object_get(step, "evicted")) > 0)
        put_list(telling, "evicts", json_object_get(step, "evicted"));
    if (json_is_array(cache))
        put_cache(telling, "keeps", cache);
    if (json_is_array(json_object_get(step, "chosen")))
        put_list(telling, "chooses", json_object_get(step, "chosen"));
    if (json_array_size(json_object_get(step, "pending")) > 0)
        put_list(telling, "pending", json_object_get(step, "pending"));
    putchar('\n');
}

/* --- the answer --------------------------------------------------------------------------------
 */

static void put_rows(const char *what, json_int_t rows, json_int_t row_bytes)
{
    printf("%s%" JSON_INTEGER_FORMAT " rows", what, rows);
    if (row_bytes > 0)
        printf(" (%.1f KiB)", (double)(rows * row_bytes) / 1024);
}

static void put_footprint(const json_t *memory)
{
    const char *caches = json_string_value(json_object_get(memory, "caches"));
    json_int_t rows = int_of(memory, "rows"), retained = int_of(memory, "retained"),
               bytes = int_of(memory, "row_bytes");
    if (strcmp(caches, "both") == 0) {
        printf("  footprint no: L + K. C_f keeps all %" JSON_INTEGER_FORMAT
               " positions and C_r copies %" JSON_INTEGER_FORMAT ":\n",
               rows, retained);
        put_rows("            ", rows + retained, bytes);
        put_rows(" against ", rows, bytes);
        puts(" without C_r");
    } else if (strcmp(caches, "reduced") == 0) {
        printf("  footprint yes: %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
               " positions are kept; what is evicted is gone for good\n",
               retained, rows);
    } else {
        printf("  footprint no: all %" JSON_INTEGER_FORMAT " positions are kept", rows);
        put_rows(", ", rows, bytes);
        putchar('\n');
    }
}

static void put_memory(const json_t *memory)
{
    json_int_t read = int_of(memory, "keys_read"), full = int_of(memory, "keys_full");
    puts("Does memory shrink?");
    printf("  traffic   %s: %" JSON_INTEGER_FORMAT " keys read above, full attention"
           " reads %" JSON_INTEGER_FORMAT,
           read < full ? "yes" : "no", read, full);
    if (full > 0)
        printf(" (%.1f %%)", 100 * (double)read / (double)full);
    putchar('\n');
    put_footprint(memory);
}

void ra_explain_text(const struct ra_scene *scene, const json_t *story, bool is_verbose)
{
    const json_t *steps = json_object_get(story, "steps"),
                 *prefill = json_object_get(story, "prefill");
    struct telling telling = {
        .scene = scene,
        .is_verbose = is_verbose,
        .evictions = json_string_value(json_object_get(prefill, "evictions")),
        .first_head = int_of(story, "head") * scene->env.model->G,
    };
    fputs("policy  ", stdout);
    char policy[256];
    ra_report_short_policy(json_string_value(json_object_get(story, "policy")), policy,
                           sizeof policy);
    ra_put_wrapped(8, 8, policy);
    fputs(scene->has_truth ? "trace   " : "text    ", stdout);
    ra_put_wrapped(8, 8, scene->title);
    printf("        %" JSON_INTEGER_FORMAT " prompt %s, %" JSON_INTEGER_FORMAT " to decode",
           int_of(story, "P"), scene->has_truth ? "tokens" : "words", int_of(story, "N"));
    if (scene->has_truth)
        printf("; layer %" JSON_INTEGER_FORMAT ", KV head %" JSON_INTEGER_FORMAT,
               int_of(story, "layer"), int_of(story, "head"));
    printf("\nscores  %s\n\n", json_string_value(json_object_get(story, "scores")));
    put_prefill(&telling, prefill);
    for (size_t i = 0; i < json_array_size(steps); i++)
        put_step(&telling, json_array_get(steps, i));
    put_memory(json_object_get(story, "memory"));
}
