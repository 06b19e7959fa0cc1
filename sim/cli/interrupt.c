/* SPDX-License-Identifier: Apache-2.0 */
/* The handler and its flag. It does nothing but set the flag: everything else is unsafe there. */
#include "sim/cli/interrupt.h"

#include <stddef.h>

volatile sig_atomic_t ra_interrupt_flag;

static void on_signal(int signal_number)
{
    (void)signal_number;
    ra_interrupt_flag = 1;
}

static void install(int signal_number)
{
    struct sigaction action, before;
    if (sigaction(signal_number, NULL, &before) == 0 && before.sa_handler == SIG_IGN)
        return;
    action =
        (struct sigaction){.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

void ra_interrupt_install(void)
{
    install(SIGINT);
    install(SIGTERM);
}

bool ra_interrupt_requested(void)
{
    return ra_interrupt_flag != 0;
}
