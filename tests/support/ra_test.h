/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with the four headers it wants first, and checks of a status that show its message. */
#ifndef RA_TESTS_SUPPORT_RA_TEST_H
#define RA_TESTS_SUPPORT_RA_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/base/error.h"

/* 1 where an emulator runs the tests, slowly: fewer repetitions of the same checks. */
#ifndef RA_EMULATED
#define RA_EMULATED 0
#endif
#define RA_ROUNDS(n) (RA_EMULATED ? (n) / 4 : (n))

/* The call returns RA_OK; otherwise its message is shown. Needs a `struct ra_error err`. */
#define ra_assert_ok(call)                                                                         \
    do {                                                                                           \
        enum ra_status ra_status_ = (call);                                                        \
        if (ra_status_ != RA_OK)                                                                   \
            fail_msg("%s: %s: %s", #call, ra_status_name(ra_status_), err.msg);                    \
    } while (0)

/* The call fails with `status` and a message that contains `text`. */
#define ra_assert_fails(call, status, text)                                                        \
    do {                                                                                           \
        err.msg[0] = '\0';                                                                         \
        enum ra_status ra_status_ = (call);                                                        \
        if (ra_status_ != (status) || !strstr(err.msg, (text)))                                    \
            fail_msg("%s: %s: '%s', expected %s with '%s'", #call, ra_status_name(ra_status_),     \
                     err.msg, #status, (text));                                                    \
    } while (0)

#endif
