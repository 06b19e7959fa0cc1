/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes by formula. Sizes of CTAs are those of the kernels that are named: where one changes, the
 * counts of the emulation no longer agree, and tests/emu/waterfall.bats says so.
 */
#include "sim/traffic.h"

#include <stddef.h>

enum {
    WORD = 4,          /* of counts, positions, logits, keys; queries and outputs are f32 too */
    WARP_WORD = 4 * 4, /* a count that each of the four warps of a CTA reads for itself */
    SPLITS = 256,      /* RA_DECODE_MAX_SPLITS */
    LEAST_KEYS = 64,   /* of a split: launch.cu */
    PAGE = 16,         /* RA_PAGE */
    TILE = 2048,       /* RA_AGGREGATE_READ: positions that a CTA ranks */
    CHOICE_WARPS = 16, /* of a CTA that ranks or chooses, or plans a refresh */
    SLICE = 2048,      /* RA_SELECT_SLICE */
    CHOICE_PARTS = 32, /* RA_SELECT_PARTS */
    BINS = 2048,       /* RA_SELECT_BINS */
    ORDERED = 256,     /* RA_ORDER_LEAST: entries of a warp that sorts */
    MOVED = 128 * 16   /* RA_MOVE_THREADS of 16 bytes */
};

static const struct {
    const char *name, *words;
} parts_of[RA_TRAFFIC_PARTS] = {
    [RA_TRAFFIC_KV] = {"kv", "K and V attended to"},
    [RA_TRAFFIC_ROWS] = {"rows", "K and V appended and moved"},
    [RA_TRAFFIC_LOGITS] = {"logits", "logits"},
    [RA_TRAFFIC_CHOICE] = {"choice", "ranking keys and lists"},
    [RA_TRAFFIC_PARTIAL] = {"partial", "partial sums of splits"},
    [RA_TRAFFIC_QUERIES] = {"queries", "queries and outputs"},
    [RA_TRAFFIC_COUNTS] = {"counts", "lengths, flags, page tables"},
    [RA_TRAFFIC_BETWEEN] = {"between", "reads between layers"},
};

const char *ra_traffic_name(enum ra_traffic_part part)
{
    return parts_of[part].name;
}

const char *ra_traffic_words(enum ra_traffic_part part)
{
    return parts_of[part].words;
}

bool ra_traffic_can(const struct ra_traffic_run *run)
{
    const int32_t most = 1 << 16; /* products of a few stay within 64 bits */
    int32_t row = run->D > 0 && run->D <= most ? run->D * run->element_bytes : 0;
    bool has_row = row == 128 || row == 256 || row == 512;
    return has_row && run->Hkv > 0 && run->Hkv <= most && run->Hq >= run->Hkv && run->Hq <= most &&
           run->Hq % run->Hkv == 0 && run->n_sms > 0 && run->n_sms <= most && run->copies > 0 &&
           run->copies <= most && run->pool > 0 && run->pool <= most && run->max_rows > 0 &&
           run->cap >= 0;
}

static int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

static int64_t at_most(int64_t x, int64_t most)
{
    return x < most ? x : most;
}

static int64_t at_least(int64_t x, int64_t least)
{
    return x > least ? x : least;
}

/* Bytes of K and V of a position of one KV head. */
static double row_bytes(const struct ra_traffic_run *run)
{
    return 2.0 * run->D * run->element_bytes;
}

/* --- attention ---------------------------------------------------------------------------------
 */

/* Sequences that a launch serves, and what the longest of them sees. */
static int64_t launched_for(const struct ra_traffic_run *run, const struct ra_traffic_step *step)
{
    return step->together > 0 ? step->together : run->copies;
}

static int64_t longest_of(const struct ra_traffic_step *step)
{
    return step->longest > step->L ? step->longest : step->L;
}

/* How decode_split divides the keys of a KV head: launch.cu, and locate() of decode.cuh. */
struct division {
    int64_t heads, parts; /* query heads; CTAs that share a KV head, as few serve so many */
    int64_t launched, live, turn;
};

static struct division divide(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                              int64_t longest, int64_t seen)
{
    struct division d = {.heads = run->Hq / run->Hkv};
    int64_t group = d.heads <= 4 ? d.heads : 8, R = group == 1 ? 8 : 4;
    d.parts = divide_up(d.heads, group);
    int64_t rows = launched_for(run, step) * run->Hkv * d.parts,
            fit = 4 * rows <= run->n_sms ? 1 : 2;
    int64_t most = at_least(longest / LEAST_KEYS, 1);
    d.launched = at_most(at_most(at_least(fit * run->n_sms / rows, 1), most), SPLITS);
    d.turn = R * 32 / (run->D * run->element_bytes / 16);
    int64_t stride = 4 * d.turn, chunk = divide_up(divide_up(seen, d.launched), stride) * stride;
    d.live = chunk > 0 ? divide_up(seen, chunk) : 1;
    return d;
}

