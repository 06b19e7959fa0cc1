/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one source of chance: all that is shuffled draws from it in turn, so a seed is a schedule.
 */
#include "tests/emu/internal.h"

#include <stdlib.h>

static uint64_t seed_now, state;

void ra_emu_seed(uint64_t seed)
{
    seed_now = seed;
    state = seed * 0xd1342543de82ef95u; /* far apart: neighbours would give shifted draws */
}

__attribute__((constructor)) static void seed_from_environment()
{
    const char *text = getenv("RA_EMU_SEED");
    ra_emu_seed(text ? strtoull(text, NULL, 10) : 0);
}

uint64_t ra_emu_seed_now()
{
    return seed_now;
}

bool ra_emu_shuffled()
{
    return seed_now != 0;
}

uint64_t ra_emu_below(uint64_t n)
{
    if (!seed_now)
        return 0;
    uint64_t z = state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}
