/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/replay_once.h"

#include <string.h>

#include "tests/support/ra_test.h"

enum ra_status replay_once(struct ra_replay_config config, const char *trace, const char *policy,
                           struct ra_replay_result *result, struct ra_error *err)
{
    struct ra_trace *opened;
    struct ra_policy_spec *spec;
    assert_int_equal(ra_trace_open(&opened, trace, err), RA_OK);
    assert_int_equal(ra_policy_parse(&spec, policy, err), RA_OK);
    config.trace = opened;
    config.specs = &spec;
    enum ra_status st = ra_replay(&config, result, err);
    ra_policy_spec_close(spec);
    ra_trace_close(opened);
    return st;
}

void replay_diverges(struct ra_replay_config config, const char *trace, const char *policy,
                     const char *text)
{
    struct ra_replay_result result;
    struct ra_error err;
    if (replay_once(config, trace, policy, &result, &err) != RA_EDIVERGED)
        fail_msg("%s: nothing is found of '%s'", policy, text);
    if (!strstr(err.msg, text))
        fail_msg("expected '%s' in: %s", text, err.msg);
}
