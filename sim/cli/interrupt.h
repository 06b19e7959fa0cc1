/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGINT and SIGTERM as a question that work asks at its own boundaries. The first signal sets the
 * flag; a second one finds the default action and ends the process.
 */
#ifndef RA_SIM_CLI_INTERRUPT_H
#define RA_SIM_CLI_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* Set by the handler, 0 before. To be polled, also through a pointer by code below sim/cli. */
extern volatile sig_atomic_t ra_interrupt_flag;

/* Install the handlers. A signal that was ignored when the process began stays ignored. */
void ra_interrupt_install(void);

bool ra_interrupt_requested(void);

#endif
