/* SPDX-License-Identifier: Apache-2.0 */
/* How a selection is divided among CTAs, and what memory it needs. */
#include "kernels/cuda/select.cuh"

/* As many CTAs as the card holds at once: of few rows several for each. */
ra_select_plan ra_plan_select(int n_sms, int rows, int n)
{
    const int kFit = 2;
    int most = (n + RA_SELECT_SLICE - 1) / RA_SELECT_SLICE, parts = kFit * n_sms / rows;
    parts = parts < most ? parts : most;
    parts = parts < RA_SELECT_PARTS ? parts : RA_SELECT_PARTS;
    parts = parts > 1 ? parts : 1;
    int slice = (most + parts - 1) / parts * RA_SELECT_SLICE;
    slice = slice < RA_SELECT_SLICE ? RA_SELECT_SLICE : slice;
    slice = slice < RA_SELECT_MOST ? slice : RA_SELECT_MOST;
    return {rows, n, n > slice ? (n - 1) / slice + 1 : 1, slice};
}

size_t ra_select_scratch(const ra_select_plan &plan)
{
    return ra_select_parts(plan).end * sizeof(uint32_t);
}

size_t ra_select_zeros(const ra_select_plan &plan)
{
    return ra_select_parts(plan).counts * sizeof(uint32_t);
}

size_t ra_select_lists(const ra_select_plan &plan)
{
    return ra_select_scratch(plan) - ra_select_zeros(plan);
}
