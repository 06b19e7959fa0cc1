/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three queries: which runs have counters, what their layers counted at each step, what the
 * counters said. A store may be anybody's: numbers are taken within bounds, and a shape that no
 * kernel has is a reason to predict nothing.
 */
#include "sim/report_traffic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/policy.h"
#include "sim/report_html_part.h"
#include "sim/report_table.h"
#include "sim/traffic.h"

/* Of one step, all layers. */
struct step {
    double number;
    double parts[RA_TRAFFIC_PARTS], read, written, hits; /* the last three NaN: not counted */
};

struct counted {
    double id;
    json_t *result; /* borrowed */
    struct ra_traffic_run run;
    const char *missing;
    const char *policy; /* its name; "" when this version does not know it */
    bool is_deferred, is_transformed, is_unknown;
    double P, tiles;
    int32_t members; /* of the batch, if they differ: each has rows of its own; else 1 */
    struct step *steps;
    size_t n, room;
};

struct gathered {
    const json_t *ids;
    json_t *results; /* borrowed */
    struct counted *list;
    size_t n;
    struct ra_traffic_step *layers; /* of the step at hand, member by member */
    size_t n_layers, room;
    int32_t n_members;
    double at_run, at_step;
};

/* --- cells -------------------------------------------------------------------------------------
 */

static const char *text_of(const struct ra_store_cells *row, const char *name)
{
    for (int i = 0; i < row->n; i++)
        if (strcmp(row->names[i], name) == 0)
            return row->text[i] ? row->text[i] : "";
    return "";
}

/* NaN when there is none. */
static double number_of(const struct ra_store_cells *row, const char *name)
{
    const char *text = text_of(row, name);
    char *end;
    double value = strtod(text, &end);
    return *text && !*end ? value : NAN;
}

/* Within what every count of a model and a card is; -1 otherwise. */
static int32_t count_of(double value)
{
    return value >= 0 && value <= 1 << 28 ? (int32_t)value : -1;
}

/* What fills the members of `layer_step` may be negative or huge. */
static double bytes_of(const struct ra_store_cells *row, const char *name)
{
    double value = number_of(row, name);
    return value >= 0 && value < 1e15 ? value : 0;
}

/* Appended to a list that grows; NULL: no memory. */
static void *append(void **list, size_t *n, size_t *room, size_t size)
{
    if (*n == *room) {
        size_t more = 2 * *room + 64;
        void *grown = realloc(*list, more * size);
        if (!grown)
            return NULL;
        *list = grown;
        *room = more;
    }
    return (char *)*list + (*n)++ * size;
}

static enum ra_status no_memory(struct ra_error *err)
{
    return ra_fail(err, RA_ENOMEM, "no memory for the traffic of runs");
}

static struct counted *find(const struct gathered *all, double id)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->list[i].id == id)
            return &all->list[i];
    return NULL;
}

/* --- what a run's bytes follow from ------------------------------------------------------------
 */

/* "NAME, sm_90, 132 SMs": the cuda backend's name of a card; 0 when it is no such name. */
static int32_t sms_of(const char *device)
{
    const char *at = strrchr(device, ',');
    char *end;
    double n = at ? strtod(at + 1, &end) : 0;
    return at && strcmp(end, " SMs") == 0 && count_of(n) > 0 ? count_of(n) : 0;
}

static void set_policy(struct counted *c, const char *canonical, double longest, bool gathers)
{
    struct ra_policy_spec *spec = NULL;
    c->policy = "";
    enum ra_status st = ra_policy_parse(&spec, canonical, NULL);
    if (st == RA_ENOMEM)
        ra_json_lack();
    if (st == RA_OK) {
        int32_t P = count_of(longest > c->P ? longest : c->P),
                k = ra_policy_spec_k_max(spec, P > 0 ? P : 1);
        enum ra_caches caches = ra_policy_spec_caches(spec);
        c->policy = ra_policy_spec_ops(spec)->name;
        c->is_transformed = ra_policy_spec_transform(spec) != NULL;
        struct ra_page_rule rule;
        c->is_unknown = ra_policy_spec_ops(spec)->cuts || ra_policy_spec_pages(spec, 0, 1, &rule);
        c->run.cap = caches == RA_CACHES_FULL || k < 0 ? 0 : k;
        c->run.gathers = gathers && caches == RA_CACHES_BOTH;
        c->run.compares = (ra_policy_spec_needs(spec) & RA_NEEDS_QUERIES) != 0;
    }
    ra_policy_spec_close(spec);
}