/* Of each query head the largest logit and the sum of weights of every split, and its output so
 * far; the former are asked for again of splits beyond the 32nd. decode_merge.cuh. */
static double partial_bytes(const struct ra_traffic_run *run, const struct division *d,
                            bool has_output)
{
    double sums = 2.0 * WORD, output = has_output ? (double)WORD * run->D : 0;
    double again = has_output && d->live > 32 ? (double)WORD * (double)(d->live - 32) : 0;
    if (d->live <= 1)
        return 0;
    return run->Hq * (2 * (sums + output) * (double)d->live + again) +
           (double)(WORD * run->Hkv * d->parts);
}

/* Entries of the page table that are looked up for keys in line: look_up() of decode.cuh. */
static double pages_of(const struct division *d, int64_t seen)
{
    return (double)divide_up(seen, at_most(d->turn, PAGE)) * (double)d->parts;
}

static void add_attention(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                          double *parts)
{
    int64_t seen = (int64_t)(step->keys_read / run->Hkv);
    bool sees_all = step->has_window || seen >= step->L, from_cache = !sees_all && run->cap > 0;
    /* Self comes after the keys of C_r, and is in no split, until it enters. */
    int64_t split = seen - (from_cache && !step->rebuilds);
    struct division d = divide(run, step,
                               from_cache ? run->cap
                               : sees_all ? longest_of(step)
                                          : seen,
                               split);
    double ctas = (double)run->Hkv * (double)(d.parts * d.launched), head = (double)WORD * run->D;
    parts[RA_TRAFFIC_QUERIES] += run->Hq * head * (double)(d.live + 1);
    parts[RA_TRAFFIC_PARTIAL] += partial_bytes(run, &d, true);
    parts[RA_TRAFFIC_COUNTS] += ctas * WARP_WORD * (from_cache ? 2 : 1);
    if (!sees_all && (run->gathers || run->cap == 0))
        parts[RA_TRAFFIC_CHOICE] += WORD * step->keys_read * (double)d.parts;
    if (run->paged && from_cache && run->gathers)
        parts[RA_TRAFFIC_COUNTS] += WORD * step->keys_read * (double)d.parts;
    else if (run->paged && sees_all)
        parts[RA_TRAFFIC_COUNTS] += WORD * run->Hkv * pages_of(&d, seen);
    /* A second CTA of the same keys reads them once more. */
    parts[RA_TRAFFIC_KV] += (double)(d.parts - 1) * step->keys_read * row_bytes(run);
}

/* --- scores, the choice, the refresh -----------------------------------------------------------
 */

/* Logits and ranking keys of all positions, both written and read, are how a choice shows in what
 * the replay counts: lists are shorter. */
static double scoring_bytes(const struct ra_traffic_run *run, const struct ra_traffic_step *step)
{
    double bytes = 2.0 * WORD * step->L * (run->Hq + run->Hkv);
    return !step->has_window && step->selection_bytes >= bytes ? bytes : 0;
}

bool ra_traffic_chooses(const struct ra_traffic_run *run, const struct ra_traffic_step *step)
{
    return scoring_bytes(run, step) > 0;
}

/* A pass over the keys that attention does not make: score.cuh. */
static void add_scores(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                       double *parts)
{
    struct division d = divide(run, step, longest_of(step), step->L);
    double ctas = (double)run->Hkv * (double)(d.parts * d.launched);
    parts[RA_TRAFFIC_QUERIES] += (double)WORD * run->D * run->Hq * (double)d.live;
    parts[RA_TRAFFIC_PARTIAL] += partial_bytes(run, &d, false);
    parts[RA_TRAFFIC_COUNTS] += ctas * WARP_WORD;
    if (run->paged)
        parts[RA_TRAFFIC_COUNTS] += WORD * run->Hkv * pages_of(&d, step->L);
    parts[RA_TRAFFIC_KV] += (double)(d.parts - 1) * step->L * run->Hkv * row_bytes(run) / 2;
}

