/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts global accesses as the memory system would see them: what the lanes of a warp ask for at
 * one place of the source, for the same time since they last met, is one instruction.
 */
#include "tests/emu/fiber.h"
#include "tests/emu/internal.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace
{
enum { SECTOR = 32, LINE = 128, WARP = 32 };

/* Where and when: warp, epoch, file, line, kind, size, and the how manieth there. */
typedef std::tuple<unsigned, unsigned, const char *, int, int, size_t, unsigned> instruction;
/* The same, of one lane. */
typedef std::tuple<unsigned, unsigned, const char *, int, int, size_t> place;

bool counting;
std::map<std::string, struct ra_emu_traffic> by_kernel;
struct ra_emu_traffic *now;
std::unordered_set<uintptr_t> lines;
std::map<instruction, std::vector<uintptr_t>> instructions;
std::map<place, unsigned> visits[WARP];
} // namespace

void ra_emu_count_traffic(int on)
{
    counting = on != 0;
}

void ra_emu_reset_traffic(void)
{
    by_kernel.clear();
}

int ra_emu_get_traffic(const char *kernel, struct ra_emu_traffic *out)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    auto it = by_kernel.find(kernel);
    *out = it == by_kernel.end() ? ra_emu_traffic{} : it->second;
    return it != by_kernel.end();
}

void ra_emu_total_traffic(struct ra_emu_traffic *out)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    *out = {};
    for (const auto &each : by_kernel) {
        const struct ra_emu_traffic &of = each.second;
        out->launches += of.launches;
        out->load_bytes += of.load_bytes;
        out->store_bytes += of.store_bytes;
        out->instructions += of.instructions;
        out->sectors += of.sectors;
        out->min_sectors += of.min_sectors;
        out->lines += of.lines;
        out->atomics += of.atomics;
    }
}

void ra_emu_count_launch(const char *text)
{
    now = counting ? &by_kernel[ra_emu_kernel_name(text)] : NULL;
    if (now)
        now->launches++;
}

void ra_emu_count_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file,
                         int line)
{
    if (!now)
        return;
    ra_fiber_unwatched books;
    if (kind == RA_EMU_ATOMIC) {
        now->atomics += ra_emu_locate(p, bytes) != RA_EMU_PAGEABLE;
        return;
    }
    *(kind == RA_EMU_LOAD ? &now->load_bytes : &now->store_bytes) += bytes;
    unsigned warp = ra_emu_warp(), epoch = ra_emu_epoch();
    unsigned visit = visits[ra_emu_lane()][{warp, epoch, file, line, kind, bytes}]++;
    instructions[{warp, epoch, file, line, kind, bytes, visit}].push_back((uintptr_t)p);
}

static void count_instruction(std::vector<uintptr_t> &addresses, size_t bytes)
{
    std::sort(addresses.begin(), addresses.end());
    size_t distinct = 0;
    uint64_t n_sectors = 0;
    uintptr_t end = 0, sector_end = 0; /* what is counted already */
    for (uintptr_t p : addresses) {
        distinct += p + bytes - std::max(p, std::min(end, p + bytes));
        end = p + bytes;
        uintptr_t first = std::max(p / SECTOR, sector_end);
        sector_end = (p + bytes - 1) / SECTOR + 1;
        n_sectors += sector_end > first ? sector_end - first : 0;
        lines.insert(p / LINE); /* aligned: never astride */
    }
    now->instructions++;
    now->sectors += n_sectors;
    now->min_sectors += (distinct + SECTOR - 1) / SECTOR;
}

void ra_emu_count_block_end()
{
    if (!now)
        return;
    for (auto &each : instructions)
        count_instruction(each.second, std::get<5>(each.first));
    instructions.clear();
    for (auto &lane : visits)
        lane.clear();
}

void ra_emu_count_launch_end()
{
    if (now)
        now->lines += lines.size();
    lines.clear();
    now = NULL;
}
