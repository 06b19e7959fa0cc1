/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failure as a value: a status code returned by every function that can fail, and a message in a
 * struct the caller owns. Misuse of an interface is not a failure but a bug, and aborts.
 */
#ifndef RA_SIM_BASE_ERROR_H
#define RA_SIM_BASE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* RA_OK and RA_END are results; everything from 16 up is a failure. */
enum ra_status {
    RA_OK = 0,
    RA_END = 1,           /* a sequence is over; not a failure */
    RA_EUSAGE = 16,       /* the user asked for something that does not exist or does not fit */
    RA_EIO = 17,          /* the system refused to open, read or write */
    RA_EFORMAT = 18,      /* bytes are not what the format promises */
    RA_ERANGE = 19,       /* a number is outside what is possible here */
    RA_ENOMEM = 20,       /* memory was refused, or a stated budget would be exceeded */
    RA_ENODEV = 21,       /* a device or an optional part is missing */
    RA_EDEVICE = 22,      /* a device failed while working */
    RA_ESTORE = 23,       /* SQLite refused */
    RA_EDIVERGED = 24,    /* two results that must agree differ */
    RA_EINTERRUPTED = 25, /* stopped on request; what is complete is kept */
    RA_EPERM = 26         /* the system does not let this user do it */
};

/* Caller's storage, usually on the stack. `msg` is lower case, place first, no full stop. */
struct ra_error {
    enum ra_status code;
    char msg[512];
};

#define RA_MUST_CHECK __attribute__((warn_unused_result))

/*
 * Write code and message into `err` (which may be NULL) and return `code`, so that a failing
 * function ends with `return ra_fail(err, RA_EFORMAT, "%s: ...", path)`. A message that does not
 * fit is cut and ends in "...". Control bytes in the message become '?', so that a hostile name
 * cannot drive a terminal.
 */
enum ra_status ra_fail(struct ra_error *err, enum ra_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "CONTEXT: " before the message already in `err`; returns err's code. `err` may be NULL. */
enum ra_status ra_fail_context(struct ra_error *err, enum ra_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* The analyser sees no bodies of other files; this tells it that a failure is what was failed with.
 */
void ra_analysed(struct ra_error *err, const char *format, ...);
#define ra_fail(err, code, ...) (ra_analysed(err, __VA_ARGS__), (code))
#define ra_fail_context(err, code, ...) (ra_analysed(err, __VA_ARGS__), (code))
#endif

/* Short name of a code, "RA_EIO" etc., for tests and bug reports. */
const char *ra_status_name(enum ra_status status);

/* Report file and line on stderr and abort. Used through RA_BUG_ON only. */
void ra_bug(const char *file, int line, const char *condition) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

/* Return early when nothing is held. */
#define RA_TRY(call)                                                                               \
    do {                                                                                           \
        enum ra_status ra_try_status_ = (call);                                                    \
        if (ra_try_status_ != RA_OK)                                                               \
            return ra_try_status_;                                                                 \
    } while (0)

/* The caller broke the contract of an interface. */
#define RA_BUG_ON(condition)                                                                       \
    do {                                                                                           \
        if (condition)                                                                             \
            ra_bug(__FILE__, __LINE__, #condition);                                                \
    } while (0)

#endif
