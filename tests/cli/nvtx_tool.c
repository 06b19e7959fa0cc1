/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tool for nvtx.bats: NVTX loads it where NVTX_INJECTION64_PATH names it. It writes what it is
 * told to $TOOL_LOG, one line each, and at the push of number $TOOL_AT does what $TOOL_DOES says.
 */
#include <inttypes.h>
#include <nvtx3/nvToolsExt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table);

static FILE *lines;
static char room[1 << 20];
static long n_pushed, push_to_act;

/* A handle is the name itself: the product's are constants. */
static nvtxDomainHandle_t create_domain(const char *name)
{
    fprintf(lines, "domain %s\n", name);
    return (nvtxDomainHandle_t)(uintptr_t)name;
}

static nvtxStringHandle_t register_string(nvtxDomainHandle_t domain, const char *name)
{
    fprintf(lines, "string %s %s\n", (const char *)domain, name);
    return (nvtxStringHandle_t)(uintptr_t)name;
}

static void name_category(nvtxDomainHandle_t domain, uint32_t number, const char *name)
{
    fprintf(lines, "category %s %" PRIu32 " %s\n", (const char *)domain, number, name);
}

static void act(void)
{
    const char *what = getenv("TOOL_DOES");
    if (what && strcmp(what, "interrupt") == 0)
        raise(SIGINT);
    if (what && strcmp(what, "full disk") == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, RLIM_INFINITY});
    }
    if (what && strcmp(what, "no memory") == 0)
        setrlimit(RLIMIT_AS, &(struct rlimit){0, RLIM_INFINITY});
}

/* Lines wait until here, where the disk is there again. */
__attribute__((destructor)) static void write_lines(void)
{
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
    if (lines)
        fclose(lines);
}

static int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *range)
{
    const char *name = range->messageType == NVTX_MESSAGE_TYPE_REGISTERED
                           ? (const char *)range->message.registered
                           : "not registered";
    fprintf(lines, "push %s %" PRIu32 " %d %016" PRIx64 " %s\n", (const char *)domain,
            range->category, (int)range->payloadType, range->payload.ullValue, name);
    if (++n_pushed == push_to_act)
        act();
    return 0;
}

static int pop(nvtxDomainHandle_t domain)
{
    fprintf(lines, "pop %s\n", (const char *)domain);
    return 0;
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table)
{
    const NvtxExportTableCallbacks *callbacks = get_export_table(NVTX_ETID_CALLBACKS);
    const char *at = getenv("TOOL_AT"), *log = getenv("TOOL_LOG");
    NvtxFunctionTable table;
    unsigned size;
    if (!log || !callbacks ||
        !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size))
        return 0;
    lines = fopen(log, "w");
    if (lines)
        setvbuf(lines, room, _IOFBF, sizeof room);
    push_to_act = at ? atol(at) : 0;
    *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create_domain;
    *table[NVTX_CBID_CORE2_DomainRegisterStringA] = (NvtxFunctionPointer)register_string;
    *table[NVTX_CBID_CORE2_DomainNameCategoryA] = (NvtxFunctionPointer)name_category;
    *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
    *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
    return lines != NULL;
}