static double or_one(double value)
{
    return value >= 1 ? value : 1;
}

static void set_run(struct counted *c, const struct ra_store_cells *row)
{
    double page = number_of(row, "page"), D = number_of(row, "D");
    const char *dtype = text_of(row, "dtype"), *agg = text_of(row, "agg");
    c->run = (struct ra_traffic_run){
        .Hq = count_of(number_of(row, "Hq")),
        .Hkv = count_of(number_of(row, "Hkv")),
        .D = D == number_of(row, "Dv") ? count_of(D) : -1,
        .element_bytes = strcmp(dtype, ra_dtype_name(RA_F32)) == 0 ? 4 : 2,
        .n_sms = sms_of(text_of(row, "device")),
        .copies = count_of(or_one(number_of(row, "batch"))),
        .pool = count_of(or_one(number_of(row, "pool"))),
        .first_alone = strcmp(agg, "first") == 0,
        .raw = strcmp(text_of(row, "evict"), "raw") == 0,
        .paged = page > 0,
        .scores_apart = strcmp(text_of(row, "scores"), "recompute") == 0,
        .max_rows = 1,
    };
    set_policy(c, text_of(row, "canonical"), number_of(row, "longest_prompt"),
               strcmp(text_of(row, "cache"), "gather") == 0);
    c->is_deferred = strcmp(text_of(row, "choice"), "deferred") == 0;
    /* The layers of filler_bytes() in backend_memory.cu. */
    double layers =
        c->tiles * (double)(json_array_size(json_object_get(c->result, "layers")) +
                            json_array_size(json_object_get(c->result, "window_layers")));
    if (strcmp(text_of(row, "filler"), "model") == 0)
        c->run.between_bytes = (layers > 1 ? 2 : 4) * bytes_of(row, "cache_bytes");
    if (!ra_traffic_can(&c->run))
        c->missing = "the store does not say what the kernels' bytes follow from";
    else if (!*c->policy)
        c->missing = "this version does not know the policy";
    else if (c->is_transformed)
        c->missing = "kernels read dequantised rows, and the bytes of the books are of codes";
    else if (c->is_unknown)
        c->missing = "no formula says yet what cutting by scores, or choosing pages, moves";
    bool differ = *text_of(row, "sequences") || strcmp(text_of(row, "phase"), "spread") == 0 ||
                  number_of(row, "ragged") > 0;
    c->members = differ && c->run.copies > 1 ? c->run.copies : 1;
    c->run.copies = differ ? 1 : c->run.copies;
}

static enum ra_status on_run(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    struct gathered *all = context;
    (void)err;
    for (size_t i = 0; i < json_array_size(all->ids); i++) {
        const json_t *id = json_array_get(all->ids, i);
        json_t *result = json_array_get(all->results, i);
        if ((double)json_integer_value(id) != number_of(row, "id") || !json_is_object(result) ||
            find(all, number_of(row, "id")))
            continue;
        struct counted *c = &all->list[all->n++];
        *c = (struct counted){.id = number_of(row, "id"), .result = result};
        c->P = ra_result_number(result, "P", NULL);
        c->tiles = or_one(ra_result_number(result, "tile_layers", NULL));
        set_run(c, row);
    }
    return RA_OK;
}

/* --- what layers did ---------------------------------------------------------------------------
 */

