/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programmatic dependent launch: a launch that may start early runs beside the one ahead of it in
 * its stream until it has waited for it. Before that it may read what the one ahead does not write,
 * and write nothing; and a thread that ends without the wait lets the next launch start beside one
 * it knows nothing of.
 */
#include "tests/emu/block.h"

#include <algorithm>
#include <map>
#include <vector>

namespace
{
struct stretch {
    uintptr_t first, end;
};
typedef std::vector<stretch> stretches;

std::map<cudaStream_t, stretches> written; /* by the last launch of each stream */
stretches ahead;                           /* of the running launch, sorted when first asked */
stretches *own;
bool is_early, is_sorted;
} // namespace

void ra_emu_early_launch(const struct ra_emu_launch &launch)
{
    own = &written[launch.stream];
    is_early = launch.early;
    is_sorted = false;
    ahead.swap(*own);
    own->clear();
}

static bool is_ahead(uintptr_t first, uintptr_t end)
{
    auto less = [](const stretch &a, const stretch &b) { return a.first < b.first; };
    if (!is_sorted)
        std::sort(ahead.begin(), ahead.end(), less);
    is_sorted = true;
    const uintptr_t kLongest = 16; /* bytes of an access */
    stretch from = {first - kLongest, 0};
    for (auto at = std::lower_bound(ahead.begin(), ahead.end(), from, less);
         at != ahead.end() && at->first < end; ++at)
        if (at->end > first)
            return true;
    return false;
}

void ra_emu_early_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file,
                         int line)
{
    ra_fiber_unwatched books;
    uintptr_t first = (uintptr_t)p;
    if (kind != RA_EMU_LOAD)
        own->push_back({first, first + bytes});
    if (!is_early || ra_emu_now->after_earlier)
        return;
    if (kind != RA_EMU_LOAD)
        ra_emu_fault("%s:%d: written before the launches ahead are over", file, line);
    if (is_ahead(first, first + bytes))
        ra_emu_fault("%s:%d: load of what the launch ahead writes, before that is over", file,
                     line);
}

void ra_emu_after_earlier()
{
    ra_emu_must_run("ra_after_earlier", 0);
    ra_emu_now->after_earlier = true;
}

void ra_emu_early_leave()
{
    if (is_early && !ra_emu_now->after_earlier)
        ra_emu_fault("ended without waiting for the launches ahead");
}
