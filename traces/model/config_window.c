/* SPDX-License-Identifier: Apache-2.0 */
/* The rule first, then what layer_types says against it. */
#include "traces/model/config_window.h"

#include <stdio.h>
#include <string.h>

enum { WINDOW = 4096, PATTERN = 6 }; /* of gemma3, where none is stated */

static enum ra_status read_window(const struct ra_lm_keys *keys, enum ra_lm_window_rule rule,
                                  int32_t *window, struct ra_error *err)
{
    const char *key = "sliding_window";
    bool used = false;
    RA_TRY(ra_lm_keys_bool(keys, "use_sliding_window", &used, err));
    *window = 0;
    if (rule == RA_LM_WINDOW_LAST && !used)
        return RA_OK;
    if (rule == RA_LM_WINDOW_NONE && ra_lm_keys_get(keys, key))
        return ra_lm_keys_fail(keys, RA_EUSAGE, key, "null", err);
    /* Hugging Face reads an absent key of mistral as 4096, most others as none. */
    if (rule == RA_LM_WINDOW_ALL && !json_object_get(keys->object, key))
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, "null or a number of tokens", err);
    if (rule == RA_LM_WINDOW_PATTERN && !json_object_get(keys->object, key))
        *window = WINDOW;
    return ra_lm_keys_int(keys, key, false, 1, INT32_MAX, window, err);
}

static enum ra_status apply_rule(const struct ra_lm_keys *keys, enum ra_lm_window_rule rule,
                                 int n_layers, bool *slides, struct ra_error *err)
{
    int32_t pattern = PATTERN, first = 0;
    const char *key = ra_lm_keys_get(keys, "_sliding_window_pattern") ? "_sliding_window_pattern"
                                                                      : "sliding_window_pattern";
    if (rule == RA_LM_WINDOW_PATTERN)
        RA_TRY(ra_lm_keys_int(keys, key, false, 1, INT32_MAX, &pattern, err));
    if (rule == RA_LM_WINDOW_LAST)
        RA_TRY(ra_lm_keys_int(keys, "max_window_layers", !ra_lm_keys_get(keys, "layer_types"), 0,
                              INT32_MAX, &first, err));
    for (int layer = 0; layer < n_layers; layer++)
        slides[layer] = rule == RA_LM_WINDOW_PATTERN ? (layer + 1) % pattern != 0 : layer >= first;
    return RA_OK;
}

/* "sliding_attention" or "full_attention" of one layer. */
static enum ra_status read_layer_type(const struct ra_lm_keys *keys, const json_t *types, int layer,
                                      bool *slides, struct ra_error *err)
{
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    *slides = type && strcmp(type, "sliding_attention") == 0;
    if (*slides || (type && strcmp(type, "full_attention") == 0))
        return RA_OK;
    return ra_fail(err, type ? RA_EUSAGE : RA_EFORMAT,
                   "%s: %slayer_types: layer %d: expected full_attention or sliding_attention, got "
                   "'%.60s'",
                   keys->path, keys->inside, layer, type ? type : "no string");
}

static enum ra_status read_layer_types(const struct ra_lm_keys *keys, enum ra_lm_window_rule rule,
                                       int n_layers, bool *slides, struct ra_error *err)
{
    const char *key = "layer_types";
    const json_t *types = ra_lm_keys_get(keys, key);
    if (!types)
        return RA_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)n_layers) {
        char expected[64];
        snprintf(expected, sizeof expected, "an array of %d layers", n_layers);
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, expected, err);
    }
    bool is_free = rule == RA_LM_WINDOW_LAST || rule == RA_LM_WINDOW_PATTERN;
    for (int layer = 0; layer < n_layers; layer++) {
        bool stated;
        RA_TRY(read_layer_type(keys, types, layer, &stated, err));
        if (!is_free && stated != slides[layer])
            return ra_fail(err, RA_EUSAGE, "%s: %s%s: layer %d: expected %s_attention, got %s",
                           keys->path, keys->inside, key, layer, slides[layer] ? "sliding" : "full",
                           json_string_value(json_array_get(types, (size_t)layer)));
        slides[layer] = stated;
    }
    return RA_OK;
}

enum ra_status ra_lm_config_window(const struct ra_lm_keys *keys, enum ra_lm_window_rule rule,
                                   int n_layers, bool *slides, int32_t *window,
                                   struct ra_error *err)
{
    RA_TRY(read_window(keys, rule, window, err));
    memset(slides, 0, (size_t)n_layers * sizeof *slides);
    if (*window > 0)
        RA_TRY(apply_rule(keys, rule, n_layers, slides, err));
    RA_TRY(read_layer_types(keys, rule, n_layers, slides, err));
    bool any = false;
    for (int layer = 0; layer < n_layers; layer++)
        any = any || slides[layer];
    if (any && *window == 0)
        return ra_lm_keys_fail(keys, RA_EFORMAT, "sliding_window",
                               "a number of tokens, since layer_types names layers that slide",
                               err);
    *window = any ? *window : 0;
    return RA_OK;
}
