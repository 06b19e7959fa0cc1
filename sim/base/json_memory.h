/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson says NULL when memory was refused and when a text is no JSON, and a member that could
 * not be made is left out in silence. So its memory goes through here, and what was refused is
 * remembered: results that lack a member are never printed or stored as if they were whole.
 */
#ifndef RA_SIM_BASE_JSON_MEMORY_H
#define RA_SIM_BASE_JSON_MEMORY_H

#include <jansson.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From now on refusals are remembered; earlier ones are forgotten. Before any value is made. */
void ra_json_watch(void);

/* A member was left out because memory was refused elsewhere. */
void ra_json_lack(void);

/* Whether jansson was refused memory since, or a member was left out. */
bool ra_json_starved(void);

/* json_dumps, for free(); NULL when memory was refused now or before. */
char *ra_json_dump(const json_t *value, size_t flags);

#ifdef __cplusplus
}
#endif

#endif