/* Are two members' steps of a layer launched as one? */
static bool alike(const struct ra_traffic_run *run, const struct ra_traffic_step *a,
                  const struct ra_traffic_step *b)
{
    return a->has_window == b->has_window && a->is_full == b->is_full &&
           a->rebuilds == b->rebuilds && a->compared == b->compared &&
           ra_traffic_chooses(run, a) == ra_traffic_chooses(run, b);
}

/* Members that do the same one after the other are launched together: backend_call.cu. */
static void join_members(const struct counted *c, struct ra_traffic_step *layers, size_t n_lanes)
{
    for (size_t lane = 0; lane < n_lanes; lane++)
        for (int32_t from = 0, to; from < c->members; from = to) {
            int32_t longest = 0;
            for (to = from;
                 to < c->members && alike(&c->run, &layers[(size_t)from * n_lanes + lane],
                                          &layers[(size_t)to * n_lanes + lane]);
                 to++)
                if (layers[(size_t)to * n_lanes + lane].L > longest)
                    longest = layers[(size_t)to * n_lanes + lane].L;
            for (int32_t i = from; i < to; i++) {
                layers[(size_t)i * n_lanes + lane].together = to - from;
                layers[(size_t)i * n_lanes + lane].longest = longest;
            }
        }
}

/* Layers of a member that choose together know of each other only when the step is whole. */
static void add_member(const struct counted *c, const struct ra_traffic_run *run,
                       struct ra_traffic_step *layers, size_t n_lanes, struct step *step)
{
    double n_choices = 0;
    for (size_t i = 0; i < n_lanes; i++)
        n_choices += ra_traffic_chooses(run, &layers[i]);
    int32_t together = c->is_deferred ? count_of(n_choices * c->tiles) : 1;
    for (size_t i = 0; i < n_lanes; i++) {
        layers[i].n_choices = together;
        ra_traffic_add(run, &layers[i], step->parts);
    }
}

static enum ra_status end_step(struct gathered *all, struct ra_error *err)
{
    struct counted *c = find(all, all->at_run);
    if (!c || all->n_layers == 0)
        return RA_OK;
    struct step *step = append((void **)&c->steps, &c->n, &c->room, sizeof *step);
    if (!step)
        return no_memory(err);
    *step = (struct step){.number = all->at_step, .read = NAN, .written = NAN, .hits = NAN};
    size_t n_lanes = all->n_layers / (size_t)c->members;
    if (!c->missing &&
        (all->n_members != c->members || n_lanes * (size_t)c->members != all->n_layers))
        c->missing = "the store does not hold what each of the batch read";
    struct ra_traffic_run run = c->run;
    if (!c->missing && c->members > 1)
        join_members(c, all->layers, n_lanes);
    for (int32_t i = 0; i < c->members && !c->missing; i++) {
        add_member(c, &run, all->layers + (size_t)i * n_lanes, n_lanes, step);
        run.between_bytes = 0; /* once, whoever comes after */
    }
    for (size_t part = 0; part < RA_TRAFFIC_PARTS; part++)
        step->parts[part] *= c->tiles;
    all->n_layers = 0;
    all->n_members = 0;
    return RA_OK;
}

static bool has_window(const struct counted *c, double layer)
{
    const json_t *list = json_object_get(c->result, "window_layers");
    for (size_t i = 0; i < json_array_size(list); i++)
        if ((double)json_integer_value(json_array_get(list, i)) == layer)
            return true;
    return false;
}

