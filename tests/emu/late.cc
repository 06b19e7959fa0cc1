/* SPDX-License-Identifier: Apache-2.0 */
/* A card that takes no time of its own is as far behind the host as a test says. */
#include "tests/emu/internal.h"

#include <stdlib.h>

static const char *letters = "", *next = ""; /* plain: set before constructors have run */
static char at_hand = '.';

void ra_emu_set_late(const char *text)
{
    letters = next = text ? text : "";
    at_hand = '.';
}

__attribute__((constructor)) static void late_from_environment()
{
    ra_emu_set_late(getenv("RA_EMU_LATE"));
}

bool ra_has_run_dry(cudaStream_t)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    next = *next ? next : letters;
    at_hand = *next ? *next++ : '.';
    return at_hand == 'd';
}

bool ra_has_come_to(cudaEvent_t)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    return at_hand != '.';
}
