/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/range.h"

#ifdef RA_NVTX
#include <nvtx3/nvToolsExt.h>
#include <pthread.h>

static const char *const kind_names[] = {[RA_RANGE_STEP] = "step",
                                         [RA_RANGE_LAYER] = "layer",
                                         [RA_RANGE_OP] = "op",
                                         [RA_RANGE_PLAYED] = "played step"};
enum { KINDS = sizeof kind_names / sizeof *kind_names };

static nvtxDomainHandle_t domain; /* NULL: no tool */
static nvtxStringHandle_t kind_strings[KINDS], op_strings[RA_OP_COUNT];

static void look_for_tool(void)
{
    nvtxDomainHandle_t made = nvtxDomainCreateA("rattn-sim");
    if (!made)
        return;
    for (unsigned kind = RA_RANGE_STEP; kind < KINDS; kind++) {
        nvtxDomainNameCategoryA(made, kind, kind_names[kind]);
        kind_strings[kind] = nvtxDomainRegisterStringA(made, kind_names[kind]);
    }
    for (int op = 0; op < RA_OP_COUNT; op++)
        op_strings[op] = nvtxDomainRegisterStringA(made, ra_op_name((enum ra_op)op));
    domain = made;
}

bool ra_range_enabled(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_for_tool);
    return domain != NULL;
}

static uint64_t payload(enum ra_range_kind kind, int32_t step, int layer, enum ra_op op)
{
    uint64_t of_op = kind == RA_RANGE_OP ? (uint64_t)op + 1 : 0;
    return (uint64_t)kind << 56 | of_op << 48 | (uint64_t)(uint16_t)(layer + 1) << 32 |
           (uint64_t)(uint32_t)(step + 1);
}

void ra_range_push(enum ra_range_kind kind, int32_t step, int layer, enum ra_op op)
{
    if (!domain)
        return;
    nvtxEventAttributes_t range = {.version = NVTX_VERSION,
                                   .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                   .category = (uint32_t)kind,
                                   .payloadType = NVTX_PAYLOAD_TYPE_UNSIGNED_INT64,
                                   .payload.ullValue = payload(kind, step, layer, op),
                                   .messageType = NVTX_MESSAGE_TYPE_REGISTERED,
                                   .message.registered =
                                       kind == RA_RANGE_OP ? op_strings[op] : kind_strings[kind]};
    nvtxDomainRangePushEx(domain, &range);
}

void ra_range_pop(void)
{
    if (domain)
        nvtxDomainRangePop(domain);
}

#else

bool ra_range_enabled(void)
{
    return false;
}

void ra_range_push(enum ra_range_kind kind, int32_t step, int layer, enum ra_op op)
{
    (void)kind, (void)step, (void)layer, (void)op;
}

void ra_range_pop(void)
{
}

#endif