static enum ra_status on_layer(void *context, const struct ra_store_cells *row,
                               struct ra_error *err)
{
    struct gathered *all = context;
    double id = number_of(row, "run_id"), step = number_of(row, "step");
    struct counted *c = find(all, id);
    if (!c)
        return RA_OK;
    if (id != all->at_run || step != all->at_step)
        RA_TRY(end_step(all, err));
    all->at_run = id;
    all->at_step = step;
    struct ra_traffic_step *layer =
        append((void **)&all->layers, &all->n_layers, &all->room, sizeof *layer);
    if (!layer)
        return no_memory(err);
    int32_t L = count_of(number_of(row, "visible_tokens"));
    all->n_members = count_of(number_of(row, "member")) + 1;
    *layer = (struct ra_traffic_step){
        .keys_read = bytes_of(row, "keys_read"),
        .kv_read_bytes = bytes_of(row, "kv_read_bytes"),
        .kv_write_bytes = bytes_of(row, "kv_write_bytes"),
        .refresh_entries = bytes_of(row, "refresh_entries"),
        .refresh_bytes = bytes_of(row, "refresh_bytes"),
        .selection_bytes = bytes_of(row, "selection_bytes"),
        .L = L > 0 ? L : 1,
        .has_window = has_window(c, number_of(row, "layer")),
        .is_full = number_of(row, "is_full") > 0,
        /* A full step of streaming is called a refresh, but self alone enters. */
        .rebuilds = number_of(row, "refreshes") > 0 && strcmp(c->policy, "streaming") != 0,
        .compared = number_of(row, "compared") > 0,
    };
    return RA_OK;
}

/* The caches' room is for the steps that were run, which the last of them tells. */
static enum ra_status on_last(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    struct counted *c = find(context, number_of(row, "run_id"));
    (void)err;
    int32_t rows = c ? count_of(number_of(row, "visible_tokens")) : -1;
    if (c && rows > c->run.max_rows)
        c->run.max_rows = rows;
    return RA_OK;
}

static void settle_room(struct gathered *all)
{
    for (size_t i = 0; i < all->n; i++) {
        struct ra_traffic_run *run = &all->list[i].run;
        if (run->cap > 0) /* self is one more */
            run->cap = run->cap < run->max_rows - 1 ? run->cap + 1 : run->max_rows;
    }
}

/* --- what was counted --------------------------------------------------------------------------
 */

