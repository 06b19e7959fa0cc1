/* SPDX-License-Identifier: Apache-2.0 */
/* The list of transformations, their spellings, and chains of them. */
#include "sim/transform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RA_TRANSFORM(id) extern const struct ra_transform_ops ra_transform_##id;
#include "sim/transform/transforms.def"
#undef RA_TRANSFORM

#define RA_TRANSFORM(id) &ra_transform_##id,
const struct ra_transform_ops *const ra_transforms[] = {
#include "sim/transform/transforms.def"
    NULL};
#undef RA_TRANSFORM

enum { N_TRANSFORMS = sizeof ra_transforms / sizeof *ra_transforms - 1 };
enum { MAX_SPELLING = 512, MAX_VALUE = 64 };

struct link {
    const struct ra_transform_ops *ops;
    void *params;
};

struct ra_transform_chain {
    struct link links[RA_TRANSFORMS_MAX];
    int n;
    char canonical[MAX_SPELLING];
};

static const struct ra_transform_ops *find(struct ra_span name, struct ra_error *err)
{
    const char *known[N_TRANSFORMS];
    char hint[RA_HINT_MAX];
    for (size_t i = 0; i < N_TRANSFORMS; i++) {
        if (ra_span_is(name, ra_transforms[i]->name))
            return ra_transforms[i];
        known[i] = ra_transforms[i]->name;
    }
    ra_fail(err, RA_EUSAGE, "no transformation named '%.*s', which comes after '+'; %s",
            RA_SPAN(name), ra_text_hint(name, known, N_TRANSFORMS, sizeof *known, hint));
    return NULL;
}

static enum ra_status parse_pair(struct link *link, struct ra_span pair, uint64_t *given,
                                 struct ra_error *err)
{
    const struct ra_transform_ops *ops = link->ops;
    const struct ra_param *param = NULL;
    struct ra_span value = pair, key;
    char where[64], text[MAX_VALUE + 1];
    if (!ra_span_cut(&value, '=', &key))
        return ra_fail(err, RA_EUSAGE, "%s: expected key=value, got '%.*s'", ops->name,
                       RA_SPAN(pair));
    if (memchr(key.at, '@', key.n))
        return ra_fail(err, RA_EUSAGE, "%s: is the same in all layers, got '%.*s'", ops->name,
                       RA_SPAN(key));
    RA_TRY(ra_params_look_up(ops->params, ops->name, key, &param, err));
    if (value.n > MAX_VALUE)
        return ra_fail(err, RA_EUSAGE, "%s: %s: expected at most %d characters, got %zu", ops->name,
                       param->name, MAX_VALUE, value.n);
    snprintf(where, sizeof where, "%s:", ops->name);
    snprintf(text, sizeof text, "%.*s", (int)value.n, value.at);
    uint64_t bit = UINT64_C(1) << (param - ops->params);
    if (*given & bit)
        return ra_fail(err, RA_EUSAGE, "%s: %s: expected once, got it again as '%s'", ops->name,
                       param->name, text);
    *given |= bit;
    return ra_param_set(param, text, link->params, where, err);
}

static enum ra_status parse_link(struct link *link, struct ra_span text, struct ra_error *err)
{
    struct ra_span name, pair;
    uint64_t given = 0;
    bool more = ra_span_cut(&text, ':', &name);
    link->ops = find(name, err);
    if (!link->ops)
        return RA_EUSAGE;
    link->params = calloc(1, link->ops->params_size + 1);
    if (!link->params)
        return ra_fail(err, RA_ENOMEM, "%s: no memory", link->ops->name);
    ra_params_defaults(link->ops->params, link->params);
    while (more) {
        more = ra_span_cut(&text, ',', &pair);
        RA_TRY(parse_pair(link, pair, &given, err));
    }
    return RA_OK;
}

static void write_link(const struct link *link, struct ra_writer *out)
{
    ra_write(out, "%s%s", out->used ? "+" : "", link->ops->name);
    for (const struct ra_param *row = link->ops->params; row && row->name; row++) {
        char value[MAX_VALUE + 1];
        ra_param_format(row, link->params, value, sizeof value);
        ra_write(out, "%c%s=%s", row == link->ops->params ? ':' : ',', row->name, value);
    }
}

static enum ra_status parse(struct ra_transform_chain *chain, struct ra_span text,
                            struct ra_error *err)
{
    struct ra_span part;
    struct ra_writer out = {chain->canonical, sizeof chain->canonical, 0};
    bool more = true;
    while (more) {
        more = ra_span_cut(&text, '+', &part);
        if (chain->n == RA_TRANSFORMS_MAX)
            return ra_fail(err, RA_EUSAGE, "expected at most %d transformations, got '%.*s' more",
                           RA_TRANSFORMS_MAX, RA_SPAN(part));
        struct link *link = &chain->links[chain->n++];
        RA_TRY(parse_link(link, part, err));
        write_link(link, &out);
    }
    RA_BUG_ON(out.used >= out.size);
    return RA_OK;
}

enum ra_status ra_transform_parse(struct ra_transform_chain **chain, struct ra_span text,
                                  struct ra_error *err)
{
    *chain = calloc(1, sizeof **chain);
    if (!*chain)
        return ra_fail(err, RA_ENOMEM, "transformation: no memory");
    enum ra_status st = parse(*chain, text, err);
    if (st != RA_OK) {
        ra_transform_close(*chain);
        *chain = NULL;
    }
    return st;
}

void ra_transform_close(struct ra_transform_chain *chain)
{
    if (!chain)
        return;
    for (int i = 0; i < chain->n; i++)
        free(chain->links[i].params);
    free(chain);
}

const char *ra_transform_canonical(const struct ra_transform_chain *chain)
{
    return chain->canonical;
}

enum ra_status ra_transform_fits(const struct ra_transform_chain *chain,
                                 const struct ra_model *model, struct ra_error *err)
{
    for (int i = 0; i < chain->n; i++)
        if (chain->links[i].ops->unrotates && model->rope.type == RA_ROPE_UNKNOWN)
            return ra_fail(err, RA_EUSAGE,
                           "%s: expected a trace that says how keys were rotated (rope.*), got "
                           "none",
                           chain->links[i].ops->name);
    return RA_OK;
}

enum ra_status ra_transform_apply(const struct ra_transform_chain *chain,
                                  const struct ra_transform_rows *rows,
                                  struct ra_transform_bits *bits, struct ra_error *err)
{
    RA_BUG_ON(rows->P < 1 || rows->n < rows->P);
    for (int i = 0; i < chain->n; i++) {
        const struct link *link = &chain->links[i];
        RA_TRY(link->ops->apply(link->params, rows, bits, err));
    }
    return RA_OK;
}

double ra_transform_stored(enum ra_dtype dtype, double value)
{
    float narrow = (float)value, back;
    char stored[sizeof(float)];
    ra_narrow(dtype, &narrow, 1, stored);
    ra_widen(dtype, stored, 1, &back);
    return (double)back;
}
