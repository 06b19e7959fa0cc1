/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spellings of policies: "NAME:key=value,key@layers=value", checked against the policy's parameter
 * table, and the one canonical spelling of what they mean. What comes after '+' is parsed by
 * sim/transform.c. Knows no policy by name.
 */
#include "sim/policy_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"
#include "sim/policy_override.h"

enum { MAX_OVERRIDES = 512 };

struct ra_policy_spec {
    const struct ra_policy_ops *ops;
    void *params;
    struct ra_override
        overrides[MAX_OVERRIDES]; /* by table row, of all heads first, then by layer */
    int n_overrides;
    unsigned needs;
    enum ra_caches caches;
    bool is_examined;
    struct ra_transform_chain *transform; /* NULL: none */
    char canonical[RA_SPELLING_MAX + 1];
};

static const struct ra_policy_ops *find_policy(struct ra_span name, struct ra_error *err)
{
    enum { MOST = 64 };
    const char *known[MOST];
    char hint[RA_HINT_MAX];
    size_t n = 0;
    for (; ra_policies[n]; n++) {
        if (ra_span_is(name, ra_policies[n]->name))
            return ra_policies[n];
        RA_BUG_ON(n >= MOST);
        known[n] = ra_policies[n]->name;
    }
    ra_fail(err, RA_EUSAGE, "no policy named '%.*s'; %s", RA_SPAN(name),
            ra_text_hint(name, known, n, sizeof *known, hint));
    return NULL;
}

static enum ra_status add_override(struct ra_policy_spec *spec, struct ra_override entry,
                                   const char *value, const char *where, struct ra_error *err)
{
    int i = spec->n_overrides;
    if (i == MAX_OVERRIDES)
        return ra_fail(err, RA_EUSAGE, "%s more than %d values for single layers", where,
                       MAX_OVERRIDES);
    entry.params = calloc(1, spec->ops->params_size);
    if (!entry.params)
        return ra_fail(err, RA_ENOMEM, "%s no memory", where);
    for (; i > 0; i--) {
        if (ra_override_goes_before(&spec->overrides[i - 1], &entry))
            break;
        spec->overrides[i] = spec->overrides[i - 1];
    }
    spec->overrides[i] = entry;
    spec->n_overrides++;
    return ra_param_set(entry.param, value, entry.params, where, err);
}

/* One "key=value" or "key@layers=value". `given` has a bit per table row. */
static enum ra_status parse_pair(struct ra_policy_spec *spec, struct ra_span pair, uint64_t *given,
                                 struct ra_error *err)
{
    const struct ra_policy_ops *ops = spec->ops;
    struct ra_span rest = pair, range, key;
    if (!ra_span_cut(&rest, '=', &range))
        return ra_fail(err, RA_EUSAGE, "%s: expected key=value, got '%.*s'", ops->name,
                       RA_SPAN(pair));
    bool for_layers = ra_span_cut(&range, '@', &key);
    struct ra_override entry = {0};
    RA_TRY(ra_params_look_up(ops->params, ops->name, key, &entry.param, err));
    char where[64], value[RA_SPELLING_MAX + 1];
    snprintf(where, sizeof where, "%s:", ops->name);
    snprintf(value, sizeof value, "%.*s", (int)rest.n, rest.at);
    if (for_layers) {
        RA_TRY(ra_override_parse(&entry, ops->name, range, err));
        return add_override(spec, entry, value, where, err);
    }
    uint64_t bit = UINT64_C(1) << (entry.param - ops->params);
    if (*given & bit)
        return ra_fail(err, RA_EUSAGE, "%s: %s: expected once, got it again as '%s'", ops->name,
                       entry.param->name, value);
    *given |= bit;
    return ra_param_set(entry.param, value, spec->params, where, err);
}

static enum ra_status parse_pairs(struct ra_policy_spec *spec, struct ra_span pairs,
                                  struct ra_error *err)
{
    uint64_t given = 0;
    struct ra_span pair;
    bool more = pairs.at != NULL;
    while (more) {
        more = ra_span_cut(&pairs, ',', &pair);
        RA_TRY(parse_pair(spec, pair, &given, err));
    }
    const struct ra_param *table = spec->ops->params;
    for (int i = 0; table && table[i].name; i++)
        if (!table[i].fallback && !(given >> i & 1))
            return ra_fail(err, RA_EUSAGE, "%s: %s must be given: %s", spec->ops->name,
                           table[i].name, table[i].help);
    return RA_OK;
}

