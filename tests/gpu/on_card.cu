/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests ask of the emulation, where a card runs them: it has an order of its own, which
 * changes from launch to launch, and counts no traffic.
 */
#include "tests/emu/control.h"

void ra_emu_seed(uint64_t)
{
}
void ra_emu_count_traffic(int)
{
}
void ra_emu_reset_traffic(void)
{
}