static enum ra_status on_count(void *context, const struct ra_store_cells *row,
                               struct ra_error *err)
{
    struct counted *c = find(context, number_of(row, "run_id"));
    double number = number_of(row, "step");
    size_t low = 0, high = c ? c->n : 0;
    (void)err;
    while (low < high) { /* steps ascend */
        size_t middle = low + (high - low) / 2;
        if (c->steps[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (!c || low >= c->n || c->steps[low].number != number)
        return RA_OK;
    c->steps[low].read = number_of(row, "read");
    c->steps[low].written = number_of(row, "written");
    c->steps[low].hits = number_of(row, "had_by_l2");
    return RA_OK;
}

/* --- results -----------------------------------------------------------------------------------
 */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static double unexplained(const struct step *step)
{
    double explained = isnan(step->hits) ? 0 : -step->hits;
    for (size_t part = 0; part < RA_TRAFFIC_PARTS; part++)
        explained += step->parts[part];
    return step->read + step->written - explained;
}

static json_t *bytes_json(const struct counted *c, const struct step *step)
{
    json_t *bytes = json_object();
    double lacks = c->missing ? NAN : 0;
    for (int part = 0; part < RA_TRAFFIC_PARTS; part++)
        json_object_set_new(bytes, ra_traffic_name((enum ra_traffic_part)part),
                            number(step->parts[part] + lacks));
    json_object_set_new(bytes, "l2_hits", number(0 - step->hits));
    json_object_set_new(bytes, "read", number(step->read));
    json_object_set_new(bytes, "written", number(step->written));
    json_object_set_new(bytes, "measured", number(step->read + step->written));
    json_object_set_new(bytes, "unexplained", number(unexplained(step) + lacks));
    return bytes;
}

/* Of the steps; a step without a count leaves none. */
static struct step mean_of(const struct counted *c)
{
    struct step mean = {0};
    for (size_t i = 0; i < c->n; i++) {
        for (size_t part = 0; part < RA_TRAFFIC_PARTS; part++)
            mean.parts[part] += c->steps[i].parts[part] / (double)c->n;
        mean.read += c->steps[i].read / (double)c->n;
        mean.written += c->steps[i].written / (double)c->n;
        mean.hits += c->steps[i].hits / (double)c->n;
    }
    return mean;
}

static enum ra_status put_result(const struct counted *c, struct ra_error *err)
{
    struct step mean = mean_of(c);
    double own = mean.read + mean.written - mean.parts[RA_TRAFFIC_BETWEEN];
    if (c->n == 0)
        return RA_OK;
    json_t *steps = json_array();
    for (size_t i = 0; i < c->n; i++) {
        json_t *bytes = bytes_json(c, &c->steps[i]);
        json_object_set_new(bytes, "step", number(c->steps[i].number));
        json_array_append_new(steps, bytes);
    }
    /* Where times are synthetic the kernels ran on the host, which counted for the card. */
    const char *times = ra_result_text(json_object_get(c->result, "attention_ns"), "method");
    const char *method = strcmp(times, "synthetic") == 0 ? "emulated" : "dram-counters";
    json_t *traffic =
        json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "method", method, "steps", (json_int_t)c->n,
                  "bytes_per_step", bytes_json(c, &mean), "unexplained_share",
                  number(own > 0 && !c->missing ? unexplained(&mean) / own : NAN), "missing",
                  c->missing ? json_string(c->missing) : json_null(), "per_step", steps);
    if (json_object_set_new(c->result, "traffic", traffic) != 0 || ra_json_starved())
        return no_memory(err);
    return RA_OK;
}

/* ids as :runs of a query, of those that have counters unless there is no list yet; NULL: no
 * memory. */
static char *runs_text(const struct gathered *all, bool counted)
{
    json_t *runs = json_array();
    for (size_t i = 0; i < json_array_size(all->ids); i++) {
        const json_t *id = json_array_get(all->ids, i);
        if (!counted || find(all, (double)json_integer_value(id)))
            json_array_append_new(runs, json_pack("{s:I}", "id", json_integer_value(id)));
    }
    char *text = ra_json_dump(runs, JSON_COMPACT);
    json_decref(runs);
    return text;
}

static enum ra_status read_steps(struct ra_store *store, struct gathered *all, const char *sql,
                                 struct ra_error *err)
{
    char *runs = runs_text(all, true);
    const char *layers = sql;
    if (!runs)
        return no_memory(err);
    enum ra_status st = ra_store_select(store, &sql, runs, on_last, all, err);
    settle_room(all);
    if (st == RA_OK)
        st = ra_store_select(store, &layers, runs, on_layer, all, err);
    if (st == RA_OK)
        st = end_step(all, err);
    if (st == RA_OK)
        st = ra_store_select(store, &sql, runs, on_count, all, err);
    free(runs);
    for (size_t i = 0; i < all->n && st == RA_OK; i++)
        st = put_result(&all->list[i], err);
    return st;
}

enum ra_status ra_report_traffic(struct ra_store *store, const json_t *ids, json_t *results,
                                 struct ra_error *err)
{
    struct gathered all = {.ids = ids, .results = results, .at_run = NAN};
    const char *sql = ra_html_traffic_sql;
    char *runs = runs_text(&all, false);
    all.list = calloc(json_array_size(ids) + 1, sizeof *all.list);
    for (size_t i = 0; i < json_array_size(results); i++) /* a store may be anybody's */
        json_object_del(json_array_get(results, i), "traffic");
    enum ra_status st = runs && all.list ? RA_OK : no_memory(err);
    if (st == RA_OK)
        st = ra_store_select(store, &sql, runs, on_run, &all, err);
    if (st == RA_OK && all.n > 0)
        st = read_steps(store, &all, sql, err);
    for (size_t i = 0; i < all.n; i++)
        free(all.list[i].steps);
    free(all.layers);
    free(all.list);
    free(runs);
    return st;
}