static void remove_override(struct ra_policy_spec *spec, int i)
{
    free(spec->overrides[i].params);
    spec->n_overrides--;
    memmove(&spec->overrides[i], &spec->overrides[i + 1],
            (size_t)(spec->n_overrides - i) * sizeof spec->overrides[0]);
}

/* Does it say of some heads or layers what holds without it? */
static bool is_idle(const struct ra_policy_spec *spec, const struct ra_override *entry)
{
    for (int i = 0; i < spec->n_overrides; i++) {
        const struct ra_override *other = &spec->overrides[i];
        if (other->param == entry->param && other->head == RA_ALL_HEADS &&
            entry->head != RA_ALL_HEADS && other->first <= entry->last &&
            entry->first <= other->last)
            return false;
    }
    return ra_override_same_value(entry->param, entry->params, spec->params);
}

/* Spellings of one meaning become one: values that repeat the base go, neighbours with equal values
 * are joined, heads before layers. */
static enum ra_status normalise(struct ra_policy_spec *spec, struct ra_error *err)
{
    for (int i = 0; i < spec->n_overrides; i++)
        for (int j = 0; j < i; j++) {
            const struct ra_override *a = &spec->overrides[j], *b = &spec->overrides[i];
            if (ra_override_overlaps(a, b))
                return ra_fail(err, RA_EUSAGE, "%s: %s: layer %d is given two values",
                               spec->ops->name, a->param->name,
                               a->first > b->first ? a->first : b->first);
        }
    for (int i = spec->n_overrides - 1; i >= 0; i--)
        if (is_idle(spec, &spec->overrides[i]))
            remove_override(spec, i);
    for (int i = 0; i < spec->n_overrides; i++)
        for (int j = i + 1; j < spec->n_overrides; j++) {
            struct ra_override *a = &spec->overrides[i], *b = &spec->overrides[j];
            if (!ra_override_continues(a, b))
                continue;
            a->last = b->last;
            a->last_head = b->last_head;
            remove_override(spec, j);
            j = i; /* what follows may go on from there */
        }
    return RA_OK;
}

static void write_value(const struct ra_policy_spec *spec, const struct ra_param *param,
                        const void *params, const char *layers, struct ra_writer *out)
{
    char value[RA_SPELLING_MAX + 1];
    ra_param_format(param, params, value, sizeof value);
    ra_write(out, "%c%s%s=%s", param == spec->ops->params && !*layers ? ':' : ',', param->name,
             layers, value);
}

static enum ra_status write_canonical(struct ra_policy_spec *spec, struct ra_error *err)
{
    struct ra_writer out = {spec->canonical, sizeof spec->canonical, 0};
    ra_write(&out, "%s", spec->ops->name);
    int next = 0;
    for (const struct ra_param *row = spec->ops->params; row && row->name; row++) {
        write_value(spec, row, spec->params, "", &out);
        for (; next < spec->n_overrides && spec->overrides[next].param == row; next++) {
            char layers[64];
            ra_override_write(&spec->overrides[next], layers, sizeof layers);
            write_value(spec, row, spec->overrides[next].params, layers, &out);
        }
    }
    if (spec->transform)
        ra_write(&out, "+%s", ra_transform_canonical(spec->transform));
    if (out.used >= out.size)
        return ra_fail(err, RA_EUSAGE,
                       "%s: expected at most %d characters with all parameters, got %zu",
                       spec->ops->name, RA_SPELLING_MAX, out.used);
    return RA_OK;
}

/* Parameters of a KV head of a layer, or with RA_ALL_HEADS those that its heads share. */
static void resolve(const struct ra_policy_spec *spec, int layer_id, int head, void *out)
{
    memcpy(out, spec->params, spec->ops->params_size);
    for (int i = 0; i < spec->n_overrides; i++) {
        const struct ra_override *entry = &spec->overrides[i];
        bool is_meant =
            entry->head == RA_ALL_HEADS || (entry->head <= head && head <= entry->last_head);
        if (is_meant && entry->first <= layer_id && layer_id <= entry->last)
            ra_param_copy(entry->param, entry->params, out);
    }
}

