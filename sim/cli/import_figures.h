/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of a result that another decoder left: those of eval, as far as they are known. */
#ifndef RA_SIM_CLI_IMPORT_FIGURES_H
#define RA_SIM_CLI_IMPORT_FIGURES_H

#include <stdint.h>

#include <jansson.h>

#include "sim/base/error.h"

/*
 * The object of one result of `top`, all checked by ra_import_read; `full` is that of full
 * attention, NULL without. The caller owns *object. Errors: RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_import_figures(const json_t *top, const json_t *result,
                                               const json_t *full, const char *policy,
                                               uint64_t seed, json_t **object,
                                               struct ra_error *err);

#endif
