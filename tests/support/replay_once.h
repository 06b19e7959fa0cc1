/* SPDX-License-Identifier: Apache-2.0 */
/* A replay of one schedule over a trace, of whatever backend and ways `config` names. */
#ifndef RA_TESTS_SUPPORT_REPLAY_ONCE_H
#define RA_TESTS_SUPPORT_REPLAY_ONCE_H

#include "sim/engine.h"

/* Opens and closes the trace and the schedule; config's are not looked at. */
enum ra_status replay_once(struct ra_replay_config config, const char *trace, const char *policy,
                           struct ra_replay_result *result, struct ra_error *err);

/* Fails the test unless the replay stops with RA_EDIVERGED and these words. */
void replay_diverges(struct ra_replay_config config, const char *trace, const char *policy,
                     const char *text);

#endif