/* Check one layer's parameters, gather what they need. */
static enum ra_status examine(struct ra_policy_spec *spec, int layer_id, int head, void *params,
                              struct ra_error *err)
{
    const struct ra_policy_ops *ops = spec->ops;
    bool is_first = !spec->is_examined;
    resolve(spec, layer_id, head, params);
    enum ra_status st = ops->check ? ops->check(params, err) : RA_OK;
    if (st != RA_OK)
        return spec->n_overrides ? ra_fail_context(err, st, "layer %d", layer_id) : st;
    spec->needs |= ops->needs ? ops->needs(params) : 0;
    enum ra_caches caches = ops->caches(params);
    if (!is_first && caches != spec->caches)
        return ra_fail(err, RA_EUSAGE, "%s: layer %d would keep other caches than layer 0",
                       ops->name, layer_id);
    spec->caches = caches;
    spec->is_examined = true;
    return RA_OK;
}

/* Parameters change only where a range begins or ends. */
static enum ra_status examine_all(struct ra_policy_spec *spec, struct ra_error *err)
{
    void *params = calloc(1, spec->ops->params_size + 1);
    if (!params)
        return ra_fail(err, RA_ENOMEM, "%s: no memory", spec->ops->name);
    enum ra_status st = examine(spec, 0, RA_ALL_HEADS, params, err);
    for (int i = 0; st == RA_OK && i < spec->n_overrides; i++) {
        const struct ra_override *entry = &spec->overrides[i];
        st = examine(spec, entry->first, entry->head, params, err);
        if (st == RA_OK)
            st = examine(spec, entry->last + 1, RA_ALL_HEADS, params, err);
    }
    free(params);
    return st;
}

static enum ra_status parse(struct ra_policy_spec *spec, const char *text, struct ra_error *err)
{
    struct ra_span rest = ra_span_of(text), policy, name;
    if (rest.n > RA_SPELLING_MAX)
        return ra_fail(err, RA_EUSAGE, "policy: expected at most %d characters, got %zu",
                       RA_SPELLING_MAX, rest.n);
    bool is_transformed = ra_span_cut(&rest, '+', &policy);
    bool has_pairs = ra_span_cut(&policy, ':', &name);
    spec->ops = find_policy(name, err);
    if (!spec->ops)
        return RA_EUSAGE;
    if (is_transformed)
        RA_TRY(ra_transform_parse(&spec->transform, rest, err));
    spec->params = calloc(1, spec->ops->params_size + 1);
    if (!spec->params)
        return ra_fail(err, RA_ENOMEM, "%s: no memory", spec->ops->name);
    ra_params_defaults(spec->ops->params, spec->params);
    RA_TRY(parse_pairs(spec, has_pairs ? policy : (struct ra_span){NULL, 0}, err));
    RA_TRY(normalise(spec, err));
    RA_TRY(examine_all(spec, err));
    return write_canonical(spec, err);
}

enum ra_status ra_policy_parse(struct ra_policy_spec **spec, const char *text, struct ra_error *err)
{
    *spec = calloc(1, sizeof **spec);
    if (!*spec)
        return ra_fail(err, RA_ENOMEM, "policy: no memory");
    enum ra_status st = parse(*spec, text, err);
    if (st != RA_OK) {
        ra_policy_spec_close(*spec);
        *spec = NULL;
    }
    return st;
}

void ra_policy_spec_close(struct ra_policy_spec *spec)
{
    if (!spec)
        return;
    for (int i = 0; i < spec->n_overrides; i++)
        free(spec->overrides[i].params);
    free(spec->params);
    ra_transform_close(spec->transform);
    free(spec);
}

enum ra_status ra_policy_spec_fits(const struct ra_policy_spec *spec, const struct ra_model *model,
                                   struct ra_error *err)
{
    for (int i = 0; i < spec->n_overrides; i++) {
        const struct ra_override *entry = &spec->overrides[i];
        char layers[64];
        ra_override_write(entry, layers, sizeof layers);
        if (entry->last_head >= model->Hkv)
            return ra_fail(err, RA_EUSAGE, "%s: %s%s: expected KV heads 0 to %d, the model's",
                           spec->ops->name, entry->param->name, layers, model->Hkv - 1);
        if (entry->last < model->n_layers)
            continue;
        return ra_fail(err, RA_EUSAGE, "%s: %s%s: expected layers 0 to %d, the model's",
                       spec->ops->name, entry->param->name, layers, model->n_layers - 1);
    }
    return RA_OK;
}

