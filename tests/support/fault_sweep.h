/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole operations under every fault of a kind: each call worth failing fails once. Every outcome
 * is either an error that names the place and the cause, or success with the result of a run
 * without faults; nothing is leaked, and what the case wants kept is kept.
 */
#ifndef RA_TESTS_SUPPORT_FAULT_SWEEP_H
#define RA_TESTS_SUPPORT_FAULT_SWEEP_H

#include "tests/support/fault.h"

enum { FAULT_SAID = 4096 };

/* What one run of an operation came to. */
struct fault_outcome {
    int code;              /* 0: success; a status, or the exit code of the command line */
    char said[FAULT_SAID]; /* the message */
    char *result;          /* what must be the same whenever it succeeds; malloc'd, may be NULL */
    size_t n;
};

struct fault_case {
    const char *name;
    void *context;
    void (*prepare)(void *context);                            /* before each run; may be NULL */
    void (*run)(void *context, struct fault_outcome *outcome); /* arms by fault_go */
    void (*check)(void *context, const struct fault_outcome *outcome); /* after; may be NULL */
    const char *const *places; /* one of them is in each message; NULL at the end; NULL: any */
};

/* What came of a sweep. */
struct fault_tally {
    long n_calls, n_faults;
    long n_failed;    /* said so */
    long n_tolerated; /* succeeded with the right result all the same */
};

/* Called by `run` around the product's part; what the armed fault is, the sweep knows. */
void fault_go(void);
void fault_halt(void);

/* Runs the case once without faults, then once for each pick. Fails the test where a rule is
 * broken. */
struct fault_tally fault_sweep(const struct fault_case *c, enum fault_op op, int error);
/* The same, and from the fault on every call of the kind fails: a disk that stays full. */
struct fault_tally fault_sweep_lasting(const struct fault_case *c, enum fault_op op, int error);

/*
 * The program itself, in this process: argv after the program's name, up to NULL. Streams are
 * captured; `outcome` gets the exit code, stderr, and stdout as the result.
 */
void fault_cli(const char *const *words, struct fault_outcome *outcome);
/* Outside a sweep, under a fault of its own. */
void fault_cli_with(const char *const *words, const struct fault *fault,
                    struct fault_outcome *outcome);

/* The test program's own entry: `main` is the product's, which the linker calls by this name. */
#define FAULT_MAIN                                                                                 \
    int __wrap_main(void);                                                                         \
    int __wrap_main(void)

#endif