/* aggregate_scores, select_topk and order_evictions for sets of `entries` in all: select.cu. */
static void add_choice(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                       double entries, double *parts)
{
    int64_t halo = divide_up(run->pool / 2, 4), tile = at_least(TILE - 8 * halo, 1);
    int64_t tiles = divide_up(step->L, tile), launched = divide_up(run->max_rows, tile);
    int64_t heads = run->first_alone ? run->Hkv : run->Hq;
    int64_t rows = at_least(step->n_choices, 1) * launched_for(run, step) * run->Hkv;
    int64_t slices = divide_up(run->max_rows, SLICE);
    int64_t ctas = at_least(at_most(at_most(2 * run->n_sms / rows, slices), CHOICE_PARTS), 1);
    int64_t each = divide_up(slices, ctas) * SLICE, sorted = ORDERED;
    ctas = at_least(divide_up(run->max_rows, each), 1);
    while ((double)sorted < entries / run->Hkv && sorted < (int64_t)1 << 30)
        sorted *= 2;
    double L = step->L, twice = (double)(8 * halo * (tiles - 1)); /* in two tiles */
    parts[RA_TRAFFIC_LOGITS] += WORD * (L * run->Hq + (L + twice) * (double)heads);
    parts[RA_TRAFFIC_QUERIES] += WORD * run->Hq * (double)(1 + tiles);
    parts[RA_TRAFFIC_CHOICE] += WORD * L * run->Hkv * (run->raw ? 3 : 2);
    parts[RA_TRAFFIC_CHOICE] += (double)(WORD * BINS * run->Hkv) * (double)(ctas + 1);
    /* Listed and read; chosen; read again, each with its key, to be ordered. What else a list
     * holds of the last one's bin is not known here. */
    parts[RA_TRAFFIC_CHOICE] += 6 * WORD * entries;
    parts[RA_TRAFFIC_COUNTS] +=
        (double)(WORD * run->Hkv) *
        (double)(CHOICE_WARPS * (launched + 3 * ctas) + 2 + divide_up(sorted, ORDERED));
}

/* plan_refresh and move_rows: refresh.cu. */
static void add_refresh(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                        double entries, double *parts)
{
    double each = 2 * WORD + WORD; /* from where to where, and who is there now */
    parts[RA_TRAFFIC_CHOICE] += 4 * WORD * entries + each * step->refresh_entries;
    parts[RA_TRAFFIC_COUNTS] += WORD * run->Hkv * (2.0 * CHOICE_WARPS + 4);
    if (run->gathers)
        return;
    int64_t ctas = divide_up(run->cap, MOVED / (run->D * run->element_bytes));
    parts[RA_TRAFFIC_CHOICE] += 2 * WORD * step->refresh_entries;
    parts[RA_TRAFFIC_COUNTS] += (double)(WARP_WORD * run->Hkv) * (double)ctas;
    if (run->paged)
        parts[RA_TRAFFIC_COUNTS] += WORD * step->refresh_entries;
}

static void add_selection(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                          double *parts)
{
    double scoring = scoring_bytes(run, step), seen = step->keys_read / run->Hkv;
    bool attends_by_list = run->gathers && seen < step->L;
    double lists = attends_by_list ? WORD * (step->keys_read - run->Hkv) : 0;
    double entries = step->rebuilds ? (step->selection_bytes - scoring - lists) / (2 * WORD) : 0;
    entries = entries > 0 ? entries : 0;
    if (scoring > 0) {
        if (run->scores_apart || seen < step->L)
            add_scores(run, step, parts);
        add_choice(run, step, entries, parts);
    }
    if (step->rebuilds)
        add_refresh(run, step, entries, parts);
}

/* --- rows --------------------------------------------------------------------------------------
 */

/* Each row that is written was read somewhere. Where self enters C_r nothing else moves, and the
 * backend does so even where the replay, which would have no C_f beside, counts self once. */
static void add_rows(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                     double *parts)
{
    double self = run->Hkv * row_bytes(run), written = step->kv_write_bytes;
    bool enters = run->cap > 0 && !step->has_window && !step->rebuilds;
    if (enters) {
        written -= step->refresh_bytes;
        if (run->gathers)
            parts[RA_TRAFFIC_ROWS] += self; /* read for nothing: insert_evict in refresh.cu */
        else if (written < 2 * self)
            written += self;
        parts[RA_TRAFFIC_COUNTS] += 9.0 * WORD * run->Hkv; /* ra_take_slot there */
    }
    parts[RA_TRAFFIC_ROWS] += 2 * written;
    parts[RA_TRAFFIC_COUNTS] += (run->paged ? 3.0 : 2.0) * WORD * run->Hkv; /* append.cu */
}

/* query.cu; a full step's query becomes the reference, in f64, in a launch of its own. */
static void add_comparison(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                           double *parts)
{
    double asked = (double)WORD * run->Hq * run->D + 8.0 * run->D;
    if (!run->compares || step->has_window)
        return;
    if (step->compared)
        parts[RA_TRAFFIC_QUERIES] += asked;
    if (step->is_full)
        parts[RA_TRAFFIC_QUERIES] += asked + 8.0 * run->D;
}

void ra_traffic_add(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                    double parts[RA_TRAFFIC_PARTS])
{
    double own[RA_TRAFFIC_PARTS] = {0};
    own[RA_TRAFFIC_KV] = step->kv_read_bytes - step->refresh_bytes;
    add_attention(run, step, own);
    add_rows(run, step, own);
    add_comparison(run, step, own);
    if (!step->has_window)
        add_selection(run, step, own);
    for (size_t i = 0; i < RA_TRAFFIC_PARTS; i++)
        parts[i] += run->copies * own[i];
    parts[RA_TRAFFIC_BETWEEN] += run->between_bytes;
}