void ra_policy_spec_resolve(const struct ra_policy_spec *spec, int layer_id, void *out)
{
    resolve(spec, layer_id, RA_ALL_HEADS, out);
}

bool ra_policy_spec_has_heads(const struct ra_policy_spec *spec)
{
    for (int i = 0; i < spec->n_overrides; i++)
        if (spec->overrides[i].head != RA_ALL_HEADS)
            return true;
    return false;
}

const struct ra_policy_ops *ra_policy_spec_ops(const struct ra_policy_spec *spec)
{
    return spec->ops;
}

const char *ra_policy_spec_canonical(const struct ra_policy_spec *spec)
{
    return spec->canonical;
}

const struct ra_transform_chain *ra_policy_spec_transform(const struct ra_policy_spec *spec)
{
    return spec->transform;
}

unsigned ra_policy_spec_needs(const struct ra_policy_spec *spec)
{
    return spec->needs;
}

enum ra_caches ra_policy_spec_caches(const struct ra_policy_spec *spec)
{
    return spec->caches;
}

static int32_t resolve_k(const struct ra_param *k, const void *params, int32_t P)
{
    struct ra_fraction fraction;
    memcpy(&fraction, (const char *)params + k->offset, sizeof fraction);
    return ra_fraction_resolve(fraction, P);
}

int32_t ra_policy_spec_k(const struct ra_policy_spec *spec, int32_t P)
{
    const struct ra_param *k = ra_params_find(spec->ops->params, "k");
    return k && k->type == RA_PARAM_FRACTION ? resolve_k(k, spec->params, P) : -1;
}

int32_t ra_policy_spec_k_max(const struct ra_policy_spec *spec, int32_t P)
{
    const struct ra_param *k = ra_params_find(spec->ops->params, "k");
    int32_t most = ra_policy_spec_k(spec, P);
    for (int i = 0; most >= 0 && i < spec->n_overrides; i++) {
        if (spec->overrides[i].param != k)
            continue;
        int32_t own = resolve_k(k, spec->overrides[i].params, P);
        most = own > most ? own : most;
    }
    return most;
}

int32_t ra_policy_spec_most(const struct ra_policy_spec *spec, int32_t P, int32_t N)
{
    const struct ra_policy_ops *ops = spec->ops;
    if (!ops->most)
        return ra_policy_spec_k_max(spec, P);
    int32_t most = ops->most(spec->params, P, N);
    void *params = calloc(1, ops->params_size + 1);
    if (!params)
        return -1;
    for (int i = 0; i < spec->n_overrides; i++) {
        resolve(spec, spec->overrides[i].first, spec->overrides[i].head, params);
        int32_t own = ops->most(params, P, N);
        most = own > most ? own : most;
    }
    free(params);
    return most;
}

bool ra_policy_spec_pages(const struct ra_policy_spec *spec, int layer_id, int32_t P,
                          struct ra_page_rule *rule)
{
    const struct ra_policy_ops *ops = spec->ops;
    void *params = ops->pages ? calloc(1, ops->params_size + 1) : NULL;
    if (!params)
        return false;
    struct ra_page_rule own = {0};
    ra_policy_spec_resolve(spec, layer_id, params);
    ops->pages(params, P, &own);
    free(params);
    for (int i = 0; i < spec->n_overrides; i++) {
        const struct ra_override *entry = &spec->overrides[i];
        bool is_k = entry->head != RA_ALL_HEADS && strcmp(entry->param->name, "k") == 0;
        if (!is_k || layer_id < entry->first || layer_id > entry->last)
            continue;
        int32_t k = resolve_k(entry->param, entry->params, P);
        own.K = k > own.K ? k : own.K;
    }
    if (own.page > 0)
        *rule = own;
    return own.page > 0;
}

int32_t ra_policy_spec_head_k(const struct ra_policy_spec *spec, int layer_id, int head, int32_t P)
{
    const struct ra_param *k = ra_params_find(spec->ops->params, "k");
    void *params = k ? calloc(1, spec->ops->params_size + 1) : NULL;
    if (!params)
        return -1;
    resolve(spec, layer_id, head, params);
    int32_t own = resolve_k(k, params, P);
    free(params);
    return own;
}
